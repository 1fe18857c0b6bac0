"""Arguments of `nnunet-semcl export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset, add_plans


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        _run,
        "export a trained model that predicts without this package",
        "Exports a trained model for stock nnU-Net: predict with nnUNetv2_predict_from_modelfolder. The export is "
        "verified: a process without this package must predict bit-identical logits.",
        "nnunet-semcl export -d 17 -c 3d_fullres -tr SemCLTrainer -o exported",
    )
    add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration of the trained model")
    parser.add_argument("-tr", required=True, metavar="TRAINER", help="trainer of the trained model")
    add_plans(parser)
    parser.add_argument(
        "-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds (default: 0 1 2 3 4)"
    )
    parser.add_argument(
        "-chk",
        default="checkpoint_final.pth",
        metavar="CHECKPOINT",
        help="file name of the checkpoints (default: checkpoint_final.pth)",
    )
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for the exported model")
    parser.add_argument(
        "-i",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="one case to compare the logits on, one file per channel; predicted on the CPU (default: one patch of "
        "noise)",
    )


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.export import export_model

    export_model(args.d, args.c, args.tr, args.p, args.f, args.chk, args.o, args.i)
