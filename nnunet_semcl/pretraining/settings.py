"""What the methods' settings have in common: derived from nnU-Net's plan, single ones overridden by its section."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.rules import RATE, SHARE, Rule

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

RATE_BY_FEATURES = 0.08  # of 1e-2 and 3e-3 the first was better for Hippocampus with 8 features


class Derived(NamedTuple):
    """A setting's value for a plan and the reason for it; the rule, where that depends on the plan too."""

    value: Any
    reason: str
    rule: Rule | None = None


def setting(rule: Rule | None, value: Any = None, reason: str | None = None) -> Any:
    """A field of a method's settings.

    Args:
        rule: what a plan's section may set it to; None where `derived` gives the rule.
        value, reason: its default and why; without a reason the field has none, and `derived` gives both.
    """
    if reason is None:
        return field(metadata={"rule": rule})
    return field(default=value, metadata={"rule": rule, "reason": reason})


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Settings of a method's pretraining.

    A method derives from this and names its section of the plans: `class MaskedSettings(MethodSettings,
    section="masked")`. From then on every command knows that section.

    Attributes:
        by_section: section -> settings class, of each method that was imported.
        learning_rate: AdamW's largest one, after the warm-up.
        weight_decay: AdamW's.
        reasons: why each of the others is what it is, for the log.
    """

    by_section: ClassVar[dict[str, type[MethodSettings]]] = {}
    section: ClassVar[str]

    learning_rate: float = setting(RATE)
    weight_decay: float = setting(SHARE, 1e-2, "torch's for AdamW")
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    def __init_subclass__(cls, section: str) -> None:
        cls.section = section
        MethodSettings.by_section[section] = cls

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        """The settings that depend on a plan's configuration; a method adds its own to these."""
        features = configuration.network_arch_init_kwargs["features_per_stage"][0]
        reason = f"{RATE_BY_FEATURES} over the first stage's {features} features: wide layers want less"
        return {"learning_rate": Derived(RATE_BY_FEATURES / features, reason)}

    @classmethod
    def from_plan(cls, configuration: ConfigurationManager, name: str) -> Self:
        """Derives the settings from a plan's configuration and applies the method's section of it, if there is one.

        Args:
            name: of the configuration, for errors.

        Raises:
            InputError: the section has an unknown key or an impossible value.
        """
        derived = cls.derived(configuration)
        reasons = {f.name: f.metadata["reason"] for f in fields(cls) if "reason" in f.metadata}
        reasons |= {key: of.reason for key, of in derived.items()}
        settings = cls(**{key: of.value for key, of in derived.items()}, reasons=reasons)
        rules = {f.name: f.metadata.get("rule") for f in fields(cls)}
        rules |= {key: of.rule for key, of in derived.items() if of.rule}
        return settings._overridden(configuration.configuration.get(cls.section, {}), name, rules)

    def as_dict(self) -> dict[str, Any]:
        """The settings without their reasons."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reasons"}

    def _overridden(self, values: Any, name: str, rules: dict[str, Rule]) -> Self:
        where = f'"{self.section}" of configuration {name}'
        keys = ", ".join(self.as_dict())
        if not isinstance(values, dict):
            raise InputError(where, type(values).__name__, "an object of settings", f"Valid keys: {keys}.")
        for key, value in values.items():
            if key not in self.as_dict():
                raise InputError(where, f'the unknown key "{key}"', f"one of {keys}", "Correct or remove it.")
            if not rules[key].holds(value):
                fix = "Correct it, or remove the key."
                raise InputError(f"{where}, key {key}", repr(value), rules[key].expected, fix)
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return replace(self, **values, reasons=self.reasons | dict.fromkeys(values, f"set by {where}"))
