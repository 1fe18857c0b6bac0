"""JSON files: reading reports what is broken, writing is atomic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.rules import Rule

JSON = dict[str, Any] | list[Any] | str | int | float | bool | None


def read_json(file: Path, fix: str = "Fix the file, or move it away and create it again.") -> JSON:
    """Reads a JSON file.

    Args:
        fix: the advice of an error in its content.

    Raises:
        InputError: the file cannot be read, is not JSON, or repeats a key, so that json would lose a value.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys)
    except OSError as problem:
        raise InputError(f"cannot read {file}: {problem.strerror}", "Make it a readable JSON file.") from problem
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{file}: broken JSON ({problem})", fix) from problem


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"repeated key {next(name for name in names if names.count(name) > 1)!r}")
    return content


def write_json(content: dict | list, file: Path) -> None:
    """Writes a JSON file; a kill at any moment leaves the previous file or the new one.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=4))


def check_keys(content: dict, where: str, rules: dict[str, Rule], fix: str) -> None:
    """Checks that each key of the rules exists and has a valid value.

    Args:
        where: the file, and what in it, for errors.
        fix: the advice of an error.

    Raises:
        InputError: a key is missing or breaks its rule; the message names it.
    """
    for key, rule in rules.items():
        if key not in content:
            raise InputError(f"{where}: the key {key!r} is missing; it must be {rule.expected}", fix)
        if not rule.holds(content[key]):
            raise InputError(f"{where}, {key}: {content[key]!r:.200} is not {rule.expected}", fix)
