"""Arguments of `nnunet-semcl embed`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command, add_trained_fold


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "embed",
        _run,
        "look inside: features of objects and voxels before and after pretraining",
        "Embeds objects and voxels of a fold's held-out cases by the features that the contrast reads: in the network "
        "as it was initialised, after pretraining, and after training. Prints how well the classes can be told apart, "
        "and writes a folder with embed.png, embeddings.npz and scores.csv.",
        "nnunet-semcl embed -d 17 -c 3d_fullres -f 0 -tr SemCLTrainer -o look_inside",
    )
    add_trained_fold(parser)


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.embed import embed

    embed(args.d, args.c, args.tr, args.p, args.f, args.device, args.o)
