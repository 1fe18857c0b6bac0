"""Arguments of `nnunet-semcl next`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command, add_trained_fold, positive


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "next",
        _run,
        "which case to label next: unsure, and like many that are not labelled",
        "Ranks the unlabelled cases of a trained fold: those first of which the network is unsure and which are "
        "like many others that neither a labelled case nor one ranked before them is like. Writes a folder with "
        "next.csv and a picture of each of the first cases.",
        "nnunet-semcl next -d 17 -c 3d_fullres -f 0 -tr SemCLTrainer -n 10 -o label_these",
    )
    add_trained_fold(parser)
    parser.add_argument("-n", type=positive, default=10, metavar="N", help="cases to draw (default: 10)")
    parser.add_argument(
        "-chk",
        default="checkpoint_final.pth",
        metavar="CHECKPOINT",
        help="file name of the checkpoint (default: checkpoint_final.pth)",
    )


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.next_case import rank_next_cases

    rank_next_cases(args.d, args.c, args.tr, args.p, args.f, args.chk, args.device, args.n, args.o)
