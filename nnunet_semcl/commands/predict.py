"""`nnunet-semcl predict`: runs nnUNetv2_predict with this package's trainers."""

from __future__ import annotations

import sys

from nnunetv2.inference import predict_from_raw_data as nnunet

from nnunet_semcl.commands.path import add_trainer_path


def predict(arguments: list[str]) -> None:
    """Runs nnUNetv2_predict with these arguments, and with this package's trainers."""
    add_trainer_path()
    sys.argv = ["nnunet-semcl predict", *arguments]
    nnunet.predict_entry_point()
