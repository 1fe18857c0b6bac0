"""Arguments of `nnunet-semcl doctor`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "doctor",
        _run,
        "check the installation and show how to fix it",
        "Checks Python, PyTorch, nnU-Net, its folders and the trainers of this package. Below each fault it prints "
        "the fix. The exit code is 1 if there is a fault.",
        "nnunet-semcl doctor -d 17",
    )
    parser.add_argument("-d", metavar="DATASET", help="also read every preprocessed case of this data set")


def _run(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.doctor import run_doctor

    return run_doctor(args.d)
