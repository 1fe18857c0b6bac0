"""JSON files: broken ones are told, and none is ever half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.rules import Rule


def read_json(file: Path) -> dict | list:
    """Raises InputError, naming the file, where it is no JSON, or names a key twice, of which one would be lost."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_keys_once)
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(str(file), f"broken JSON ({problem})", "a JSON file", "Mend it or make it again.") from problem


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"twice the key {next(name for name in names if names.count(name) > 1)!r}")
    return content


def write_json(content: dict | list, file: Path) -> None:
    """Writes beside the file, then puts it in place: a kill leaves the former file or the new one."""
    with atomic_write(file) as beside:
        beside.write_text(json.dumps(content, indent=4))


def check_keys(content: dict, where: str, rules: dict[str, Rule], fix: str) -> None:
    """Raises InputError, naming the key, where one is missing or breaks its rule. `where` is the file, for the error."""
    for key, rule in rules.items():
        if key not in content:
            raise InputError(where, f"no {key!r}", rule.expected, fix)
        if not rule.holds(content[key]):
            raise InputError(f"{where}, {key}", f"{content[key]!r:.200}", rule.expected, fix)
