"""The converter of BTCV: a small copy of the challenge's folder is converted completely or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_semcl import plans  # type: ignore[attr-defined]  # setup.cfg maps plans/ to this name
from nnunet_semcl.cli import main
from nnunet_semcl.commands.convert_btcv import CASES, LABELS, TESTING, TRAINING, convert_btcv
from nnunet_semcl.errors import InputError

SHAPE = (4, 6, 6)  # (Z, Y, X)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RawData with 30 labelled and 2 unlabelled scans, all different. Tests must not change it."""
    root = tmp_path_factory.mktemp("btcv") / "RawData"
    for folder in ("Training/img", "Training/label", "Testing/img"):
        (root / folder).mkdir(parents=True)
    for number in TRAINING:
        rng = np.random.default_rng(number)
        save(rng.integers(-1000, 1000, SHAPE, np.int16), image_of(root, number))
        save(rng.integers(0, 14, SHAPE, np.uint8), label_of(root, number))
    for number in TESTING[:2]:
        save(np.random.default_rng(number).normal(size=SHAPE), root / "Testing" / "img" / f"img{number:04d}.nii.gz")
    return root


@pytest.fixture
def rawdata(original: Path, tmp_path: Path) -> Path:
    """A copy of RawData that a test may change."""
    return shutil.copytree(original, tmp_path / "RawData")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder


def image_of(root: Path, number: int) -> Path:
    return root / "Training" / "img" / f"img{number:04d}.nii.gz"


def label_of(root: Path, number: int) -> Path:
    return root / "Training" / "label" / f"label{number:04d}.nii.gz"


def save(voxels: np.ndarray, file: Path, origin: tuple[float, ...] = (-120.0, -80.0, 30.0)) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.75, 0.75, 3.0))
    image.SetOrigin(origin)
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(file))


def voxels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


# what is written


def test_nnunet_accepts_the_data_set(original: Path, raw: Path) -> None:
    folder = convert_btcv(original, 17)
    assert folder == raw / "Dataset017_BTCV"
    verify_dataset_integrity(str(folder), num_processes=1)
    assert os.listdir(raw) == [folder.name]


def test_files_are_unchanged_under_nnunets_names(original: Path) -> None:
    folder = convert_btcv(original, 17)
    expected = {f"labelsTr/{CASES[number]}.nii.gz": label_of(original, number) for number in TRAINING}
    expected |= {f"imagesTr/{CASES[number]}_0000.nii.gz": image_of(original, number) for number in TRAINING}
    expected |= {f"imagesTs/{CASES[n]}_0000.nii.gz": original / f"Testing/img/img{n:04d}.nii.gz" for n in (61, 62)}
    assert len(expected) == 62
    assert {str(file.relative_to(folder)) for file in folder.rglob("*.nii.gz")} == {*expected}
    for name, source in expected.items():
        assert (folder / name).read_bytes() == source.read_bytes()


def test_dataset_json(original: Path) -> None:
    described = json.loads((convert_btcv(original, 17) / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "CT"}  # nnU-Net chooses the normalisation by this name
    assert described["numTraining"] == 30
    assert described["file_ending"] == ".nii.gz"
    assert described["labels"] == LABELS
    assert [*LABELS.values()] == [*range(14)]
    assert described["labels"]["pancreas"] == 11
    assert described["labels"]["left adrenal gland"] == 13


def test_published_folds_are_nnunets_split() -> None:
    published = json.loads((Path(plans.__file__).parent / "btcv" / "splits_final.json").read_text())
    assert published == generate_crossval_split(sorted(CASES[number] for number in TRAINING))
    assert [len(fold["val"]) for fold in published] == [6] * 5


def test_command_accepts_the_parent_folder(original: Path, raw: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["convert", "btcv", str(original.parent), "-d", "3"]) == 0
    assert (raw / "Dataset003_BTCV" / "dataset.json").is_file()
    out = capsys.readouterr().out
    assert "30 labelled and 2 unlabelled cases" in out
    assert "nnUNetv2_plan_and_preprocess -d 3" in out


def test_testing_is_optional_and_hidden_files_are_ignored(rawdata: Path) -> None:
    shutil.rmtree(rawdata / "Testing")
    image_of(rawdata, 1).with_name("._img0001.nii.gz").write_bytes(b"Mac OS X")
    image_of(rawdata, 1).with_name(".DS_Store").touch()
    folder = convert_btcv(rawdata, 17)
    assert sorted(os.listdir(folder)) == ["dataset.json", "imagesTr", "labelsTr"]
    assert len(os.listdir(folder / "imagesTr")) == len(os.listdir(folder / "labelsTr")) == 30


def test_labels_may_be_floats_and_headers_may_differ_by_rounding(rawdata: Path) -> None:
    save(voxels(label_of(rawdata, 7)).astype(np.float64), label_of(rawdata, 7), origin=(-120.0001, -80.0, 30.0))
    assert voxels(label_of(rawdata, 7)).dtype == np.float64
    convert_btcv(rawdata, 17)


# errors of a user


def refused(rawdata: Path, raw: Path, message: str, dataset_id: int = 17) -> None:
    before = sorted(os.listdir(raw))
    with pytest.raises(InputError, match=message):
        convert_btcv(rawdata, dataset_id)
    assert sorted(os.listdir(raw)) == before


def test_missing_scans_are_named(rawdata: Path, raw: Path) -> None:
    label_of(rawdata, 3).unlink()
    label_of(rawdata, 40).unlink()
    message = r"Training/label lacks label0003.nii.gz, label0040.nii.gz \(the challenge has 30 files there: .*\. Unzip"
    refused(rawdata, raw, message)
    image_of(rawdata, 22).unlink()
    refused(rawdata, raw, r"Training/img lacks img0022.nii.gz \(the challenge has 30 files there: img0001.nii.gz to ")


@pytest.mark.parametrize(
    "name", ["Training/img/img0011.nii.gz", "Training/label/label0061.nii.gz", "Testing/img/img0001.nii.gz"]
)
def test_unknown_scans_are_rejected(rawdata: Path, raw: Path, name: str) -> None:
    shutil.copy(image_of(rawdata, 1), rawdata / name)
    refused(rawdata, raw, f"{name}: the challenge has no such scan in this folder. Move the file away")


def test_image_and_label_of_different_geometry_are_rejected(rawdata: Path, raw: Path) -> None:
    label, labels = label_of(rawdata, 5), voxels(label_of(rawdata, 5))
    save(labels[:-1], label)
    refused(rawdata, raw, r"label0005.nii.gz: its size is \(6, 6, 3\), but that of .*img0005.nii.gz is \(6, 6, 4\)")
    save(labels, label, origin=(-120.0, -80.0, 33.0))
    refused(rawdata, raw, r"label0005.nii.gz: its origin is \(-120.0, -80.0, 33.0\), but that of .*img0005")
    image = sitk.ReadImage(str(image_of(rawdata, 5)))
    moved = sitk.GetImageFromArray(labels)
    moved.CopyInformation(image)
    moved.SetSpacing((0.75, 0.75, 3.01))
    sitk.WriteImage(moved, str(label))
    refused(rawdata, raw, r"label0005.nii.gz: its spacing is \(0.75, 0.75, 3.0")
    moved.CopyInformation(image)
    moved.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(moved, str(label))
    refused(rawdata, raw, "label0005.nii.gz: its direction is ")


def test_four_dimensions_are_rejected(rawdata: Path, raw: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, *SHAPE), np.int16), isVector=False), image_of(rawdata, 8))
    refused(rawdata, raw, "img0008.nii.gz: the scan has 4 dimensions, not 3")


@pytest.mark.parametrize(("value", "shown"), [(14, "14.0"), (-1, "-1.0"), (2.5, "2.5"), (np.nan, "nan")])
def test_invalid_labels_are_rejected(rawdata: Path, raw: Path, value: float, shown: str) -> None:
    labels = voxels(label_of(rawdata, 40)).astype(np.float32)
    labels[0, 0, 0] = value
    save(labels, label_of(rawdata, 40))
    refused(rawdata, raw, rf"label0040.nii.gz: the labels \[{shown}\] are not in 0 to 13")


@pytest.mark.parametrize("name", ["Training/img/img0040.nii.gz", "Testing/img/img0062.nii.gz"])
def test_images_that_are_not_finite_are_rejected(rawdata: Path, raw: Path, name: str) -> None:
    image = voxels(rawdata / name).astype(np.float32)
    image[1, 2, 3], image[3, 2, 1] = np.nan, np.inf
    save(image, rawdata / name)
    refused(rawdata, raw, f"{name}: 2 voxels are NaN or infinite")


@pytest.mark.parametrize(
    "name", ["Training/img/img0004.nii.gz", "Training/label/label0021.nii.gz", "Testing/img/img0061.nii.gz"]
)
def test_unreadable_files_are_rejected(rawdata: Path, raw: Path, name: str) -> None:
    file = rawdata / name
    packed = file.read_bytes()
    file.write_bytes(b"an error page instead of a download")
    refused(rawdata, raw, f"{name}: cannot be read as a NIfTI image")
    file.write_bytes(packed[: len(packed) * 3 // 4])  # an interrupted download
    refused(rawdata, raw, f"{name}: cannot be read as a NIfTI image")
    file.write_bytes(gzip.compress(gzip.decompress(packed)[:-60]))
    refused(rawdata, raw, f"{name}: cannot be read as a NIfTI image")


def test_another_folder_is_rejected(rawdata: Path, raw: Path) -> None:
    refused(
        rawdata / "Training", raw, "Training: there is no folder Training in it, and no RawData/Training. Give the path"
    )
    refused(rawdata / "nowhere", raw, "nowhere: there is no folder Training in it")


@pytest.mark.parametrize("name", ["Dataset017_BTCV", "Dataset017_Heart"])
def test_an_id_in_use_is_rejected(original: Path, raw: Path, name: str) -> None:
    (raw / name).mkdir()
    refused(original, raw, f"{name}: a data set with the id 17 exists already. Choose another id with -d")
    assert not os.listdir(raw / name)


def test_an_invalid_id_and_an_unset_raw_folder_are_rejected(
    original: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dataset_id in (0, 1000):
        refused(original, raw, f"-d {dataset_id}: an id of nnU-Net is from 1 to 999", dataset_id)
    monkeypatch.setenv("nnUNet_raw", "/no/such/folder")
    refused(original, raw, "nnUNet_raw=/no/such/folder is not a folder.*export nnUNet_raw=")
    monkeypatch.delenv("nnUNet_raw")
    refused(original, raw, "nnUNet_raw is not set.*export nnUNet_raw=")


def test_a_failed_copy_leaves_nothing(original: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"cannot write .*Dataset017_BTCV: No space left"):
        convert_btcv(original, 17)
    assert not os.listdir(raw)
