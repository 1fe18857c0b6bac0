"""Arguments of `nnunet-semcl label-budget`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "label-budget",
        _run,
        "add folds in which only some training cases keep their labels",
        "For each fold with all labels, appends a fold with few labels to splits_final.json: only some training cases "
        "keep their labels. Existing folds are not changed. If the file does not exist, nnU-Net's own split is "
        "created first.",
        "nnunet-semcl label-budget -d 27 --labelled 4 --group 'patient\\d+'",
    )
    add_dataset(parser)
    parser.add_argument(
        "--labelled",
        type=int,
        metavar="NUMBER",
        help="number of training cases that keep their labels (with --group: number of groups); without this option "
        "only the split is created",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: 0)")
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help=r"keep cases together if this pattern matches the same text in their names, e.g. 'patient\d+'",
    )


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.label_budget import add_label_budget

    add_label_budget(args.d, args.labelled, args.seed, args.group)
