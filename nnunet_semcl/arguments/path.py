"""Arguments of `nnunet-semcl path`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command


def add(commands: Commands) -> None:
    add_command(
        commands,
        "path",
        _run,
        "print the value for nnUNet_extTrainer",
        "Prints the value for nnUNet_extTrainer, which tells nnU-Net where this package's trainers are. Folders that "
        "the variable names already are kept.",
        'export nnUNet_extTrainer="$(nnunet-semcl path)"',
    )


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.path import print_path

    print_path()
