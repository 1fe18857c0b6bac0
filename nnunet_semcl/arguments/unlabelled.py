"""Arguments of `nnunet-semcl unlabelled`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset, add_plans, positive


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "unlabelled",
        _run,
        "preprocess images without labels for pretraining",
        "Preprocesses images without labels with the data set's own plans, into folders that nnU-Net never trains on. "
        "To continue after an interruption, run the command again: complete cases are not preprocessed twice. The "
        "exit code is 1 if an image cannot be used; the other images are preprocessed all the same.",
        "nnunet-semcl unlabelled -d 17 -i imagesUnlabelled",
    )
    add_dataset(parser)
    parser.add_argument(
        "-i", required=True, type=Path, metavar="FOLDER", help="folder of images, named as in nnU-Net's imagesTr"
    )
    parser.add_argument(
        "-c", nargs="+", metavar="CONFIGURATION", help="configurations (default: all that are preprocessed)"
    )
    add_plans(parser)
    parser.add_argument(
        "--like",
        metavar="DATASET",
        help="for a data set without any label: the one whose plans it takes; -d is then a new name, Dataset018_Scans",
    )
    parser.add_argument("-np", type=positive, metavar="N", help="number of processes (default: nnU-Net's)")


def _run(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.unlabelled import preprocess_unlabelled

    left_out = preprocess_unlabelled(args.d, args.i, args.c, args.p, args.np, args.like)
    return 1 if left_out else 0
