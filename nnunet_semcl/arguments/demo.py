"""Arguments of `nnunet-semcl demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semcl.arguments.command import Commands, add_command


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        _run,
        "run a short training from start to finish, on synthetic data",
        "Draws a small synthetic data set with few labels, trains nnU-Net with and without pretraining, and compares "
        "both on held-out cases. It takes about three minutes on two CPU cores.",
        "nnunet-semcl demo --seed 1 -o my_demo",
    )
    parser.add_argument(
        "-o",
        type=Path,
        default=Path("nnunet_semcl_demo"),
        metavar="FOLDER",
        help="folder for all files of the demo (default: nnunet_semcl_demo)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other cases (default: 0)")


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.demo import run_demo

    run_demo(args.o, args.seed)
