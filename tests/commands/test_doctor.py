"""The doctor in broken environments: it reports every fault with its fix."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import NNUNetFolders

from nnunet_semcl.cli import main
from nnunet_semcl.commands import doctor
from nnunet_semcl.commands.path import trainer_path


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    return tmp_path


def faults(check: Iterator[doctor.Finding]) -> list[doctor.Finding]:
    return [finding for finding in check if finding.kind == "fault"]


def test_no_fault(healthy: Path, capsys: pytest.CaptureFixture) -> None:
    assert doctor.run_doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok     SemCLTrainer: found") for line in lines)
    assert any(line.startswith("ok     nnUNet_results=") for line in lines)
    assert lines[-1] == "Ready to train."
    assert all(line.startswith(("ok ", "note ")) for line in lines[:-2])  # no output of nnU-Net's search


def test_one_line_fixes_trainers_that_are_not_found(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("nnUNet_extTrainer")
    assert doctor.run_doctor() == 1
    report = capsys.readouterr().out
    assert "fault  nnUNet_extTrainer is not set: nnU-Net does not find " in report
    assert 'fix it: export nnUNet_extTrainer="$(nnunet-semcl path)"\n\n1 fault\n' in report
    assert all(name in report for name in doctor.trainer_classes())


def other_folder_first(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Puts a user's own trainer folder before the package's folder, and limits the search to SemCLTrainer."""
    semcl_trainer = doctor.trainer_classes()["SemCLTrainer"]
    monkeypatch.setattr(doctor, "trainer_classes", lambda: {"SemCLTrainer": semcl_trainer})
    folder = folder / "my_trainers"
    folder.mkdir()
    (folder / "MyTrainer.py").write_text(code)
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(str(folder)))


BASE = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"


def test_a_trainer_defined_in_the_folder_cannot_be_pickled(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_folder_first(healthy, monkeypatch, BASE + "class SemCLTrainer(nnUNetTrainer): pass\n")
    (fault,) = faults(doctor.check_trainers())
    assert fault.text.startswith("SemCLTrainer: each search makes a new class")
    assert "only import it" in fault.fix


def test_a_folder_without_the_trainers_is_named(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_folder_first(healthy, monkeypatch, "")
    monkeypatch.setenv("nnUNet_extTrainer", str(healthy / "my_trainers"))
    (fault,) = faults(doctor.check_trainers())
    assert fault.text == f"nnUNet_extTrainer is {healthy / 'my_trainers'}: nnU-Net does not find SemCLTrainer"


def test_another_trainer_of_the_same_name_comes_first(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_folder_first(healthy, monkeypatch, BASE + "SemCLTrainer = nnUNetTrainer\n")
    (fault,) = faults(doctor.check_trainers())
    assert "finds another trainer with that name first, in nnunetv2.training.nnUNetTrainer" in fault.text
    assert fault.fix.endswith('unset nnUNet_extTrainer; export nnUNet_extTrainer="$(nnunet-semcl path)"')


def test_a_broken_file_in_a_users_folder_is_reported(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_folder_first(healthy, monkeypatch, "import no_such_library\n")
    (fault,) = faults(doctor.check_trainers())
    assert "search fails in a folder of nnUNet_extTrainer" in fault.text
    assert "no_such_library" in fault.text


def test_every_trainer_of_the_folder_is_checked() -> None:
    names = doctor.trainer_classes()
    assert "SemCLTrainer" in names
    assert "nnUNetTrainer" not in names
    assert all(name == trainer.__name__ for name, trainer in names.items())


def test_folders_that_are_unset_missing_or_files(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(healthy / "none"))
    (healthy / "file").touch()
    monkeypatch.setenv("nnUNet_results", str(healthy / "file"))
    raw, preprocessed, results = faults(doctor.check_folders())
    assert raw == doctor.Finding("fault", "nnUNet_raw is not set", "export nnUNet_raw=/path/to/nnUNet_raw")
    assert preprocessed.fix.startswith(f'mkdir -p "{healthy / "none"}"')
    assert results.text.endswith("is not a folder")
    assert "set nnUNet_results to" in results.fix


def test_folders_must_be_writable_but_nnunet_raw_only_readable(healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder["dir"])

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", read_only)
    preprocessed, results = faults(doctor.check_folders())
    assert "Permission denied" in preprocessed.text
    assert "cannot be written to: Permission denied" in results.text
    assert preprocessed.fix.startswith(f'chmod u+rwx "{healthy / "nnUNet_preprocessed"}"')


def test_the_check_of_folders_leaves_no_file(healthy: Path) -> None:
    assert not faults(doctor.check_folders())
    assert not any(files for _, _, files in os.walk(healthy))


@pytest.mark.parametrize(
    ("version", "kind"), [("2.8.1", "ok"), ("2.8.12", "ok"), ("2.6.2", "fault"), ("2.80.0", "fault")]
)
def test_nnunet_version(monkeypatch: pytest.MonkeyPatch, version: str, kind: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"nnunetv2": version}.__getitem__)
    (finding,) = doctor.check_nnunet()
    assert (finding.kind, version in finding.text) == (kind, True)
    assert finding.fix == ('pip install "nnunetv2>=2.8,<2.9"' if kind == "fault" else "")


def test_nnunet_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    (fault,) = faults(doctor.check_nnunet())
    assert fault.text == "nnU-Net is not installed"


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not faults(doctor.check_python())
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 18))
    (fault,) = faults(doctor.check_python())
    assert "3.9.18" in fault.text


@pytest.mark.parametrize(
    ("cuda", "mps", "kind", "device"),
    [(True, False, "ok", "-device cuda"), (False, True, "ok", "-device mps"), (False, False, "note", "-device cpu")],
)
def test_the_device_is_never_a_fault(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, kind: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    _, finding = doctor.check_torch()
    assert finding.kind == kind
    assert device in finding.text


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(total=2**26))  # Docker's default
    finding = next(doctor.check_limits())
    assert finding.kind == "note"  # small patches fit
    assert "holds 0.06 GiB" in finding.text
    assert "--shm-size" in finding.text
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(total=2**33))
    assert next(doctor.check_limits()).kind == "ok"


def test_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(doctor, "SHARED_MEMORY", Path("/absent"))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    (fault,) = faults(doctor.check_limits())
    assert (fault.text, fault.fix) == ("a process may open 256 files only", "ulimit -n 1024")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not faults(doctor.check_limits())


def test_every_case_of_a_data_set_is_read(folders: NNUNetFolders, capsys: pytest.CaptureFixture) -> None:
    assert main(["unlabelled", "-d", "999", "-i", str(folders.raw / "imagesTs"), "-c", "2d", "-np", "1"]) == 0
    capsys.readouterr()
    main(["doctor", "-d", "999"])
    report = capsys.readouterr().out
    for name, number in (("nnUNetPlans_2d", 5), ("nnUNetPlans_3d_fullres", 5), ("nnUNetPlans_2d_unlabelled", 1)):
        assert f"ok     {folders.preprocessed / name}: {number} cases are intact" in report
    data = folders.preprocessed / "nnUNetPlans_2d"
    for file in ("phantom_001.b2nd", "phantom_003_seg.b2nd"):
        (data / file).write_bytes(b"broken")
    assert main(["doctor", "-d", "999"]) == 1
    report = capsys.readouterr().out
    for file in ("phantom_001.b2nd", "phantom_003_seg.b2nd"):
        assert f"fault  {data / file} cannot be read" in report
    assert report.count("fix it: To create it again, run: nnUNetv2_preprocess -d 999") == 2


def test_a_data_set_that_does_not_exist(healthy: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "-d", "5"]) == 1
    assert "no data set matches '5'" in capsys.readouterr().out
