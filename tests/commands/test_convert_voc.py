"""The converter of VOC 2012: a small copy of the published folder is converted completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from natural_images import VOC_TRAIN, VOC_UNLABELLED, VOC_VAL, save_voc_labels, scene, write_voc
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

from nnunet_semcl.cli import main
from nnunet_semcl.commands.convert_voc import CLASSES, colour_map, convert_voc
from nnunet_semcl.errors import InputError

PUBLISHED = {  # of the development kit's documentation
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "boat": (0, 0, 128),
    "car": (128, 128, 128),
    "cat": (64, 0, 0),
    "diningtable": (192, 128, 0),
    "person": (192, 128, 128),
    "pottedplant": (0, 64, 0),
    "tvmonitor": (0, 64, 128),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    return write_voc(tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012")


@pytest.fixture
def voc(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(original, tmp_path / "VOC2012")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def segmentation_of(voc: Path, case: str) -> Path:
    return voc / "SegmentationClass" / f"{case}.png"


# what is written


def test_the_colour_map_is_vocs() -> None:
    colours = colour_map()
    assert colours.shape == (256, 3)
    assert len(np.unique(colours, axis=0)) == 256
    for name, colour in PUBLISHED.items():
        assert tuple(colours[CLASSES.index(name)]) == colour
    assert tuple(colours[255]) == (224, 224, 192)
    assert len(CLASSES) == 21


def test_dataset_json_folds_and_what_comes_next(original: Path, raw: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["convert", "voc", str(original), "-d", "40"]) == 0
    folder = raw / "Dataset040_VOC2012"
    assert os.listdir(raw) == [folder.name]
    printed = capsys.readouterr().out
    assert "6 labelled and 2 unlabelled pictures; in fold 0 4 are for training and 2 for validation" in printed
    assert "Next: nnUNetv2_plan_and_preprocess -d 40 -c 2d\n" in printed
    assert f"Then: nnunet-semcl unlabelled -d 40 -i {folder / 'imagesUnlabelled'}\n" in printed
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {name: value for value, name in enumerate((*CLASSES, "ignore"))}
    assert described["labels"]["ignore"] == 21
    assert described["numTraining"] == 6
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": VOC_TRAIN, "val": VOC_VAL}]


def test_pictures_and_labels_are_those_of_voc(original: Path, raw: Path) -> None:
    folder = convert_voc(original.parent, 40)
    cases = (*VOC_TRAIN, *VOC_VAL)
    assert {file.name for file in (folder / "labelsTr").iterdir()} == {f"{case}.png" for case in cases}
    assert {file.name for file in (folder / "imagesUnlabelled").iterdir()} == {f"{c}_0000.png" for c in VOC_UNLABELLED}
    assert not (folder / "labelsUnlabelled").exists()
    reader = NaturalImage2DIO()
    for number, case in enumerate(cases):
        with Image.open(original / "JPEGImages" / f"{case}.jpg") as picture:
            decoded = np.asarray(picture)
        image, _ = reader.read_images([str(folder / "imagesTr" / f"{case}_0000.png")])
        assert np.array_equal(image[:, 0], decoded.transpose(2, 0, 1))
        _, expected = scene(number, decoded.shape[:2])
        labels, _ = reader.read_seg(str(folder / "labelsTr" / f"{case}.png"))
        assert np.array_equal(labels[0, 0], np.where(expected == 255, 21, expected))


def test_without_further_pictures_nothing_is_said_of_them(voc: Path, raw: Path, capsys: pytest.CaptureFixture) -> None:
    for case in VOC_UNLABELLED:
        (voc / "JPEGImages" / f"{case}.jpg").unlink()
    (voc / "JPEGImages" / "._2007_000000.jpg").write_bytes(b"of macOS")
    folder = convert_voc(voc, 40)
    assert not (folder / "imagesUnlabelled").exists()
    assert "Then:" not in capsys.readouterr().out


# errors of a user


def refused(voc: Path, raw: Path, message: str) -> None:
    before = sorted(os.listdir(raw))
    with pytest.raises(InputError, match=message) as error:
        convert_voc(voc, 40)
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(raw)) == before


def test_another_palette(voc: Path, raw: Path) -> None:
    file = segmentation_of(voc, VOC_VAL[1])
    _, values = scene(5, (64, 88))
    save_voc_labels(values, file, colour_map()[::-1].copy())
    refused(
        voc, raw, rf"{file.name}: the colour of the value 0 is \(224, 224, 192\), but the data set's is \(0, 0, 0\)"
    )
    colours = colour_map()
    colours[15] = colours[16]
    save_voc_labels(values, file, colours)
    refused(voc, raw, r"the colour of the value 15 is \(0, 64, 0\), but the data set's is \(192, 128, 128\)")
    Image.fromarray(values).save(file)  # grey, as SegmentationClassAug
    refused(voc, raw, r"the colour of the value 0 is in no palette.*Give the data set's own segmentations")
    Image.fromarray(values).convert("RGB").save(file)
    refused(voc, raw, f"{file.name}: it is a picture of mode RGB, not of 8 bit labels")


def test_values_that_are_no_class(voc: Path, raw: Path) -> None:
    _, values = scene(0, (64, 80))
    values[3, 4] = 21
    save_voc_labels(values, segmentation_of(voc, VOC_TRAIN[0]))
    refused(voc, raw, rf"{VOC_TRAIN[0]}.png: the values \[21\] are neither 0 to 20 nor 255 for void")


def test_an_image_and_a_segmentation_of_other_sizes(voc: Path, raw: Path) -> None:
    save_voc_labels(scene(0, (64, 79))[1], segmentation_of(voc, VOC_TRAIN[0]))
    refused(voc, raw, rf"{VOC_TRAIN[0]}.png: its size is 79 x 64, but that of .*{VOC_TRAIN[0]}.jpg is 80 x 64")


@pytest.mark.parametrize("name", ["JPEGImages/2008_000001.jpg", "SegmentationClass/2008_000001.png"])
def test_files_that_a_list_names_but_that_do_not_exist(voc: Path, raw: Path, name: str) -> None:
    (voc / name).unlink()
    refused(voc, raw, f"val.txt names 2008_000001, but .*{name} does not exist. Unpack")


def test_lists_that_say_nothing_or_too_much(voc: Path, raw: Path) -> None:
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("".join(f"{case}\n" for case in VOC_VAL[:1]))
    refused(voc, raw, rf"{VOC_VAL[1]}.png: neither train.txt nor val.txt names it \(1 segmentations\)")
    (lists / "val.txt").write_text("\n".join((*VOC_VAL, VOC_TRAIN[2])))
    refused(voc, raw, f"train.txt and val.txt both name {VOC_TRAIN[2]}")
    (lists / "val.txt").write_text("\n")
    refused(voc, raw, "val.txt names no picture")
    (lists / "val.txt").unlink()
    refused(voc, raw, "cannot read .*val.txt: No such file")


@pytest.mark.parametrize(
    "name", ["JPEGImages/2007_000001.jpg", "JPEGImages/2009_000001.jpg", "SegmentationClass/2008_000000.png"]
)
def test_unreadable_files(voc: Path, raw: Path, name: str) -> None:
    file = voc / name
    packed = file.read_bytes()
    file.write_bytes(b"an error page instead of a download")
    refused(voc, raw, f"{name}: cannot be read as a picture")
    file.write_bytes(packed[: len(packed) // 2])  # an interrupted download
    refused(voc, raw, f"{name}: cannot be read as a picture")


def test_another_folder_and_an_id_in_use(original: Path, raw: Path) -> None:
    refused(original / "JPEGImages", raw, "there are no folders JPEGImages and SegmentationClass in it")
    (raw / "Dataset040_Heart").mkdir()
    refused(original, raw, r"Dataset040_Heart: a data set with the id 40 exists already. Choose another id with -d")


def test_a_full_disk_leaves_nothing(original: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(image: Image.Image, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    refused(original, raw, re.escape(f"cannot write {raw / 'Dataset040_VOC2012'}: No space left on device"))
