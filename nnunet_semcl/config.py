"""What the methods' settings have in common: derived from nnU-Net's plan, single fields overridden by its section."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError

RATE_BY_FEATURES = 0.08  # of 1e-2 and 3e-3 the first was better for Hippocampus with 8 features


@dataclass(frozen=True)
class Rule:
    """What a setting may be: in words for an error, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return is_whole(value) or isinstance(value, float)


def whole(least: int, why: str = "", most: int = 2**16) -> Rule:
    return Rule(f"a whole number from {least} to {most}{why}", lambda value: is_whole(value) and least <= value <= most)


def number(least: float, most: float) -> Rule:
    return Rule(f"a number from {least:g} to {most:g}", lambda value: _is_number(value) and least <= value <= most)


def whole_numbers(lengths: Collection[int]) -> Rule:
    """Lists of them, above 0, of one of the lengths."""
    return Rule(
        f"{' or '.join(map(str, lengths))} whole numbers above 0",
        lambda value: isinstance(value, list) and len(value) in lengths and all(is_whole(v) and v > 0 for v in value),
    )


def one_of(choices: Collection[str]) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


# Beyond these bounds a training breaks down with errors of its own, hours later.
RATE = number(1e-8, 1)
TEMPERATURE = number(0.001, 1000)
SHARE = number(0, 1)
COUNT = whole(1)
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))


def setting(rule: Rule | None, value: Any = None, reason: str | None = None) -> Any:
    """A field with its rule, None where that depends on the plan; without a reason it has no default, and is derived
    from the plan."""
    if reason is None:
        return field(metadata={"rule": rule})
    return field(default=value, metadata={"rule": rule, "reason": reason})


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method's pretraining; a method derives from this and names its section of the plans."""

    section: ClassVar[str]

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.name != "reasons")

    @classmethod
    def default_reasons(cls) -> dict[str, str]:
        return {f.name: f.metadata["reason"] for f in fields(cls) if "reason" in f.metadata}

    def as_dict(self) -> dict[str, Any]:
        """The settings without their reasons."""
        return {name: getattr(self, name) for name in self.settings()}

    def overridden(self, configuration: ConfigurationManager, name: str, rules: Mapping[str, Rule]) -> Self:
        """With the fields that the configuration's section sets.

        Args:
            name: of the configuration, for errors.
            rules: of the fields whose rule depends on the plan.

        Raises:
            InputError: the section has an unknown key or an impossible value.
        """
        where = f'"{self.section}" of configuration {name}'
        values = configuration.configuration.get(self.section, {})
        keys = ", ".join(self.settings())
        if not isinstance(values, dict):
            raise InputError(where, type(values).__name__, "an object of settings", f"Valid keys: {keys}.")
        rules = {f.name: f.metadata.get("rule") for f in fields(self)} | dict(rules)
        for key, value in values.items():
            if key not in self.settings():
                raise InputError(where, f'the unknown key "{key}"', f"one of {keys}", "Correct or remove it.")
            if not rules[key].holds(value):
                fix = "Correct it, or remove the key."
                raise InputError(f"{where}, key {key}", repr(value), rules[key].expected, fix)
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return replace(self, **values, reasons=self.reasons | dict.fromkeys(values, f"set by {where}"))


def learning_rate(configuration: ConfigurationManager) -> tuple[float, str]:
    """AdamW's largest one for the planned network, and the reason for it."""
    features = configuration.network_arch_init_kwargs["features_per_stage"][0]
    reason = f"{RATE_BY_FEATURES} over the first stage's {features} features: wide layers want less"
    return RATE_BY_FEATURES / features, reason
