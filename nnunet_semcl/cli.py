"""The command nnunet-semcl. Imports of torch and nnU-Net wait until a sub-command needs them."""

import argparse
import sys
from pathlib import Path

from nnunet_semcl.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command and returns its exit code; 1, with the message on stderr, for an InputError.

    Raises SystemExit for -h and for arguments that do not parse, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        # handed on before argparse looks at them: every argument, -h too, is nnU-Net's
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
    parser = argparse.ArgumentParser(prog="nnunet-semcl", description="Contrastive pretraining inside nnU-Net v2.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    path = commands.add_parser("path", help='the folder for: export nnUNet_extTrainer="$(nnunet-semcl path)"')
    path.set_defaults(run=_path)

    commands.add_parser("train", help="nnUNetv2_train, with the trainers of this package")
    commands.add_parser("predict", help="nnUNetv2_predict, with the trainers of this package")

    plan = commands.add_parser(
        "plan",
        help="a preset's variant of nnU-Net's plans, beside them",
        description="Writes a preset's variant of nnU-Net's plans beside them; nnUNetv2_train "
        "selects it with -p. Nothing is preprocessed again.",
    )
    plan.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")
    plan.add_argument("--preset", required=True, help="a preset's name (tiny), or a JSON file of your own")
    plan.add_argument(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="identifier of the plans to start from (default: nnUNetPlans)",
    )
    plan.set_defaults(run=_plan)

    budget = commands.add_parser(
        "label-budget",
        help="further folds in which only some training cases keep their labels",
        description="Appends to splits_final.json, for each fold with all its labels, one in which only some training "
        "cases keep theirs. What is in the file stays; without a file, nnU-Net's own split is made first.",
    )
    budget.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")
    budget.add_argument(
        "--labelled",
        type=int,
        metavar="NUMBER",
        help="how many training cases keep their labels (with --group: how many groups); without it only the split "
        "is made",
    )
    budget.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    budget.add_argument(
        "--group",
        metavar="REGEX",
        help=r"cases in whose names it finds the same text stay together, e.g. 'patient\d+'",
    )
    budget.set_defaults(run=_label_budget)

    convert = commands.add_parser("convert", help="a public data set, in nnU-Net's raw layout")
    sources = convert.add_subparsers(metavar="SOURCE", required=True)
    btcv = sources.add_parser("btcv", help="abdominal CT of the challenge Beyond the Cranial Vault, 13 organs")
    btcv.add_argument("rawdata", type=Path, metavar="RAWDATA", help="the challenge's folder RawData, unpacked")
    btcv.add_argument("-d", required=True, type=int, metavar="ID", help="a free id for the data set, e.g. 17")
    btcv.set_defaults(run=_convert_btcv)

    unlabelled = commands.add_parser(
        "unlabelled",
        help="preprocesses images without labels, for pretraining",
        description="Preprocesses images without labels by the data set's own plans, into folders that nnU-Net never "
        "trains on. Run again, it goes on where it was; a case that is complete stays as it is.",
    )
    unlabelled.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")
    unlabelled.add_argument(
        "-i", required=True, type=Path, metavar="FOLDER", help="the images, named as in nnU-Net's imagesTr"
    )
    unlabelled.add_argument(
        "-c", nargs="+", metavar="CONFIGURATION", help="configurations (default: all that are preprocessed)"
    )
    unlabelled.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="identifier of the plans (default: nnUNetPlans)"
    )
    unlabelled.add_argument("-np", type=int, metavar="N", help="processes at a time (default: nnU-Net's)")
    unlabelled.set_defaults(run=_unlabelled)

    export = commands.add_parser(
        "export",
        help="a trained model that predicts without this package",
        description="Writes a trained model as one of nnUNetTrainer's, for nnUNetv2_predict_from_modelfolder, and "
        "proves that a process without this package predicts the same logits with it, bit for bit.",
    )
    export.add_argument("-d", required=True, metavar="DATASET", help="name or id of the data set")
    export.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration that was trained")
    export.add_argument("-tr", required=True, metavar="TRAINER", help="trainer that it was trained by")
    export.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="identifier of the plans (default: nnUNetPlans)"
    )
    export.add_argument(
        "-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds (default: 0 1 2 3 4)"
    )
    export.add_argument(
        "-chk",
        default="checkpoint_final.pth",
        metavar="CHECKPOINT",
        help="name of the checkpoints (default: checkpoint_final.pth)",
    )
    export.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="the model's new folder")
    export.add_argument(
        "-i",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="one case to compare the logits of, a file for each channel; on the CPU (default: noise, one patch)",
    )
    export.set_defaults(run=_export)

    doctor = commands.add_parser("doctor", help="says what stands in the way of a training, and what mends it")
    doctor.set_defaults(run=_doctor)

    demo = commands.add_parser("demo", help="a small training from beginning to end, on data made for it")
    demo.add_argument(
        "-o",
        type=Path,
        default=Path("nnunet_semcl_demo"),
        metavar="FOLDER",
        help="where it is written (default: nnunet_semcl_demo)",
    )
    demo.set_defaults(run=_demo)
    return parser


def _path(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.path import print_path

    print_path()


def _train(arguments: list[str]) -> None:
    from nnunet_semcl.commands.train import train

    train(arguments)


def _predict(arguments: list[str]) -> None:
    from nnunet_semcl.commands.predict import predict

    predict(arguments)


def _plan(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.plan import write_preset_plans

    write_preset_plans(args.d, args.preset, args.p)


def _label_budget(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.label_budget import add_label_budget

    add_label_budget(args.d, args.labelled, args.seed, args.group)


def _convert_btcv(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.convert_btcv import convert_btcv

    convert_btcv(args.rawdata, args.d)


def _unlabelled(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.unlabelled import preprocess_unlabelled

    left_out = preprocess_unlabelled(args.d, args.i, args.c, args.p, args.np)
    return 1 if left_out else 0


def _export(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.export import export_model

    export_model(args.d, args.c, args.tr, args.p, args.f, args.chk, args.o, args.i)


def _doctor(args: argparse.Namespace) -> int:
    from nnunet_semcl.commands.doctor import run_doctor

    return run_doctor()


def _demo(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.demo import run_demo

    run_demo(args.o)


if __name__ == "__main__":
    sys.exit(main())
