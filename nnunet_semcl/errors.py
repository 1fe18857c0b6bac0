"""The one error for input that a user can mend."""


class InputError(RuntimeError):
    """Bad input, told in one message: where it is, what was found, what was expected, and the fix.

    The command line prints the message alone; inside nnUNetv2_train it ends the traceback.
    """

    def __init__(self, where: str, found: str, expected: str, fix: str) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}. {fix}")
