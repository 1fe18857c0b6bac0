"""What nnU-Net writes when its training starts is tried before pretraining."""

from pathlib import Path

import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.model_folder import FINGERPRINT, check_model_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / FINGERPRINT).touch()
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_nothing_is_changed(model: Path) -> None:
    (model / "plans.json").write_text("{}")
    before = (model / "plans.json").stat().st_mtime_ns
    check_model_folder(model, model.parent)
    assert [file.name for file in model.iterdir()] == ["plans.json"]
    assert (model / "plans.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", FINGERPRINT])
def test_a_file_that_cannot_be_written(model: Path, name: str) -> None:
    (model / name).mkdir()
    with pytest.raises(InputError, match=rf"cannot write {model / name}: Is a directory.*permission"):
        check_model_folder(model, model.parent)


def test_a_folder_that_cannot_be_written(model: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*absent: No such file or directory"):
        check_model_folder(model / "absent", model.parent)


def test_no_fingerprint_to_copy(model: Path) -> None:
    (model.parent / FINGERPRINT).unlink()
    with pytest.raises(InputError, match=rf"{FINGERPRINT} is missing.*nnUNetv2_extract_fingerprint"):
        check_model_folder(model, model.parent)
