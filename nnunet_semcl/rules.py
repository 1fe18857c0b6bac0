"""Rules for the values that users write in JSON, each as a test and in words for an error."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        expected: in words that read well after 'is not', such as 'a whole number from 1 to 65536'.
        holds: tests a value.
    """

    expected: str
    holds: Callable[[Any], bool]


def is_whole(value: object) -> bool:
    """Whether a value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float)


def whole(least: int, why: str = "", most: int = 2**16) -> Rule:
    """Whole numbers from `least` to `most`. `why` is appended to the words."""
    return Rule(f"a whole number from {least} to {most}{why}", lambda value: is_whole(value) and least <= value <= most)


def number(least: float, most: float) -> Rule:
    """Numbers from `least` to `most`."""
    return Rule(f"a number from {least:g} to {most:g}", lambda value: _is_number(value) and least <= value <= most)


def whole_numbers(lengths: Collection[int]) -> Rule:
    """Lists of whole numbers above 0 that have one of the lengths."""
    return Rule(
        f"a list of {' or '.join(map(str, lengths))} whole numbers above 0",
        lambda value: isinstance(value, list) and len(value) in lengths and all(is_whole(v) and v > 0 for v in value),
    )


def one_of(choices: Collection[str]) -> Rule:
    """One of the texts."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def json_type(value: object) -> str:
    """What JSON calls a value, with its article, for an error: a list, an object, null."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")


# Beyond these bounds a training fails hours later, with errors that do not name the setting.
RATE = number(1e-8, 1)
TEMPERATURE = number(0.001, 1000)
SHARE = number(0, 1)
COUNT = whole(1)
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("a text that is not empty", lambda value: isinstance(value, str) and value != "")
FOLDER_NAME = Rule("the name of a folder, without its path", lambda v: TEXT.holds(v) and Path(v).name == v)
NAMED = Rule("an object with at least one entry", lambda value: isinstance(value, dict) and value != {})
