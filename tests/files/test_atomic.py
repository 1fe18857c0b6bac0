"""A kill, an error or a full disk during writing leaves the previous file."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.checkpoints import load_safely, save_atomically
from nnunet_semcl.files.json_files import write_json


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("previous")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "previous"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_during_writing_leaves_the_previous_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("previous")

    def fail() -> None:
        with atomic_write(file) as temporary:
            temporary.write_text("ne")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.read_text() == "previous"


@pytest.mark.parametrize("write", [save_atomically, write_json])
def test_a_full_disk(tmp_path: Path, write: Callable[[dict, Path], None]) -> None:
    file = tmp_path / "a.file"
    file.write_text("previous")
    (tmp_path / ".a.file").symlink_to("/dev/full")  # the kernel's own full disk
    content = {str(key): list(range(10_000)) for key in range(10)}
    with pytest.raises(InputError, match=r"cannot write .*/a\.file: .*MB free\)\. Free some space, .*--c"):
        write(content, file)
    assert file.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("write", [save_atomically, write_json])
def test_what_else_prevents_writing_has_its_own_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[dict, Path], None]
) -> None:
    folder = tmp_path / "absent"
    file = folder / "a.json"
    with pytest.raises(InputError, match=f"cannot write {file}: .* Create the folder {folder}, then run the same"):
        write({}, file)
    folder.mkdir()
    file.mkdir()
    with pytest.raises(InputError, match=r"a\.json: Is a directory\. Move the folder of this name away, then run"):
        write({}, file)
    file.rmdir()

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)  # permissions do not bind the superuser
        with pytest.raises(InputError, match=f"Permission denied. Give yourself permission to write in {folder}, then"):
            write({}, file)
    write({}, file)
    assert list(folder.iterdir()) == [file]


def test_an_error_of_the_gpu_is_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    file.write_text("previous")
    with pytest.raises(RuntimeError, match="CUDA error: an illegal memory access"), atomic_write(file):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("checkpoint.pth", "previous")]


def test_a_checkpoint_after_the_disk_was_full(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    save_atomically({"epoch": 1}, file)
    (tmp_path / ".checkpoint.pth").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cannot write .*/checkpoint\.pth: .*MB free"):
        save_atomically({"epoch": 2, "weights": torch.zeros(100_000)}, file)
    assert load_safely(file, torch.device("cpu"), {"epoch"}) == {"epoch": 1}
    save_atomically({"epoch": 2}, file)
    assert load_safely(file, torch.device("cpu"), {"epoch"}) == {"epoch": 2}
