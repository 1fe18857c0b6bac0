"""`nnunet-semcl path`: the value for nnUNet_extTrainer, where nnU-Net looks for trainers besides its own."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_semcl import trainers

EXT_TRAINER = "nnUNet_extTrainer"


def trainer_path(current: str | None) -> str:
    """The current value of nnUNet_extTrainer with this package's trainers folder in it once."""
    own = Path(trainers.__file__).parent
    folders = [folder for folder in (current or "").split(os.pathsep) if folder]
    return os.pathsep.join(folders if own in map(Path, folders) else [*folders, str(own)])


def print_path() -> None:
    print(trainer_path(os.environ.get(EXT_TRAINER)))


def add_trainer_path() -> None:
    """Sets nnUNet_extTrainer for this process and for those that it starts."""
    os.environ[EXT_TRAINER] = trainer_path(os.environ.get(EXT_TRAINER))
