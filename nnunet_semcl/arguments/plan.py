"""Arguments of `nnunet-semcl plan`."""

from __future__ import annotations

import argparse

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset, add_plans


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "plan",
        _run,
        "write a preset's variant of nnU-Net's plans",
        "Applies a preset to nnU-Net's plans and saves the result as a new plans file next to them. Select it with "
        "nnUNetv2_train -p. Nothing has to be preprocessed again.",
        "nnunet-semcl plan -d 17 --preset tiny",
    )
    add_dataset(parser)
    parser.add_argument("--preset", required=True, help="name of a preset (tiny, paper), or path of your own JSON file")
    add_plans(parser, " to start from")


def _run(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.plan import write_preset_plans

    write_preset_plans(args.d, args.preset, args.p)
