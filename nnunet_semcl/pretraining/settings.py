"""The base of all methods' settings: derived from nnU-Net's plan; a section of the plan overrides single ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.rules import RATE, SHARE, TEXT, Rule, json_type

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

RATE_BY_FEATURES = 0.08  # on Hippocampus with 8 features, 1e-2 did better than 3e-3


class Derived(NamedTuple):
    """A setting's value for a plan and the reason for it; also its rule, where that depends on the plan."""

    value: Any
    reason: str
    rule: Rule | None = None


def setting(
    rule: Rule | None, value: Any = None, reason: str | None = None, needs: Sequence[dict[str, tuple[Any, ...]]] = ()
) -> Any:
    """Declares a field of a method's settings.

    Args:
        rule: the values that the plan may set; None where `derived` gives the rule.
        value: the default.
        reason: why this default; None if `derived` gives both the value and its reason.
        needs: where the setting has an effect, other setting -> its values; one of several such places is enough. To
            set it elsewhere is an error.
    """
    metadata = {"rule": rule, "needs": needs}
    if reason is None:
        return field(metadata=metadata)
    return field(default=value, metadata={**metadata, "reason": reason})


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Settings of a method's pretraining.

    A method derives from this class and names its section of the plans: `class MaskedSettings(MethodSettings,
    section="masked")`. From then on every command knows that section.

    Attributes:
        by_section: the settings class of every imported method, by section.
        phases: names of the phases that share the epochs with nnU-Net's training.
        citations: papers of the method, for those who use the pretrained weights; as nnssl writes them.
        shares: phase -> its share of all epochs; nnU-Net's training gets the rest, at least one epoch. With None the
            trainer divides them.
        learning_rate: AdamW's peak learning rate, reached after the warm-up.
        weight_decay: AdamW's weight decay.
        start_from: file of a checkpoint of this package, of nnU-Net or of nnssl, whose weights the network starts with
            as far as they fit.
        reasons: why each setting has its value, for the log.
    """

    by_section: ClassVar[dict[str, type[MethodSettings]]] = {}
    section: ClassVar[str]
    phases: ClassVar[tuple[str, ...]] = ("pretraining",)
    citations: ClassVar[list[dict[str, Any]]] = []

    shares: Mapping[str, float] | None = setting(None)
    learning_rate: float = setting(RATE)
    weight_decay: float = setting(SHARE, 1e-2, "torch's default for AdamW")
    start_from: str | None = setting(
        Rule("the file of a checkpoint, or null", lambda value: value is None or TEXT.holds(value)),
        None,
        "nnU-Net's random weights",
    )
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    def __init_subclass__(cls, section: str) -> None:
        cls.section = section
        MethodSettings.by_section[section] = cls

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        """Returns the settings that depend on a configuration of the plan; a method adds its own to them."""
        features = configuration.network_arch_init_kwargs["features_per_stage"][0]
        reason = f"{RATE_BY_FEATURES} divided by the {features} features of the first stage: wide layers need less"
        return {
            "shares": Derived(None, "by the cases of the fold", _shares_rule(cls.phases)),
            "learning_rate": Derived(RATE_BY_FEATURES / features, reason),
        }

    @classmethod
    def from_plan(cls, configuration: ConfigurationManager, name: str) -> Self:
        """Derives the settings from a configuration of the plan, then applies the method's section, if present.

        Args:
            configuration: nnU-Net's configuration.
            name: the configuration's name, for errors.

        Raises:
            InputError: the section has an unknown key or an impossible value.
        """
        derived = cls.derived(configuration)
        reasons = {f.name: f.metadata["reason"] for f in fields(cls) if "reason" in f.metadata}
        reasons |= {key: entry.reason for key, entry in derived.items()}
        settings = cls(**{key: entry.value for key, entry in derived.items()}, reasons=reasons)
        rules = {f.name: f.metadata["rule"] for f in fields(cls) if "rule" in f.metadata}
        rules |= {key: entry.rule for key, entry in derived.items() if entry.rule}
        return settings._overridden(configuration.configuration.get(cls.section, {}), name, rules)

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings without their reasons."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reasons"}

    def _overridden(self, values: Any, name: str, rules: dict[str, Rule]) -> Self:
        where = f'"{self.section}" of configuration {name}'
        valid_keys = f"Valid keys: {', '.join(self.as_dict())}."
        if not isinstance(values, dict):
            raise InputError(f"{where}: {json_type(values)} is not an object of settings", valid_keys)
        for key, value in values.items():
            if key not in self.as_dict():
                raise InputError(f'{where}: unknown key "{key}"', valid_keys)
            if not rules[key].holds(value):
                problem = f"{where}, {key}: {value!r} is not {rules[key].expected}"
                raise InputError(problem, "Correct it, or remove the key.")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        settings = replace(self, **values, reasons=self.reasons | dict.fromkeys(values, f"set by {where}"))
        for f in fields(self):
            places = f.metadata.get("needs", ())
            if f.name in values and places and not any(settings._is(place) for place in places):
                present = {other: getattr(settings, other) for place in places for other in place}
                wanted = " or ".join(
                    f'"{other}": {json.dumps(value)}' for place in places for other in place for value in place[other]
                )
                raise InputError(
                    f"{where}, {f.name}: it has no effect with {json.dumps(present)}",
                    f"Remove it, or set one of them: {wanted}.",
                )
        return settings

    def _is(self, place: dict[str, tuple[Any, ...]]) -> bool:
        return all(getattr(self, other) in useful for other, useful in place.items())


def _shares_rule(phases: tuple[str, ...]) -> Rule:
    example = ", ".join(f'"{phase}": 0.2' for phase in phases)
    return Rule(
        f"an object with a share for each phase, such as {{{example}}}: numbers from 0 on, together at most 1",
        lambda value: (
            isinstance(value, dict)
            and value.keys() == set(phases)
            and all(SHARE.holds(share) for share in value.values())
            and sum(value.values()) <= 1
        ),
    )
