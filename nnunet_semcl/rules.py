"""Rules for the values that users write in JSON: each in words, for an error, and as a test."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
TEXT = Rule("a text", lambda value: isinstance(value, str) and value != "")
FOLDER_NAME = Rule("the name of a folder", lambda v: TEXT.holds(v) and Path(v).name == v)
NAMED = Rule("an object that names at least one", lambda value: isinstance(value, dict) and value != {})
