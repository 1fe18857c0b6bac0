"""A kill, an error and a full disk in the middle of writing leave the former file."""

from pathlib import Path

import pytest
import torch

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.checkpoints import load_safely, save_atomically
from nnunet_semcl.files.json_files import write_json


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("former")
    with atomic_write(file) as beside:
        beside.write_text("new")
        assert file.read_text() == "former"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_in_the_middle_leaves_the_former_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("former")
    with pytest.raises(KeyError), atomic_write(file) as beside:
        beside.write_text("ne")
        raise KeyError
    assert file.read_text() == "former"


@pytest.mark.parametrize("write", [save_atomically, write_json])
def test_a_full_disk(tmp_path: Path, write) -> None:
    file = tmp_path / "a.file"
    file.write_text("former")
    (tmp_path / ".a.file").symlink_to("/dev/full")  # the kernel's own full disk
    content = {str(key): list(range(10_000)) for key in range(10)}
    with pytest.raises(InputError, match=r"a\.file: found that it cannot be written .*Make room"):
        write(content, file)
    assert file.read_text() == "former"
    assert list(tmp_path.iterdir()) == [file]


def test_a_checkpoint_after_the_disk_was_full(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    save_atomically({"epoch": 1}, file)
    (tmp_path / ".checkpoint.pth").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"MB are free"):
        save_atomically({"epoch": 2, "weights": torch.zeros(100_000)}, file)
    assert load_safely(file, torch.device("cpu"), {"epoch"}) == {"epoch": 1}
    save_atomically({"epoch": 2}, file)
    assert load_safely(file, torch.device("cpu"), {"epoch"}) == {"epoch": 2}
