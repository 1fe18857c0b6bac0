"""Arguments of `nnunet-semcl pretrain`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset, add_plans


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "pretrain",
        _run,
        "run a trainer's pretraining alone",
        "Runs the pretraining of a trainer, not nnU-Net's training after it. checkpoint_pretrained.pth is then in the "
        "fold's folder. nnUNetv2_train with --c goes on from it; other data sets name it in the setting start_from. "
        "IDEALTrainer needs no label.",
        "nnunet-semcl pretrain -d 17 -c 3d_fullres -f all -tr IDEALTrainer",
    )
    add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration to pretrain")
    parser.add_argument("-f", default="all", metavar="FOLD", help="fold whose training cases take part (default: all)")
    parser.add_argument(
        "-tr", default="SemCLTrainer", metavar="TRAINER", help="trainer with a pretraining (default: SemCLTrainer)"
    )
    add_plans(parser)
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="as nnU-Net's (default: cuda)")
    parser.add_argument("--c", dest="resume", action="store_true", help="continue an interrupted pretraining")


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.pretrain import pretrain

    pretrain(args.d, args.c, args.f, args.tr, args.p, args.device, args.resume)
