"""nnunet-semcl unlabelled: cases as nnU-Net makes them, runs that are cut off, and every refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.cli import main
from nnunet_semcl.commands.unlabelled import Job, _preprocess_all, preprocess_unlabelled
from nnunet_semcl.data.unlabelled import check_unlabelled, unlabelled_cases, unlabelled_folder
from nnunet_semcl.errors import InputError

ID = "999"
SAME = {"scan_0": "phantom_000", "scan_1": "phantom_001"}  # unlabelled case -> the labelled one with the same image


@pytest.fixture
def images(folders) -> Path:
    """Two images that the data set has with labels, and one that it has not."""
    folder = folders.root / "images"
    folder.mkdir()
    for case, source in SAME.items():
        shutil.copy(folders.raw / "imagesTr" / f"{source}_0000.nii.gz", folder / f"{case}_0000.nii.gz")
    shutil.copy(folders.raw / "imagesTs" / "phantom_test_000_0000.nii.gz", folder / "scan_2_0000.nii.gz")
    return folder


def change_plans(folders, change: dict, plans: str = "nnUNetPlans", configuration: str = "2d") -> None:
    file = folders.preprocessed / f"{plans}.json"
    content = json.loads(file.read_text())
    content["configurations"].setdefault(configuration, {}).update(change)
    file.write_text(json.dumps(content))


def manager(folders, plans: str = "nnUNetPlans") -> PlansManager:
    return PlansManager(str(folders.preprocessed / f"{plans}.json"))


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix in (".b2nd", ".pkl")}


# what is written


def test_cases_are_as_nnunet_made_them_of_the_same_images(folders, images: Path, capsys: pytest.CaptureFixture):
    assert main(["unlabelled", "-d", ID, "-i", str(images), "-np", "1"]) == 0
    assert capsys.readouterr().out.count("3 preprocessed now, 0 already there, 0 left out") == 2
    for configuration in ("2d", "3d_fullres"):
        folder = unlabelled_folder(folders.preprocessed, manager(folders).get_configuration(configuration))
        assert folder.name == f"nnUNetPlans_{configuration}_unlabelled"
        assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]
        assert not list(folder.glob(".*"))
        ours, theirs = nnUNetDatasetBlosc2(str(folder)), nnUNetDatasetBlosc2(str(folder).removesuffix("_unlabelled"))
        for case, same in SAME.items():
            image, body, _, properties = ours.load_case(case)
            expected, labels, _, expected_properties = theirs.load_case(same)
            assert np.array_equal(image[:], expected[:])
            assert np.array_equal(body[:], np.where(labels[:] < 0, -1, 0))
            for mine, nnunets in ((image, expected), (body, labels)):
                assert (mine.dtype, mine.chunks, mine.blocks) == (nnunets.dtype, nnunets.chunks, nnunets.blocks)
            del expected_properties["class_locations"]
            assert properties == expected_properties


def test_plans_of_another_patch_share_the_folder(folders, images: Path, capsys: pytest.CaptureFixture):
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    before = times(folder)
    assert preprocess_unlabelled(ID, images, ["2d"], "nnUNetTinyPlans") == {}
    assert "2d: 0 preprocessed now, 3 already there, 0 left out" in capsys.readouterr().out
    assert times(folder) == before
    tiny = manager(folders, "nnUNetTinyPlans")
    dataset_json = json.loads((folders.preprocessed / "dataset.json").read_text())
    check_unlabelled(folder, tiny, tiny.get_configuration("2d"), dataset_json)


def test_configurations_with_one_data_identifier_are_done_once(folders, images: Path, capsys: pytest.CaptureFixture):
    change_plans(folders, {"inherits_from": "2d", "batch_size": 4}, configuration="2d_bs4")
    preprocess_unlabelled(ID, images, ["2d_bs4", "2d"], num_processes=1)
    output = capsys.readouterr().out
    assert "2d_bs4, 2d: 3 preprocessed now" in output
    assert output.count("preprocessed now") == 1
    assert output.splitlines()[:3] == ["1/3 scan_0", "2/3 scan_1", "3/3 scan_2"]
    assert [path.name for path in folders.preprocessed.glob("*_unlabelled")] == ["nnUNetPlans_2d_unlabelled"]


# resuming


def test_what_is_complete_stays_and_what_lost_a_file_is_made_again(folders, images: Path):
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
    folders, images: Path, monkeypatch: pytest.MonkeyPatch, files_in_place: int
):
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    replace, placed = os.replace, []

    def interrupted(source: str | Path, target: str | Path) -> None:
        if Path(target).suffix in (".b2nd", ".pkl"):
            if len(placed) == files_in_place:
                raise KeyboardInterrupt
            placed.append(target)
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", interrupted)
        preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert len(placed) == files_in_place
    assert unlabelled_cases(folder) == []
    (folder / ".part-of-a-kill").mkdir()  # what kill -9 leaves
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]
    assert not list(folder.glob(".*"))


def test_a_killed_command_leaves_whole_cases_and_no_process(folders, images: Path):
    for number in range(3, 30):
        os.link(images / "scan_2_0000.nii.gz", images / f"scan_{number}_0000.nii.gz")
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    process = folders.start(f"nnunet-semcl unlabelled -d {ID} -i {images} -c 2d -np 2")
    deadline = time.monotonic() + 120
    while not unlabelled_cases(folder):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # ends when the last process has let go of the output

    done = unlabelled_cases(folder)
    assert 0 < len(done) < 30
    before = times(folder)
    assert preprocess_unlabelled(ID, images, ["2d"], num_processes=1) == {}
    assert len(unlabelled_cases(folder)) == 30
    after = times(folder)
    assert all(after[case + ending] == before[case + ending] for case in done for ending in (".b2nd", ".pkl"))
    expected = nnUNetDatasetBlosc2(str(folder)).load_case("scan_2")[0][:]
    assert all(
        np.array_equal(nnUNetDatasetBlosc2(str(folder)).load_case(c)[0][:], expected) for c in (done[-1], "scan_29")
    )


class DeadlyFiles(list):
    """Ends the process that receives it, as the system does when memory runs out."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_dies_is_told_and_does_not_hang_the_rest():
    jobs = [Job(case, DeadlyFiles(), {}, PlansManager({}), {}) for case in "ab"]
    with pytest.raises(InputError, match=r"-np: found a process that was killed.*memory for 2 images .*smaller -np"):
        list(_preprocess_all(jobs, 2))


# images that are left out


def test_faulty_images_are_left_out_and_listed_and_the_rest_is_done(
    folders, images: Path, capsys: pytest.CaptureFixture
):
    image = sitk.ReadImage(str(images / "scan_2_0000.nii.gz"))
    sitk.WriteImage(image * 0, str(images / "bad_empty_0000.nii.gz"))
    (images / "bad_format_0000.nii.gz").write_text("not an image")
    whole = (images / "scan_2_0000.nii.gz").read_bytes()
    (images / "bad_half_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert main(["unlabelled", "-d", ID, "-i", str(images), "-c", "2d", "-np", "1"]) == 1
    output = capsys.readouterr().out
    assert "2d: 3 preprocessed now, 0 already there, 3 left out" in output
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


def test_what_the_preprocessor_cannot_do_is_left_out_with_its_reason(folders, images: Path):
    change_plans(folders, {"normalization_schemes": ["RGBTo01Normalization"]})
    left_out = preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert left_out.keys() == {"scan_0", "scan_1", "scan_2"}
    assert all("for 2d (RGB images are uint 8" in reason for reason in left_out.values())
    assert unlabelled_cases(folders.preprocessed / "nnUNetPlans_2d_unlabelled") == []


def test_two_channels(folders, images: Path):
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
    assert left_out == {"scan_1": f"{images / 'scan_1_0001.nii.gz'}: another origin than scan_1_0000.nii.gz"}
    cases = nnUNetDatasetBlosc2(str(folders.preprocessed / "nnUNetPlans_2d_unlabelled"))
    first, second = cases.load_case("scan_0")[0][:], cases.load_case("scan_2")[0][:]
    assert len(first) == 2
    assert np.array_equal(first[1], second[0])
    assert not np.array_equal(first[0], second[0])


# what is refused before any work


def test_refuses_a_folder_made_with_other_plans(folders, images: Path):
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    folder = folders.preprocessed / "nnUNetPlans_2d_unlabelled"
    before = times(folder)
    change_plans(folders, {"spacing": [7.0, 7.0], "use_mask_for_norm": [True]})
    message = r"nnUNetPlans_2d_unlabelled: found cases preprocessed with another spacing, use_mask_for_norm, .* Move"
    with pytest.raises(InputError, match=message):
        preprocess_unlabelled(ID, images, ["2d"])
    (folder / "preprocessing.json").unlink()
    with pytest.raises(InputError, match=r"found cases without a preprocessing\.json"):
        preprocess_unlabelled(ID, images, ["2d"])
    assert times(folder) == before
    folder.rename(folder.with_name("away"))
    preprocess_unlabelled(ID, images, ["2d"], num_processes=1)
    assert unlabelled_cases(folder) == ["scan_0", "scan_1", "scan_2"]


def test_refusals_come_before_any_work(folders, images: Path):
    def refused(message: str, **changed: object) -> None:
        arguments = {"dataset_name_or_id": ID, "images": images} | changed
        with pytest.raises(InputError, match=message):
            preprocess_unlabelled(**arguments)
        assert not list(folders.preprocessed.glob("*_unlabelled"))

    refused("no data sets for '998'", dataset_name_or_id="998")
    refused("no such plans", plans_identifier="OtherPlans")
    refused("no configuration '4d', expected one of: 2d", configurations=["2d", "4d"])
    refused("-np: found 0", num_processes=0)
    refused("which is no folder", images=images / "none")
    refused("cases of the data set itself: phantom_000, phantom_001", images=folders.raw / "imagesTr")
    (images / "scan_1_0001.nii.gz").touch()
    refused("case scan_1: found channels 0000, 0001, expected 0000")
    (images / "scan_1_0001.nii.gz").unlink()

    shutil.rmtree(folders.preprocessed / "nnUNetPlans_3d_fullres")
    refused(r"nnUNetPlans_3d_fullres: found no preprocessed cases.*nnUNetv2_preprocess", configurations=["3d_fullres"])
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    refused("found no configuration that is preprocessed, expected one or more of: 2d")
    (folders.preprocessed / "dataset.json").unlink()
    refused(r"dataset\.json: found no such file")


def test_without_configurations_all_that_are_preprocessed_are_done(folders, images: Path):
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_3d_fullres")
    preprocess_unlabelled(ID, images, num_processes=1)
    assert [path.name for path in folders.preprocessed.glob("*_unlabelled")] == ["nnUNetPlans_2d_unlabelled"]
