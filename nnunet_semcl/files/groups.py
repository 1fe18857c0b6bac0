"""Groups of cases, such as the scans of one patient, found by a pattern in the cases' names."""

from __future__ import annotations

import re

from nnunet_semcl.errors import InputError


def check_group(group: str | None) -> None:
    """Checks the pattern.

    Raises:
        InputError: it is not a regular expression.
    """
    try:
        re.compile(group or "")
    except re.error as problem:
        raise InputError(
            f"--group '{group}' is not a regular expression ({problem})",
            r"Fix the pattern, e.g. --group 'patient\d+'",
        ) from problem


def group_of(case: str, group: str | None) -> str:
    """The text that the pattern matches in the case's name. Without a pattern, every case is its own group.

    Raises:
        InputError: the pattern matches nothing.
    """
    if group is None:
        return case
    match = re.search(group, case)
    if not match or not match.group():
        raise InputError(
            f"--group '{group}' matches nothing in the case name {case!r}",
            r"Give a pattern that matches the group in every case name, e.g. --group 'patient\d+'",
        )
    return match.group()
