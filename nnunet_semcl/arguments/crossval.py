"""Arguments of `nnunet-semcl crossval`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semcl.arguments.command import Commands, add_command, add_dataset, add_plans, positive
from nnunet_semcl.arguments.compare import add_comparison, comparison_options
from nnunet_semcl.errors import InputError


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "crossval",
        _run,
        "train all folds with several trainers, and compare them",
        "Trains each fold with each trainer, one training at a time on each GPU or as jobs of Slurm, and shows how far "
        "they are. Stopped and started again, it continues what was interrupted and trains no finished fold again. A "
        "training that dies stops no other. With two trainers and more it ends with nnunet-semcl compare.",
        "nnunet-semcl crossval -d 17 -c 3d_fullres -tr nnUNetTrainer SemCLTrainer -o comparison",
    )
    add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration to train")
    parser.add_argument(
        "-tr", nargs="+", required=True, metavar="TRAINER", help="trainers; the others are compared with the first"
    )
    add_plans(parser)
    parser.add_argument(
        "-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds (default: 0 1 2 3 4)"
    )
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="as nnU-Net's (default: cuda)")
    parser.add_argument("--gpus", nargs="+", metavar="ID", help="GPUs, one training on each (default: 0)")
    parser.add_argument("--jobs", type=positive, metavar="N", help="without GPU: trainings side by side (default: 1)")
    parser.add_argument(
        "--launcher", default="local", choices=("local", "slurm"), help="slurm: a job for each training, with one GPU"
    )
    parser.add_argument("--partition", metavar="NAME", help="of Slurm (default: Slurm's)")
    parser.add_argument(
        "--time",
        type=positive,
        metavar="MINUTES",
        help="of a job of Slurm; a training that takes longer goes on in the next one (default: 1440)",
    )
    parser.add_argument("--cpus", type=positive, metavar="N", help="of a job of Slurm (default: 12)")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for the report")
    add_comparison(parser)


def _run(args: argparse.Namespace) -> int:
    _refuse_what_has_no_effect(args)
    options = comparison_options(args)
    from nnunet_semcl.commands.crossval import CrossValidation, run_crossval
    from nnunet_semcl.launchers.slurm import JobOptions

    slots = args.gpus or ["0"] if args.device == "cuda" else [str(number) for number in range(args.jobs or 1)]
    jobs = None
    if args.launcher == "slurm":
        asked = {"partition": args.partition, "minutes": args.time, "cpus": args.cpus}
        jobs = JobOptions(int(args.device == "cuda"), **{key: value for key, value in asked.items() if value})
    trainers, folds = list(dict.fromkeys(args.tr)), list(dict.fromkeys(args.f))
    return run_crossval(CrossValidation(args.d, args.c, args.p, trainers, folds, args.device, slots, jobs), options)


def _refuse_what_has_no_effect(args: argparse.Namespace) -> None:
    """Refuses arguments that the chosen device or launcher does not heed.

    Raises:
        InputError: there is one.
    """
    on_slurm = args.launcher == "slurm"
    rules = [
        ("partition", on_slurm, "only jobs of Slurm have one", "Add --launcher slurm"),
        ("time", on_slurm, "only jobs of Slurm have one", "Add --launcher slurm"),
        ("cpus", on_slurm, "only jobs of Slurm have them", "Add --launcher slurm"),
        ("gpus", not on_slurm, "Slurm chooses the GPUs of its jobs", "Name a --partition"),
        ("jobs", not on_slurm, "Slurm runs as many jobs as it has room for", "Name a --partition"),
        ("gpus", args.device == "cuda", f"-device {args.device} uses none", "Add -device cuda"),
        ("jobs", args.device != "cuda", "each GPU runs one training", "Name GPUs with --gpus"),
    ]
    for name, heeded, reason, fix in rules:
        if getattr(args, name) is not None and not heeded:
            raise InputError(f"--{name}: {reason}", f"{fix}, or leave it out.")
