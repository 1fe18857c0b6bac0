"""Cases are read once: again only if a file, the channels or the labels have changed."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.files import intact_cases
from nnunet_semcl.files.intact_cases import RECORD, TO_EXPORT, check_cases_are_intact


@pytest.fixture
def cases(tmp_path: Path) -> list[Path]:
    """Two labelled cases, and one of which only the image may be opened."""
    data = tmp_path / "Dataset001_A" / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    for name in "abc":
        image = np.random.default_rng(0).random((1, 2, 8, 8), dtype=np.float32)
        blosc2.asarray(image, urlpath=str(data / f"{name}.b2nd"))
        blosc2.asarray(np.zeros((1, 2, 8, 8), np.int8), urlpath=str(data / f"{name}_seg.b2nd"))
        (data / f"{name}.pkl").write_bytes(pickle.dumps({"class_locations": {}, **dict.fromkeys(TO_EXPORT)}))
    (data / "c_seg.b2nd").write_bytes(b"hidden")
    return [data / name for name in "abc"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read."""
    names: list[str] = []
    read = intact_cases._read

    def noted(file: Path, how: object) -> object:
        names.append(file.name)
        return read(file, how)

    monkeypatch.setattr(intact_cases, "_read", noted)
    return names


def check(cases: list[Path], channels: int = 1, labels: tuple[int, ...] = (0, 1)) -> None:
    check_cases_are_intact(cases[:2], cases[2:], channels, labels)


ALL = ["a.b2nd", "a.pkl", "a_seg.b2nd", "b.b2nd", "b.pkl", "b_seg.b2nd", "c.b2nd"]


def test_only_what_is_new_or_changed_is_read(cases: list[Path], read: list[str]) -> None:
    check(cases)
    assert sorted(read) == ALL
    read.clear()
    check(cases)
    assert read == []
    os.utime(cases[1].with_name("b.pkl"), ns=(1, 1))
    check(cases)
    assert sorted(read) == ["b.b2nd", "b.pkl", "b_seg.b2nd"]
    read.clear()
    check(cases, labels=(0, 1, 2))
    assert sorted(read) == ALL


def test_a_hidden_case_that_gets_its_labels_back_is_read(cases: list[Path], read: list[str]) -> None:
    check(cases)
    read.clear()
    shutil.copy(cases[0].with_name("a_seg.b2nd"), cases[2].with_name("c_seg.b2nd"))
    check_cases_are_intact(cases, [], 1, (0, 1))
    assert sorted(read) == ["c.b2nd", "c.pkl", "c_seg.b2nd"]


def test_a_broken_case_is_refused_each_time(cases: list[Path], read: list[str]) -> None:
    cases[0].with_name("a_seg.b2nd").write_bytes(b"garbage")
    for _ in range(2):
        with pytest.raises(InputError, match=r"a_seg\.b2nd cannot be read.*run: nnUNetv2_plan_and_preprocess -d 1"):
            check(cases)


@pytest.mark.parametrize("content", ["{", "[]", '{"channels": 1, "labels": [0, 1], "files": 3}'])
def test_a_broken_record_is_no_record(cases: list[Path], read: list[str], content: str) -> None:
    (cases[0].parent.parent / RECORD).write_text(content)
    check(cases)
    assert sorted(read) == ALL


def test_a_folder_that_cannot_be_written_is_no_hindrance(cases: list[Path], read: list[str]) -> None:
    (cases[0].parent.parent / RECORD).mkdir()
    for _ in range(2):
        check(cases)
    assert sorted(read) == sorted(2 * ALL)
