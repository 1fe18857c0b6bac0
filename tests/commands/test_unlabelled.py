"""nnunet-semcl unlabelled: cases are as nnU-Net preprocesses them, runs can be interrupted, wrong input is rejected."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.cli import main
from nnunet_semcl.commands.unlabelled import Job, _preprocess_all, preprocess_unlabelled
from nnunet_semcl.data.unlabelled import check_unlabelled, unlabelled_cases, unlabelled_folder
from nnunet_semcl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import NNUNetFolders

ID = "999"
SAME = {"scan_0": "phantom_000", "scan_1": "phantom_001"}  # unlabelled case -> the labelled one with the same image


@pytest.fixture
def images(folders: NNUNetFolders) -> Path:
    """Two images of the data set's labelled cases, and one new image."""
    folder = folders.root / "images"
    folder.mkdir()
    for case, source in SAME.items():
        shutil.copy(folders.raw / "imagesTr" / f"{source}_0000.nii.gz", folder / f"{case}_0000.nii.gz")
    shutil.copy(folders.raw / "imagesTs" / "phantom_test_000_0000.nii.gz", folder / "scan_2_0000.nii.gz")
    return folder


def change_plans(folders: NNUNetFolders, change: dict, plans: str = "nnUNetPlans", configuration: str = "2d") -> None:
    file = folders.preprocessed / f"{plans}.json"
    content = json.loads(file.read_text())
    content["configurations"].setdefault(configuration, {}).update(change)
    file.write_text(json.dumps(content))


def manager(folders: NNUNetFolders, plans: str = "nnUNetPlans") -> PlansManager:
    return PlansManager(str(folders.preprocessed / f"{plans}.json"))


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix in (".b2nd", ".pkl")}


# what is written


def test_cases_are_as_nnunet_preprocesses_the_same_images(
    folders: NNUNetFolders, images: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["unlabelled", "-d", ID, "-i", str(images), "-np", "1"]) == 0
    assert capsys.readouterr().out.count("3 preprocessed now, 0 complete already, 0 left out") == 2
    for configuration in ("2d", "3d_fullres"):
        folder = unlabelled_folder(folders.preprocessed, manager(folders).get_configuration(configuration))
        assert folder.name == f"nnUNetPlans_{configuration}_unlabelled"
        assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]
        assert not list(folder.glob(".*"))
        unlabelled, labelled = (
            nnUNetDatasetBlosc2(str(folder)),
            nnUNetDatasetBlosc2(str(folder).removesuffix("_unlabelled")),
        )
        for case, same in SAME.items():
            image, body, _, properties = unlabelled.load_case(case)
            expected, labels, _, expected_properties = labelled.load_case(same)
            assert np.array_equal(image[:], expected[:])
            assert np.array_equal(body[:], np.where(labels[:] < 0, -1, 0))
            for made, reference in ((image, expected), (body, labels)):
                assert (made.dtype, made.chunks, made.blocks) == (reference.dtype, reference.chunks, reference.blocks)
            del expected_properties["class_locations"]
            assert properties == expected_properties


def test_plans_with_another_patch_share_the_folder(
    folders: NNUNetFolders, images: Path, capsys: pytest.CaptureFixture
) -> None:
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    before = times(folder)
    assert preprocess_unlabelled(ID, images, ["2d"], "nnUNetTinyPlans") == {}
    assert "2d: 0 preprocessed now, 3 complete already, 0 left out" in capsys.readouterr().out
    assert times(folder) == before
    tiny = manager(folders, "nnUNetTinyPlans")
    dataset_json = json.loads((folders.preprocessed / "dataset.json").read_text())
    check_unlabelled(folder, tiny, tiny.get_configuration("2d"), dataset_json)


def test_configurations_with_the_same_data_identifier_share_the_cases(
    folders: NNUNetFolders, images: Path, capsys: pytest.CaptureFixture
) -> None:
    change_plans(folders, {"inherits_from": "2d", "batch_size": 4}, configuration="2d_bs4")
    preprocess_unlabelled(ID, images, ["2d_bs4", "2d"], num_processes=1)
    output = capsys.readouterr().out
    assert "2d_bs4, 2d: 3 preprocessed now" in output
    assert output.count("preprocessed now") == 1
    assert output.splitlines()[:3] == ["1/3 scan_0", "2/3 scan_1", "3/3 scan_2"]
    assert [path.name for path in folders.preprocessed.glob("*_unlabelled")] == ["nnUNetPlans_2d_unlabelled"]


# resuming


def test_only_incomplete_cases_are_preprocessed_again(folders: NNUNetFolders, images: Path) -> None:
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    before = times(folder)
    for lost in ("scan_0.pkl", "scan_1_seg.b2nd"):
        (folder / lost).unlink()
    assert unlabelled_cases(folder) == ["scan_2"]
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    after = times(folder)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] == before[name]} == {"scan_2.b2nd", "scan_2_seg.b2nd", "scan_2.pkl"}


@pytest.mark.parametrize("files_in_place", [0, 1, 2])
def test_an_interrupted_case_does_not_count(
    folders: NNUNetFolders, images: Path, monkeypatch: pytest.MonkeyPatch, files_in_place: int
) -> None:
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    replace = os.replace
    placed: list[str | Path] = []

    def interrupted(source: str | Path, target: str | Path) -> None:
        if Path(target).suffix in (".b2nd", ".pkl"):
            if len(placed) == files_in_place:
                raise KeyboardInterrupt
            placed.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert len(placed) == files_in_place
    assert unlabelled_cases(folder) == []
    (folder / ".part-of-a-kill").mkdir()  # as left by kill -9
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]
    assert not list(folder.glob(".*"))


def test_a_killed_command_leaves_intact_cases_and_no_process(folders: NNUNetFolders, images: Path) -> None:
    for number in range(3, 30):
        os.link(images / "scan_2_0000.nii.gz", images / f"scan_{number}_0000.nii.gz")
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    process = folders.start(f"nnunet-semcl unlabelled -d {ID} -i {images} -c 2d -np 2")
    deadline = time.monotonic() + 120
    while not unlabelled_cases(folder):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # returns when the last process has closed the output

    done = unlabelled_cases(folder)
    assert 0 < len(done) < 30
    before = times(folder)
    assert preprocess_unlabelled(ID, images, ["2d"], num_processes=1) == {}
    assert len(unlabelled_cases(folder)) == 30
    after = times(folder)
    assert all(after[case + ending] == before[case + ending] for case in done for ending in (".b2nd", ".pkl"))
    cases = nnUNetDatasetBlosc2(str(folder))
    expected = cases.load_case("scan_2")[0][:]
    links = {f"scan_{number}" for number in range(3, 30)}  # all link to the file of scan_2
    assert all(np.array_equal(cases.load_case(case)[0][:], expected) for case in links)


class DeadlyFiles(list):
    """Ends the process that unpickles it, like the system when memory runs out."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (1,)


def test_a_killed_process_is_reported_and_the_command_ends() -> None:
    jobs = [Job(case, DeadlyFiles(), {}, PlansManager({}), {}) for case in "ab"]
    with pytest.raises(
        InputError, match=r"-np 2: a process was killed, probably because memory ran out\. .*smaller -np"
    ):
        list(_preprocess_all(jobs, 2))


# images that are left out


def test_unusable_images_are_left_out_and_listed(
    folders: NNUNetFolders, images: Path, capsys: pytest.CaptureFixture
) -> None:
    image = sitk.ReadImage(str(images / "scan_2_0000.nii.gz"))
    sitk.WriteImage(image * 0, str(images / "bad_empty_0000.nii.gz"))
    (images / "bad_format_0000.nii.gz").write_text("not an image")
    intact = (images / "scan_2_0000.nii.gz").read_bytes()
    (images / "bad_half_0000.nii.gz").write_bytes(intact[: len(intact) // 2])
    assert main(["unlabelled", "-d", ID, "-i", str(images), "-c", "2d", "-np", "1"]) == 1
    output = capsys.readouterr().out
    assert "2d: 3 preprocessed now, 0 complete already, 3 left out" in output
    lines = [line for line in output.splitlines() if line.startswith("Left out: ")]
    assert [line.split(",")[0] for line in lines] == [
        "Left out: bad_empty",
        "Left out: bad_format",
        "Left out: bad_half",
    ]
    assert all(str(images / f"{line.split(': ')[1].split(',')[0]}_0000.nii.gz") in line for line in lines)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]
    assert not list(folder.glob("*bad*"))
    assert not list(folder.glob(".*"))


def test_images_that_the_preprocessor_rejects_are_left_out_with_the_reason(
    folders: NNUNetFolders, images: Path
) -> None:
    change_plans(folders, {"normalization_schemes": ["RGBTo01Normalization"]})
    left_out = preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert left_out.keys() == {"scan_0", "scan_1", "scan_2"}
    assert all("for 2d (RGB images are uint 8" in reason for reason in left_out.values())
    assert unlabelled_cases(folders.preprocessed / "nnUNetPlans_2d_unlabelled") == []


def test_two_channels(folders: NNUNetFolders, images: Path) -> None:
    dataset_json = json.loads((folders.preprocessed / "dataset.json").read_text())
    dataset_json["channel_names"] = {"0": "CT", "1": "CT"}
    (folders.preprocessed / "dataset.json").write_text(json.dumps(dataset_json))
    change_plans(folders, {"normalization_schemes": ["CTNormalization"] * 2, "use_mask_for_norm": [False] * 2})
    plans = json.loads((folders.preprocessed / "nnUNetPlans.json").read_text())
    intensities = plans["foreground_intensity_properties_per_channel"]
    intensities["1"] = intensities["0"]
    (folders.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    for case in ("scan_0", "scan_1", "scan_2"):
        shutil.copy(images / "scan_2_0000.nii.gz", images / f"{case}_0001.nii.gz")
    moved = sitk.ReadImage(str(images / "scan_1_0001.nii.gz"))
    moved.SetOrigin((1, 2, 3))
    sitk.WriteImage(moved, str(images / "scan_1_0001.nii.gz"))

    left_out = preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert left_out == {"scan_1": f"{images / 'scan_1_0001.nii.gz'}: differs from scan_1_0000.nii.gz in origin"}
    cases = nnUNetDatasetBlosc2(str(folders.preprocessed / "nnUNetPlans_2d_unlabelled"))
    first, second = cases.load_case("scan_0")[0][:], cases.load_case("scan_2")[0][:]
    assert len(first) == 2
    assert np.array_equal(first[1], second[0])
    assert not np.array_equal(first[0], second[0])


# input that is rejected before any work


def test_a_folder_preprocessed_with_other_plans_is_rejected(folders: NNUNetFolders, images: Path) -> None:
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    before = times(folder)
    change_plans(folders, {"spacing": [7.0, 7.0], "use_mask_for_norm": [True]})
    message = r"nnUNetPlans_2d_unlabelled holds cases preprocessed with another spacing, use_mask_for_norm .* Move"
    with pytest.raises(InputError, match=message):
        preprocess_unlabelled(ID, images, ["2d"])
    (folder / "preprocessing.json").unlink()
    with pytest.raises(InputError, match=r"2d_unlabelled holds cases without a preprocessing\.json"):
        preprocess_unlabelled(ID, images, ["2d"])
    assert times(folder) == before
    folder.rename(folder.with_name("away"))
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]


def test_wrong_input_is_rejected_before_any_work(folders: NNUNetFolders, images: Path) -> None:
    def refused(message: str, **changed: Any) -> None:
        arguments: dict[str, Any] = {"dataset_name_or_id": ID, "images": images} | changed
        with pytest.raises(InputError, match=message):
            preprocess_unlabelled(**arguments)
        assert not list(folders.preprocessed.glob("*_unlabelled"))

    refused("no data set matches '998'", dataset_name_or_id="998")
    refused("OtherPlans.json does not exist, available plans: nnUNetPlans", plans_identifier="OtherPlans")
    refused("no configuration '4d', only 2d", configurations=["2d", "4d"])
    refused("-np 0: at least one process is needed. Give 1", num_processes=0)
    refused("images/none is not a folder", images=images / "none")
    refused(
        "labelled cases with the same names: phantom_000, phantom_001.*Remove these images",
        images=folders.raw / "imagesTr",
    )
    (images / "scan_1_0001.nii.gz").touch()
    refused("case scan_1: the channels are 0000, 0001, but the data set has 0000")
    (images / "scan_1_0001.nii.gz").unlink()

    shutil.rmtree(folders.preprocessed / "nnUNetPlans_3d_fullres")
    refused(
        r"nnUNetPlans_3d_fullres contains no preprocessed cases.*nnUNetv2_preprocess", configurations=["3d_fullres"]
    )
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    refused(
        r"none of the configurations is preprocessed \(2d.*\)\. Run: nnUNetv2_preprocess -d 999 -plans_name .* -c 2d"
    )
    (folders.preprocessed / "dataset.json").unlink()
    refused(r"dataset\.json does not exist")


def test_a_folder_that_cannot_be_written(folders: NNUNetFolders, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(folder: Path, *args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(InputError, match=r"cannot write .*_unlabelled: Permission denied.*nnUNet_preprocessed"):
        preprocess_unlabelled(ID, images, num_processes=1)


def test_by_default_all_preprocessed_configurations_are_processed(folders: NNUNetFolders, images: Path) -> None:
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_3d_fullres")
    preprocess_unlabelled(ID, images, num_processes=1)
    assert [path.name for path in folders.preprocessed.glob("*_unlabelled")] == ["nnUNetPlans_2d_unlabelled"]
