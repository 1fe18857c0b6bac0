"""The command nnunet-semcl. It imports torch and nnU-Net only when a sub-command needs them."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

from nnunet_semcl.arguments import (
    compare,
    convert,
    crossval,
    demo,
    doctor,
    embed,
    export,
    label_budget,
    next_case,
    path,
    plan,
    pretrain,
    unlabelled,
)
from nnunet_semcl.errors import InputError

# In the order in which --help lists them.
COMMANDS = (
    plan,
    label_budget,
    convert,
    unlabelled,
    pretrain,
    export,
    crossval,
    compare,
    embed,
    next_case,
    doctor,
    demo,
)


def main(argv: list[str] | None = None) -> int:
    """Runs one sub-command and returns its exit code. An InputError returns 1 and prints its message to stderr.

    Raises:
        SystemExit: for -h and for arguments that argparse cannot parse.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        # before argparse: every argument of train and predict is nnU-Net's, -h too
        if argv[:1] == ["train"]:
            from nnunet_semcl.commands.train import train

            train(argv[1:])
            return 0
        if argv[:1] == ["predict"]:
            from nnunet_semcl.commands.predict import predict

            predict(argv[1:])
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
    path.add(commands)
    commands.add_parser("train", help="run nnUNetv2_train with the trainers of this package")
    commands.add_parser("predict", help="run nnUNetv2_predict with the trainers of this package")
    for command in (
        plan,
        label_budget,
        convert,
        unlabelled,
        pretrain,
        export,
        crossval,
        compare,
        embed,
        next_case,
        doctor,
        demo,
    ):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
