"""The error for input that a user can fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMES = 5  # in a list that may be long


class InputError(RuntimeError):
    """Wrong input that a user can fix.

    The command line prints only the message; in nnUNetv2_train it is the last line of the traceback.

    Args:
        problem: one sentence without its full stop that names the file or key and what is wrong with it.
        fix: one or two sentences that say what to do.

    >>> print(InputError("splits_final.json, fold 0: no case in 'train'", "Move cases to 'train'."))
    splits_final.json, fold 0: no case in 'train'. Move cases to 'train'.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)  # as arguments, so that a worker process can hand the error on

    def __str__(self) -> str:
        return ". ".join(self.args)


def first_names(names: Sequence[str]) -> str:
    """A list of names that may be long, for a message.

    >>> print(first_names(["a", "b", "c", "d", "e", "f", "g"]))
    a, b, c, d, e, ...
    """
    return ", ".join((*names[:NAMES], *(["..."] if len(names) > NAMES else [])))


def access_error(error: OSError, file: Path, variable: str) -> InputError:
    """Names the file or folder that cannot be written, and the variable of nnU-Net's that says where it is."""
    return InputError(
        f"cannot write {file}: {error.strerror}",
        f"Give yourself permission to write there, or set {variable} to another folder.",
    )
