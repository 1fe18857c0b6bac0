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
    sources = convert.add_subparsers(metavar="SOURCE", required=True)
    btcv = add_command(
        sources,
        "btcv",
        _convert_btcv,
        "abdominal CT of the challenge Beyond the Cranial Vault, 13 organs",
        "Checks the scans of the challenge Beyond the Cranial Vault (abdominal CT, 13 organs) and copies them to "
        "nnUNet_raw.",
        "nnunet-semcl convert btcv RawData -d 17",
    )
    btcv.add_argument("folder", type=Path, metavar="RAWDATA", help="the challenge's folder RawData, unzipped")
    voc = add_command(
        sources,
        "voc",
        _convert_voc,
        "natural images of PASCAL VOC 2012, 20 classes, and its pictures without labels",
        "Checks the pictures of PASCAL VOC 2012 and writes them to nnUNet_raw: those with a segmentation (20 classes; "
        "void is ignored) to imagesTr, in the published fold, and the others to imagesUnlabelled.",
        "nnunet-semcl convert voc VOC2012 -d 40",
    )
    voc.add_argument("folder", type=Path, metavar="VOC2012", help="VOC's folder VOC2012, unpacked")
    camvid = add_command(
        sources,
        "camvid",
        _convert_camvid,
        "road scenes of CamVid in SegNet's copy, 11 classes",
        "Checks the pictures of CamVid, as SegNet's authors share them (11 classes; void is ignored), and writes them "
        "to nnUNet_raw, in the published fold.",
        "nnunet-semcl convert camvid CamVid -d 27",
    )
    camvid.add_argument("folder", type=Path, metavar="CAMVID", help="the folder with train, trainannot, val, ...")
    for parser in (btcv, voc, camvid):
        parser.add_argument("-d", required=True, type=int, metavar="ID", help="an unused id for the data set, e.g. 17")


def _convert_btcv(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.convert_btcv import convert_btcv

    convert_btcv(args.folder, args.d)


def _convert_voc(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.convert_voc import convert_voc

    convert_voc(args.folder, args.d)


def _convert_camvid(args: argparse.Namespace) -> None:
    from nnunet_semcl.commands.convert_camvid import convert_camvid

    convert_camvid(args.folder, args.d)
