"""The one error for input that a user can fix."""

from __future__ import annotations


class InputError(RuntimeError):
    """Bad input: one sentence that names the file or key and what is wrong, and one that says what to do.

    The command line prints the message alone; inside nnUNetv2_train it ends the traceback.

    >>> print(InputError("splits_final.json, fold 0: no case in 'train'", "Move cases to 'train'."))
    splits_final.json, fold 0: no case in 'train'. Move cases to 'train'.
    """

    def __init__(self, problem: str, *fix: str) -> None:
        if len(fix) == 3:  # the move is under way: where, found, expected, fix
            problem, fix = f"{problem}: found {fix[0]}, expected {fix[1]}", fix[2:]
        super().__init__(f"{problem}. {fix[0]}")
