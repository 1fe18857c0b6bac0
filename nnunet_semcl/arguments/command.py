"""What sub-commands share: their help with an example, and the arguments that nnU-Net's commands have too."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Adds a sub-command. The summary is its line in the list of commands, the rest is for its own -h."""
    parser = commands.add_parser(name, help=summary, description=description, epilog=f"Example: {example}")
    parser.set_defaults(run=run)
    return parser


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")


def add_plans(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help=f"identifier of the plans{purpose} (default: nnUNetPlans)"
    )


def add_trained_fold(parser: argparse.ArgumentParser) -> None:
    """Adds what names a trained fold, the device to compute on, and the new folder for what is found."""
    add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration of the trained model")
    parser.add_argument("-f", required=True, metavar="FOLD", help="fold of the trained model")
    parser.add_argument("-tr", required=True, metavar="TRAINER", help="trainer of the trained model")
    add_plans(parser)
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="as nnU-Net's (default: cuda)")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for what is found")


def positive(text: str) -> int:
    """Type of an argument that counts something.

    Raises:
        ArgumentTypeError: the text is not a whole number of 1 or more.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)
