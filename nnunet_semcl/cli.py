"""The command nnunet-semcl. It imports torch and nnU-Net only when a sub-command needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_semcl.errors import InputError

MINUTES, CPUS = 24 * 60, 12  # of a job of Slurm; nnU-Net starts twelve workers where there are as many CPUs

if TYPE_CHECKING:
    from nnunet_semcl.evaluation.compare_cases import Options

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command and returns its exit code. An InputError returns 1 and prints its message to stderr.

    Raises:
        SystemExit: for -h and for arguments that argparse cannot parse.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        # before argparse: every argument of train and predict is nnU-Net's, -h too
        if argv[:1] == ["train"]:
            _train(argv[1:])
            return 0
        if argv[:1] == ["predict"]:
            _predict(argv[1:])
            return 0
        args = _parser().parse_args(argv)
        return args.run(args) or 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnunet-semcl",
        description="Contrastive pretraining inside nnU-Net v2.",
        epilog="Help and an example for one command: nnunet-semcl COMMAND -h",
    )
    versions = ", nnunetv2 ".join(version(package) for package in ("nnunet-semcl", "nnunetv2"))
    parser.add_argument("--version", action="version", version=f"nnunet-semcl {versions}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_path(commands)
    commands.add_parser("train", help="run nnUNetv2_train with the trainers of this package")
    commands.add_parser("predict", help="run nnUNetv2_predict with the trainers of this package")
    _add_plan(commands)
    _add_label_budget(commands)
    _add_convert(commands)
    _add_unlabelled(commands)
    _add_export(commands)
    _add_crossval(commands)
    _add_compare(commands)
    _add_doctor(commands)
    _add_demo(commands)
    return parser


def _add(
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


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")


def _add_plans(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help=f"identifier of the plans{purpose} (default: nnUNetPlans)"
    )


def _add_path(commands: Commands) -> None:
    _add(
        commands,
        "path",
        _path,
        "print the value for nnUNet_extTrainer",
        "Prints the value for nnUNet_extTrainer, which tells nnU-Net where this package's trainers are. Folders that "
        "the variable names already are kept.",
        'export nnUNet_extTrainer="$(nnunet-semcl path)"',
    )


def _path(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.path import print_path

    print_path()


def _train(arguments: list[str]) -> None:
    from nnunet_semcl.commands.train import train

    train(arguments)


def _predict(arguments: list[str]) -> None:
    from nnunet_semcl.commands.predict import predict

    predict(arguments)


def _add_plan(commands: Commands) -> None:
    parser = _add(
        commands,
        "plan",
        _plan,
        "write a preset's variant of nnU-Net's plans",
        "Applies a preset to nnU-Net's plans and saves the result as a new plans file next to them. Select it with "
        "nnUNetv2_train -p. Nothing has to be preprocessed again.",
        "nnunet-semcl plan -d 17 --preset tiny",
    )
    _add_dataset(parser)
    parser.add_argument("--preset", required=True, help="name of a preset (tiny, paper), or path of your own JSON file")
    _add_plans(parser, " to start from")


def _plan(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.plan import write_preset_plans

    write_preset_plans(args.d, args.preset, args.p)


def _add_label_budget(commands: Commands) -> None:
    parser = _add(
        commands,
        "label-budget",
        _label_budget,
        "add folds in which only some training cases keep their labels",
        "For each fold with all labels, appends a fold with few labels to splits_final.json: only some training cases "
        "keep their labels. Existing folds are not changed. If the file does not exist, nnU-Net's own split is "
        "created first.",
        "nnunet-semcl label-budget -d 27 --labelled 4 --group 'patient\\d+'",
    )
    _add_dataset(parser)
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


def _label_budget(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.label_budget import add_label_budget

    add_label_budget(args.d, args.labelled, args.seed, args.group)


def _add_convert(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="convert a public data set to nnU-Net's raw format",
        description="Converts a public data set to nnU-Net's raw format.",
        epilog="Example: nnunet-semcl convert btcv RawData -d 17",
    )
    parser = _add(
        convert.add_subparsers(metavar="SOURCE", required=True),
        "btcv",
        _convert_btcv,
        "abdominal CT of the challenge Beyond the Cranial Vault, 13 organs",
        "Checks the scans of the challenge Beyond the Cranial Vault (abdominal CT, 13 organs) and copies them to "
        "nnUNet_raw.",
        "nnunet-semcl convert btcv RawData -d 17",
    )
    parser.add_argument("rawdata", type=Path, metavar="RAWDATA", help="the challenge's folder RawData, unzipped")
    parser.add_argument("-d", required=True, type=int, metavar="ID", help="an unused id for the data set, e.g. 17")


def _convert_btcv(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.convert_btcv import convert_btcv

    convert_btcv(args.rawdata, args.d)


def _add_unlabelled(commands: Commands) -> None:
    parser = _add(
        commands,
        "unlabelled",
        _unlabelled,
        "preprocess images without labels for pretraining",
        "Preprocesses images without labels with the data set's own plans, into folders that nnU-Net never trains on. "
        "To continue after an interruption, run the command again: complete cases are not preprocessed twice. The "
        "exit code is 1 if an image cannot be used; the other images are preprocessed all the same.",
        "nnunet-semcl unlabelled -d 17 -i imagesUnlabelled",
    )
    _add_dataset(parser)
    parser.add_argument(
        "-i", required=True, type=Path, metavar="FOLDER", help="folder of images, named as in nnU-Net's imagesTr"
    )
    parser.add_argument(
        "-c", nargs="+", metavar="CONFIGURATION", help="configurations (default: all that are preprocessed)"
    )
    _add_plans(parser)
    parser.add_argument("-np", type=int, metavar="N", help="number of processes (default: nnU-Net's)")


def _unlabelled(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.unlabelled import preprocess_unlabelled

    left_out = preprocess_unlabelled(args.d, args.i, args.c, args.p, args.np)
    return 1 if left_out else 0


def _add_export(commands: Commands) -> None:
    parser = _add(
        commands,
        "export",
        _export,
        "export a trained model that predicts without this package",
        "Exports a trained model for stock nnU-Net: predict with nnUNetv2_predict_from_modelfolder. The export is "
        "verified: a process without this package must predict bit-identical logits.",
        "nnunet-semcl export -d 17 -c 3d_fullres -tr SemCLTrainer -o exported",
    )
    _add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration of the trained model")
    parser.add_argument("-tr", required=True, metavar="TRAINER", help="trainer of the trained model")
    _add_plans(parser)
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


def _export(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.export import export_model

    export_model(args.d, args.c, args.tr, args.p, args.f, args.chk, args.o, args.i)


def _add_compare(commands: Commands) -> None:
    parser = _add(
        commands,
        "compare",
        _compare,
        "compare trained models, or folders of predictions, case by case",
        "Compares what trainers predicted for the validation cases of their folds, or folders of predictions: Dice, "
        "surface Dice, HD95 and average surface distance of each class, paired by case, with intervals and tests. "
        "Prints a table and writes a folder with report.md, cases.csv and index.html.",
        "nnunet-semcl compare -d 17 -c 3d_fullres -tr nnUNetTrainer SemCLTrainer -o comparison",
    )
    parser.add_argument("-d", metavar="DATASET", help="name or id of the data set")
    parser.add_argument("-c", metavar="CONFIGURATION", help="configuration of the trained models")
    parser.add_argument("-tr", nargs="+", metavar="TRAINER", help="trainers; the others are compared with the first")
    _add_plans(parser)
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: those that all trainers have finished)")
    parser.add_argument(
        "-i", nargs="+", type=Path, metavar="FOLDER", help="in place of -d, -c and -tr: folders of nnUNetv2_predict"
    )
    parser.add_argument("-gt", type=Path, metavar="FOLDER", help="with -i: the true segmentations")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="with -i: the images, for pictures")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for the report")
    _add_comparison(parser)


def _compare(args: argparse.Namespace) -> None:
    of_trainers, of_folders = all((args.d, args.c, args.tr)), all((args.i, args.gt))
    if of_trainers == of_folders:
        raise InputError(
            "compare: either trainers or folders of predictions",
            "Give -d, -c and -tr, or -i and -gt. An example: nnunet-semcl compare -h",
        )
    options = _comparison_options(args)
    from nnunet_semcl.commands.compare import compare_folders, compare_trainers

    if of_trainers:
        compare_trainers(args.d, args.c, args.tr, args.p, args.f, options)
    else:
        compare_folders(args.i, args.gt, args.images, options)


def _add_crossval(commands: Commands) -> None:
    parser = _add(
        commands,
        "crossval",
        _crossval,
        "train all folds with several trainers, and compare them",
        "Trains each fold with each trainer, one training at a time on each GPU or as jobs of Slurm, and shows how far "
        "they are. Stopped and started again, it continues what was interrupted and trains no finished fold again. A "
        "training that dies stops no other. With two trainers and more it ends with nnunet-semcl compare.",
        "nnunet-semcl crossval -d 17 -c 3d_fullres -tr nnUNetTrainer SemCLTrainer -o comparison",
    )
    _add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration to train")
    parser.add_argument(
        "-tr", nargs="+", required=True, metavar="TRAINER", help="trainers; the others are compared with the first"
    )
    _add_plans(parser)
    parser.add_argument(
        "-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds (default: 0 1 2 3 4)"
    )
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="as nnU-Net's (default: cuda)")
    parser.add_argument(
        "--gpus", nargs="+", default=["0"], metavar="ID", help="GPUs, one training on each (default: 0)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="on another device: trainings side by side")
    parser.add_argument(
        "--launcher", default="local", choices=("local", "slurm"), help="slurm: a job for each training, with one GPU"
    )
    parser.add_argument("--partition", metavar="NAME", help="of Slurm (default: Slurm's)")
    parser.add_argument(
        "--time",
        type=int,
        metavar="MINUTES",
        help=f"of a job of Slurm; a training that takes longer goes on in the next one (default: {MINUTES})",
    )
    parser.add_argument("--cpus", type=int, metavar="N", help=f"of a job of Slurm (default: {CPUS})")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder for the report")
    _add_comparison(parser)


def _crossval(args: argparse.Namespace) -> int:
    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: at least one training has to run", "Give 1 or more.")
    for name in ("partition", "time", "cpus"):
        if args.launcher == "local" and getattr(args, name) is not None:
            raise InputError(f"--{name}: only jobs of Slurm have one", "Add --launcher slurm, or leave it out.")
    options = _comparison_options(args)
    from nnunet_semcl.commands.crossval import CrossValidation, run_crossval
    from nnunet_semcl.launchers.slurm import JobOptions

    on_gpu = args.device == "cuda"
    jobs = JobOptions(args.partition, args.time or MINUTES, int(on_gpu), args.cpus or CPUS)
    slots = args.gpus if on_gpu else [str(number) for number in range(args.jobs)]
    trainers, folds = list(dict.fromkeys(args.tr)), list(dict.fromkeys(args.f))
    cross = CrossValidation(
        args.d, args.c, args.p, trainers, folds, args.device, slots, jobs if args.launcher == "slurm" else None
    )
    return run_crossval(cross, options)


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--group", metavar="PATTERN", help=r"cases with the same match count as one, such as 'patient\d+'"
    )
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="MM", help="of surface Dice, in mm (default: 2)"
    )
    parser.add_argument("-np", type=int, metavar="N", help="number of processes that measure (default: nnU-Net's)")


def _comparison_options(args: argparse.Namespace) -> Options:
    if args.tolerance < 0:
        raise InputError(f"--tolerance {args.tolerance:g}: a distance cannot be negative", "Give 0 or more, in mm.")
    from nnunetv2.configuration import default_num_processes

    from nnunet_semcl.evaluation.compare_cases import Options

    return Options(args.o, args.group, args.tolerance, args.np or default_num_processes)


def _add_doctor(commands: Commands) -> None:
    parser = _add(
        commands,
        "doctor",
        _doctor,
        "check the installation and show how to fix it",
        "Checks Python, PyTorch, nnU-Net, its folders and the trainers of this package. Below each fault it prints "
        "the fix. The exit code is 1 if there is a fault.",
        "nnunet-semcl doctor -d 17",
    )
    parser.add_argument("-d", metavar="DATASET", help="also read every preprocessed case of this data set")


def _doctor(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.doctor import run_doctor

    return run_doctor(args.d)


def _add_demo(commands: Commands) -> None:
    parser = _add(
        commands,
        "demo",
        _demo,
        "run a short training from start to finish, on synthetic data",
        "Draws a small synthetic data set, trains nnU-Net with and without pretraining, and prints the Dice of both "
        "on held-out cases. It takes about five minutes on two CPU cores.",
        "nnunet-semcl demo -o my_demo",
    )
    parser.add_argument(
        "-o",
        type=Path,
        default=Path("nnunet_semcl_demo"),
        metavar="FOLDER",
        help="folder for all files of the demo (default: nnunet_semcl_demo)",
    )


def _demo(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.demo import run_demo

    run_demo(args.o)


if __name__ == "__main__":
    sys.exit(main())
