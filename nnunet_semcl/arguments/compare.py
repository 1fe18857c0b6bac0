"""Arguments of `nnunet-semcl compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_semcl.arguments.command import Commands, add_command, add_plans, positive
from nnunet_semcl.errors import InputError

if TYPE_CHECKING:
    from nnunet_semcl.evaluation.compare_cases import Options


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compare",
        _run,
        "compare trained models, or folders of predictions, case by case",
        "Compares what trainers predicted for the validation cases of their folds, or folders of predictions: Dice, "
        "surface Dice, HD95 and average surface distance of each class, paired by case, with intervals and tests. "
        "Prints a table and writes a folder with report.md, cases.csv and index.html.",
        "nnunet-semcl compare -d 17 -c 3d_fullres -tr nnUNetTrainer SemCLTrainer -o comparison",
    )
    parser.add_argument("-d", metavar="DATASET", help="name or id of the data set")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration of the trained models")
    parser.add_argument("-tr", nargs="+", metavar="TRAINER", help="trainers; the others are compared with the first")
    add_plans(parser)
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: those that all trainers have finished)")
    parser.add_argument(
        "-i", nargs="+", type=Path, metavar="FOLDER", help="in place of -d, -c and -tr: folders of nnUNetv2_predict"
    )
    parser.add_argument("-gt", type=Path, metavar="FOLDER", help="with -i: the true segmentations")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="with -i: the images, for pictures")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for the report")
    add_comparison(parser)


def _run(args: argparse.Namespace) -> None:
    of_trainers, of_folders = all((args.d, args.c, args.tr)), all((args.i, args.gt))
    if of_trainers == of_folders:
        raise InputError(
            "compare: either trainers or folders of predictions",
            "Give -d, -c and -tr, or -i and -gt. An example: nnunet-semcl compare -h",
        )
    options = comparison_options(args)
    from nnunet_semcl.commands.compare import compare_folders, compare_trainers

    if of_trainers:
        compare_trainers(args.d, args.c, args.tr, args.p, args.f, options)
    else:
        compare_folders(args.i, args.gt, args.images, options)


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Adds how to compare, which crossval asks for too."""
    parser.add_argument(
        "--group", metavar="PATTERN", help=r"cases with the same match count as one, such as 'patient\d+'"
    )
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="MM", help="of surface Dice, in mm (default: 2)"
    )
    parser.add_argument("-np", type=positive, metavar="N", help="number of processes that measure (default: nnU-Net's)")


def comparison_options(args: argparse.Namespace) -> Options:
    """What those arguments say.

    Raises:
        InputError: the tolerance is negative.
    """
    if args.tolerance < 0:
        raise InputError(f"--tolerance {args.tolerance:g}: a distance cannot be negative", "Give 0 or more, in mm.")
    from nnunetv2.configuration import default_num_processes

    from nnunet_semcl.evaluation.compare_cases import Options

    return Options(args.o, args.group, args.tolerance, args.np or default_num_processes)
