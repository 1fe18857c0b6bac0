"""The converter of CamVid: SegNet's folder is converted completely or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from natural_images import write_camvid
from PIL import Image

from nnunet_semcl.cli import main
from nnunet_semcl.commands.convert_camvid import convert_camvid
from nnunet_semcl.errors import InputError

LABELS = ["background", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian"]


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "SegNet" / "CamVid")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_dataset_json_folds_and_what_comes_next(camvid: Path, raw: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["convert", "camvid", str(camvid.parent), "-d", "27"]) == 0
    folder = raw / "Dataset027_CamVid"
    assert os.listdir(raw) == [folder.name]
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {name: value for value, name in enumerate((*LABELS, "bicyclist", "ignore"))}
    names = [f"0001TP_{number:06d}" for number in range(6)]
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": names[:3], "val": names[3:5]}]
    assert (
        "3 pictures are for training and 2 for validation, as published; 1 are in imagesTs" in capsys.readouterr().out
    )


def test_the_pixels_are_unchanged(camvid: Path) -> None:
    folder = convert_camvid(camvid, 27)
    for side, end in (("train", "Tr"), ("val", "Tr"), ("test", "Ts")):
        for file in (camvid / side).iterdir():
            image = pixels(folder / f"images{end}" / f"{file.stem}_0000.png")
            assert np.array_equal(image, pixels(file))
            labels = pixels(folder / f"labels{end}" / file.name)
            assert np.array_equal(labels, pixels(camvid / f"{side}annot" / file.name))
            assert {0, 1, 8, 11} == {*np.unique(labels).tolist()}


def refused(camvid: Path, raw: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert_camvid(camvid, 27)
    assert not os.listdir(raw)


def test_what_does_not_belong_together(camvid: Path, raw: Path) -> None:
    label = camvid / "valannot" / "0001TP_000004.png"
    values = pixels(label).copy()
    Image.fromarray(values[:-1]).save(label)
    refused(camvid, raw, r"0001TP_000004.png: its size is 48 x 35, but that of .* is 48 x 36")
    values[0, 0] = 12
    Image.fromarray(values).save(label)
    refused(camvid, raw, r"0001TP_000004.png: the values \[12\] are neither 0 to 10 nor 11 for void")
    label.unlink()
    refused(camvid, raw, "valannot lacks 0001TP_000004.png. Clone")
    (camvid / "val" / "0001TP_000004.png").rename(camvid / "train" / "0001TP_000003.png")
    refused(camvid, raw, "trainannot lacks 0001TP_000003.png")
    Image.fromarray(values).save(camvid / "trainannot" / "0001TP_000003.png")
    refused(camvid, raw, "0001TP_000003.png is in train and in val")


def test_another_folder(camvid: Path, raw: Path) -> None:
    refused(camvid / "train", raw, "train/CamVid/train does not exist. Give the path of SegNet's folder CamVid")
    for file in (camvid / "val").iterdir():
        file.unlink()
    refused(camvid, raw, r"val has no \*\.png")
