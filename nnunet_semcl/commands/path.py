"""`nnunet-semcl path`: the value for nnUNet_extTrainer, the folders where nnU-Net looks for further trainers."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_semcl import trainers  # type: ignore[attr-defined]  # setup.cfg maps trainers/ to this name

EXT_TRAINER = "nnUNet_extTrainer"


def trainer_path(current: str | None) -> str:
    """The current value of nnUNet_extTrainer, with this package's trainers folder appended if it is missing."""
    own = Path(trainers.__file__).parent
    folders = [folder for folder in (current or "").split(os.pathsep) if folder]
    return os.pathsep.join(folders if own in map(Path, folders) else [*folders, str(own)])


def print_path() -> None:
    """Prints the value, and nothing else, for use in a shell's $(...)."""
    print(trainer_path(os.environ.get(EXT_TRAINER)))


def add_trainer_path() -> None:
    """Sets nnUNet_extTrainer for this process and its child processes."""
    os.environ[EXT_TRAINER] = trainer_path(os.environ.get(EXT_TRAINER))
