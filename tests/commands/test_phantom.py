"""The phantom: its files, its anatomy, its seeds, and the requests that it rejects."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import load_json
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_semcl.commands.phantom import EXTENT, LABELS, NOISE, ORGANS, SHAPE, SMALLEST_SHAPE, draw_case, write_phantom
from nnunet_semcl.errors import InputError

SMALL = (24, 32, 40)


def volumes(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.rglob("*.nii.gz"))
    return {str(f.relative_to(folder)): sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("raw"), 42, cases=3, test_cases=2, seed=5, shape=SMALL)


def test_nnunet_accepts_the_data_set(dataset: Path) -> None:
    verify_dataset_integrity(str(dataset), num_processes=1)


def test_files_and_dataset_json(dataset: Path) -> None:
    assert dataset.name == "Dataset042_Phantom"
    assert sorted(volumes(dataset)) == [
        *(f"imagesTr/phantom_{n:03d}_0000.nii.gz" for n in range(3)),
        *(f"imagesTs/phantom_test_{n:03d}_0000.nii.gz" for n in range(2)),
        *(f"labelsTr/phantom_{n:03d}.nii.gz" for n in range(3)),
        *(f"labelsTs/phantom_test_{n:03d}.nii.gz" for n in range(2)),
    ]
    described = load_json(str(dataset / "dataset.json"))
    assert described["labels"] == LABELS
    assert described["numTraining"] == 3
    assert described["channel_names"] == {"0": "CT"}
    assert [f.name for f in dataset.parent.iterdir()] == [dataset.name], "a temporary folder was left"


@pytest.mark.parametrize("file", ["imagesTs/phantom_test_000_0000.nii.gz", "labelsTs/phantom_test_000.nii.gz"])
def test_geometry(dataset: Path, file: str) -> None:
    volume = sitk.ReadImage(str(dataset / file))
    assert volume.GetSize() == SMALL[::-1]
    assert np.allclose(np.multiply(volume.GetSpacing(), volume.GetSize()), EXTENT[::-1])
    assert np.allclose(volume.GetDirection(), np.eye(3).ravel())
    middle = volume.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in volume.GetSize()])
    assert np.allclose(middle, 0, atol=1e-4)  # mm; NIfTI holds the origin in single precision


def test_the_seed_determines_the_volumes(dataset: Path, tmp_path: Path) -> None:
    first = volumes(dataset)
    again = volumes(write_phantom(tmp_path / "again", 42, cases=3, test_cases=2, seed=5, shape=SMALL))
    other = volumes(write_phantom(tmp_path / "other", 42, cases=3, test_cases=2, seed=6, shape=SMALL))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_more_cases_do_not_change_the_earlier_ones(dataset: Path, tmp_path: Path) -> None:
    fewer, more = volumes(dataset), volumes(write_phantom(tmp_path, 42, cases=5, test_cases=3, seed=5, shape=SMALL))
    assert len(more) == 16
    assert all(np.array_equal(fewer[name], more[name]) for name in fewer)


def test_cases_differ(dataset: Path) -> None:
    labels = [volume for name, volume in volumes(dataset).items() if name.startswith("labels")]
    assert len({volume.tobytes() for volume in labels}) == 5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from([SMALLEST_SHAPE, SMALL]))
def test_every_case_shows_every_organ_within_the_body(seed: int, shape: tuple[int, int, int]) -> None:
    image, label = draw_case(np.random.default_rng(seed), shape)
    assert image.shape == label.shape == shape
    assert image.dtype == np.int16
    assert label.dtype == np.uint8
    assert image.min() >= -1024
    assert image.max() <= 3071
    assert set(np.unique(label)) == set(LABELS.values())
    assert image[0, 0, 0] < -900, "air in the corner"


def test_organs_have_the_given_hu_and_noise() -> None:
    image, label = draw_case(np.random.default_rng(0), SHAPE)
    for name, organ in ORGANS.items():
        assert np.median(image[label == LABELS[name]]) == pytest.approx(organ.hu, abs=0.15 * abs(organ.hu) + 12), name
    assert image[label == LABELS["liver"]].std() == pytest.approx(NOISE, rel=0.5)


def test_left_and_right_are_the_patients() -> None:
    """x points to the left, y to the back: the liver is on the right, and the kidneys are at the back on both sides."""
    _, label = draw_case(np.random.default_rng(1), SHAPE)
    middle = {name: np.argwhere(label == value).mean(axis=0) for name, value in LABELS.items()}
    centre = (np.array(SHAPE) - 1) / 2
    assert middle["liver"][2] < centre[2] < middle["spleen"][2]
    assert middle["right kidney"][2] < centre[2] < middle["left kidney"][2]
    assert min(middle["left kidney"][1], middle["right kidney"][1]) > centre[1] > middle["gallbladder"][1]


def test_both_kidneys_look_the_same() -> None:
    left, right = [], []
    for seed in range(8):
        image, label = draw_case(np.random.default_rng(seed), SMALL)
        left.append(np.median(image[label == LABELS["left kidney"]]))
        right.append(np.median(image[label == LABELS["right kidney"]]))
    assert abs(np.mean(left) - np.mean(right)) < 10


def test_replaces_a_previous_phantom(tmp_path: Path) -> None:
    write_phantom(tmp_path, cases=2, test_cases=0, shape=SMALL)
    folder = write_phantom(tmp_path, cases=1, test_cases=0, shape=SMALL)
    assert len(volumes(folder)) == 2


@pytest.mark.parametrize("name", ["Dataset999_Phantom", "Dataset999_Hippocampus"])
def test_another_data_set_with_the_id_is_not_changed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / name / "dataset.json"
    precious.parent.mkdir()
    precious.write_text('{"labels": {}}')
    with pytest.raises(InputError, match=f"{name}: the id 999 belongs to a data set that is not a phantom"):
        write_phantom(tmp_path, 999, cases=1, test_cases=0, shape=SMALL)
    assert precious.read_text() == '{"labels": {}}'


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataset_id": 0},
        {"dataset_id": 1000},
        {"cases": 0},
        {"test_cases": -1},
        {"shape": (15, 24, 32)},
        {"shape": (40, 64)},
    ],
)
def test_invalid_requests_are_rejected(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(InputError, match=r"the phantom data set cannot have .*(Choose|Ask for)"):
        write_phantom(tmp_path / "raw", **arguments)
    assert not (tmp_path / "raw").exists()


def test_patients_differ_more_with_more_variation() -> None:
    def overlap(variation: float) -> float:
        """Mean share of organ voxels that two patients have in common."""
        labels = [draw_case(np.random.default_rng(seed), SMALL, variation)[1] for seed in range(6)]
        both = [np.mean((one == other)[(one > 0) | (other > 0)]) for one, other in combinations(labels, 2)]
        return float(np.mean(both))

    assert overlap(2) < overlap(1) - 0.05 < overlap(0) - 0.1
