"""Arguments of `nnunet-semcl convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semcl.arguments.command import Commands, add_command


def add(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert",
        help="convert a public data set to nnU-Net's raw format",
        description="Converts a public data set to nnU-Net's raw format.",
        epilog="Example: nnunet-semcl convert btcv RawData -d 17",
    )
    parser = add_command(
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
