"""Damaged files of a preprocessed data set: an error names them before the first step."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import blosc2
import numpy as np
import pytest
from refusal import refused

from nnunet_semcl.cli import main

if TYPE_CHECKING:
    from conftest import NNUNetFolders

    from nnunet_semcl.pretraining.trainer import PretrainingTrainer

CASES = [f"phantom_{number:03d}" for number in range(5)]
TRAINED, VALIDATED = "phantom_000", "phantom_004"
TRAINERS = pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])

Change = Callable[[Path], object]


def array(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def rewrite(file: Path) -> None:
        values = change(blosc2.open(str(file), mode="r")[:])
        file.unlink()
        blosc2.asarray(np.ascontiguousarray(values), urlpath=str(file))

    return rewrite


def voxels(value: float) -> Change:
    """Sets some voxels to a value."""

    def fill(values: np.ndarray) -> np.ndarray:
        values[0, 3:5, 7] = value
        return values

    return array(fill)


def properties(change: Callable[[dict], object]) -> Change:
    return lambda file: file.write_bytes(pickle.dumps(change(pickle.loads(file.read_bytes()))))


def cut(length: int) -> Change:
    return lambda file: file.write_bytes(file.read_bytes()[:length])


def moved(locations: dict) -> dict:
    return {obj: np.asarray(voxels) + 1000 for obj, voxels in locations.items()}


@pytest.fixture
def start(folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]) -> Callable[[str], None]:
    """Starts a training as nnUNetv2_train does."""
    splits = [{"train": CASES[:4], "val": CASES[4:]}]
    (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))

    def run(trainer: str) -> None:
        started = make_trainer(trainer)
        started.initialize()
        started.pretrain()

    return run


CASE_FILES: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "no image": (
        ".b2nd",
        Path.unlink,
        ("the case 'phantom_00", "is not preprocessed in", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "no segmentation": (
        "_seg.b2nd",
        Path.unlink,
        ("_seg.b2nd does not exist", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "no properties": (
        ".pkl",
        Path.unlink,
        (".pkl does not exist", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "an empty image file": (
        ".b2nd",
        cut(0),
        (".b2nd cannot be read (", "To create it again, run: nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "an image truncated in its header": (".b2nd", cut(300), (".b2nd cannot be read (",)),
    "an image without its last byte": (".b2nd", cut(-1), (".b2nd cannot be read (",)),
    "an error page instead of an image": (
        ".b2nd",
        lambda file: file.write_text("an error page"),
        (".b2nd cannot be read (",),
    ),
    "a truncated segmentation": ("_seg.b2nd", cut(-50), ("_seg.b2nd cannot be read (",)),
    "an empty properties file": (
        ".pkl",
        cut(0),
        (".pkl cannot be read (", "To create it again, run: nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "truncated properties": (".pkl", cut(300), (".pkl cannot be read (pickle data was truncated)",)),
    "NaN": (".b2nd", voxels(np.nan), (".b2nd: 96 values are NaN or infinite", "Fix the raw image")),
    "infinity": (".b2nd", voxels(-np.inf), (".b2nd: 96 values are NaN or infinite",)),
    "NaN everywhere": (".b2nd", array(lambda v: v * np.nan), (".b2nd: 46080 values are NaN",)),
    "two channels": (
        ".b2nd",
        array(lambda v: np.concatenate((v, v))),
        (
            ".b2nd: the shape (2, 24, 40, 48) is not (1, x, y, z)",
            "To create it again, run: nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d",
        ),
    ),
    "no channel axis": (".b2nd", array(lambda v: v[0]), (".b2nd: the shape (24, 40, 48) is not (1, x, y, z)",)),
    "no voxel": (".b2nd", array(lambda v: v[:, :0]), (".b2nd: the shape (1, 0, 40, 48) is not", "one voxel or more")),
    "a smaller segmentation": (
        "_seg.b2nd",
        array(lambda v: v[:, :-1]),
        (
            "_seg.b2nd: the shape (1, 23, 40, 48) does not match the image, which needs (1, 24, 40, 48)",
            "nnUNetv2_preprocess -d 999",
        ),
    ),
    "a label that dataset.json lacks": (
        "_seg.b2nd",
        voxels(9),
        ("_seg.b2nd: the label 9 is not one of 0, 1, 2", "dataset.json"),
    ),
    "a negative label": ("_seg.b2nd", voxels(-2), ("_seg.b2nd: the label -2 is not one of", "Fix the raw label file")),
    "properties that are a list": (
        ".pkl",
        properties(lambda p: [p]),
        (".pkl has no class_locations", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
    ),
    "no class locations": (
        ".pkl",
        properties(lambda p: p | {"class_locations": None}),
        (".pkl has no class_locations",),
    ),
    "class locations that are a list": (
        ".pkl",
        properties(lambda p: p | {"class_locations": [1]}),
        (".pkl: class_locations are not voxels",),
    ),
    "class locations without the channel": (
        ".pkl",
        properties(lambda p: p | {"class_locations": {1: np.zeros((5, 3), int)}}),
        (".pkl: class_locations are not voxels (channel, x, y, z)",),
    ),
    "class locations beyond the image": (
        ".pkl",
        properties(lambda p: p | {"class_locations": moved(p["class_locations"])}),
        (".pkl: class_locations of object 1 are not all within the image of (24, 40, 48)",),
    ),
    "no geometry": (
        ".pkl",
        properties(lambda p: {"class_locations": p["class_locations"]}),
        (
            ".pkl lacks nnU-Net's properties spacing, shape_before_cropping, bbox_used_for_cropping",
            "nnUNetv2_preprocess -d 999",
        ),
    ),
}


@pytest.mark.parametrize(("ending", "change", "words"), CASE_FILES.values(), ids=CASE_FILES)
@pytest.mark.parametrize("case", [TRAINED, VALIDATED])
def test_case(
    folders: NNUNetFolders,
    start: Callable[[str], None],
    case: str,
    ending: str,
    change: Change,
    words: tuple[str, ...],
) -> None:
    change(folders.preprocessed / "nnUNetPlans_2d" / f"{case}{ending}")
    with refused(case, *words):
        start("IDEALTrainerShort" if case == VALIDATED else "SemCLTrainerShort")
    assert not list((folders.root / "results").rglob("*.pth"))


@TRAINERS
@pytest.mark.parametrize("name", [".DS_Store", "notes.txt", "phantom_000.nii.gz"])
def test_a_file_that_belongs_to_no_case(
    folders: NNUNetFolders, start: Callable[[str], None], trainer: str, name: str
) -> None:
    (folders.preprocessed / "nnUNetPlans_2d" / name).touch()
    with refused(f"nnUNetPlans_2d/{name} is not a file of a preprocessed case", "Move it out"):
        start(trainer)


def test_cases_in_two_formats(folders: NNUNetFolders, start: Callable[[str], None]) -> None:
    (folders.preprocessed / "nnUNetPlans_2d" / "phantom_000.npz").touch()
    with refused(
        "nnUNetPlans_2d", "cases as .b2nd and as .npz", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"
    ):
        start("SemCLTrainerShort")


def test_no_object_in_any_training_case(folders: NNUNetFolders, start: Callable[[str], None]) -> None:
    for case in CASES:
        file = folders.preprocessed / "nnUNetPlans_2d" / f"{case}.pkl"
        properties(lambda p: p | {"class_locations": {obj: [] for obj in p["class_locations"]}})(file)
        array(np.zeros_like)(file.with_name(f"{case}_seg.b2nd"))
    with refused("nnUNetPlans_2d", "no voxel of any object in the 4 training cases", "-tr nnUNetTrainer"):
        start("SemCLTrainerShort")


def test_an_empty_mask_among_others_works(folders: NNUNetFolders, start: Callable[[str], None]) -> None:
    file = folders.preprocessed / "nnUNetPlans_2d" / f"{TRAINED}.pkl"
    properties(lambda p: p | {"class_locations": {obj: [] for obj in p["class_locations"]}})(file)
    array(np.zeros_like)(file.with_name(f"{TRAINED}_seg.b2nd"))
    start("SemCLTrainerShort")


UNLABELLED_FILES: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "a truncated image": (
        "scan.b2nd",
        cut(300),
        ("scan.b2nd cannot be read (", "nnunet-semcl unlabelled"),
    ),
    "NaN": ("scan.b2nd", voxels(np.nan), ("scan.b2nd: 96 values are NaN",)),
    "no channel axis": ("scan.b2nd", array(lambda v: v[0]), ("scan.b2nd: the shape (24, 40, 48) is not (1, x, y, z)",)),
    "no record": ("preprocessing.json", Path.unlink, ("cases without a preprocessing.json", "Move the folder away")),
    "a truncated record": ("preprocessing.json", cut(10), ("preprocessing.json", "broken JSON")),
    "a record that is a list": (
        "preprocessing.json",
        lambda file: file.write_text("[1]"),
        ("cases without a preprocessing.json",),
    ),
}


@pytest.mark.parametrize(("name", "change", "words"), UNLABELLED_FILES.values(), ids=UNLABELLED_FILES)
@TRAINERS
def test_unlabelled_case(
    folders: NNUNetFolders,
    start: Callable[[str], None],
    trainer: str,
    name: str,
    change: Change,
    words: tuple[str, ...],
) -> None:
    images = folders.root / "images"
    images.mkdir()
    shutil.copy(next((folders.raw / "imagesTs").iterdir()), images / "scan_0000.nii.gz")
    assert main(["unlabelled", "-d", "999", "-i", str(images), "-c", "2d", "-p", "nnUNetTinyPlans", "-np", "1"]) == 0
    change(folders.preprocessed / "nnUNetPlans_2d_unlabelled" / name)
    with refused("nnUNetPlans_2d_unlabelled", *words):
        start(trainer)
