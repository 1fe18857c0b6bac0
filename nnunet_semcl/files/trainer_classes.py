"""The class of a trainer, found by its name as nnU-Net finds it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semcl.errors import InputError


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """Returns the class of this name in nnU-Net or in a folder of nnUNet_extTrainer.

    Raises:
        InputError: there is none.
    """
    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net says where it looks
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError:  # nnU-Net's, where it finds none
        found = None
    if found is None or not issubclass(found, nnUNetTrainer):
        raise InputError(
            f"-tr {name}: nnU-Net finds no trainer of this name", "Correct it; nnunet-semcl doctor lists ours."
        )
    return found
