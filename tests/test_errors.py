from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

from nnunet_semcl.errors import InputError, access_error


def test_an_error_comes_whole_out_of_another_process() -> None:
    error = InputError("file.json: no 'key'", "Add it.")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, InputError)
    assert str(again) == str(error) == "file.json: no 'key'. Add it."


def test_a_file_that_cannot_be_written_is_named_with_the_folder_to_change() -> None:
    problem = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/temporary/name")
    assert str(access_error(problem, Path("/data/plans.json"), "nnUNet_results")) == (
        "cannot write /data/plans.json: Permission denied. Give yourself permission to write there, or set "
        "nnUNet_results to another folder."
    )
