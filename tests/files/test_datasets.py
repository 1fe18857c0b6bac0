"""Data sets by name and by number."""

from pathlib import Path

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import find_dataset, id_of, label_values


@pytest.mark.parametrize(("name", "number"), [("Dataset004_A", 4), ("Dataset123_B", 123), ("Dataset1234_C", 1234)])
def test_ids_of_three_digits_and_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    for other in ("Dataset004_A", "Dataset123_B", "Dataset1234_C", "Dataset12_not_nnunets"):
        (tmp_path / other).mkdir()
    for wanted in (name, str(number), f"{number:03d}"):
        assert find_dataset(wanted).name == name
    assert id_of(tmp_path / name) == number
    with pytest.raises(
        InputError, match="no data set matches '12', available: Dataset004_A, Dataset1234_C, Dataset123_B"
    ):
        find_dataset("12")


@pytest.mark.parametrize(
    ("labels", "order", "expected"),
    [
        ({"background": 0, "a": 1, "b": [2], "ignore": 3}, None, {"a": 1, "b": 2}),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1, 2], {"label 1": 1, "label 2": 2}),
    ],
)
def test_every_foreground_label_has_a_name(labels: dict, order: list[int] | None, expected: dict) -> None:
    assert label_values(LabelManager(labels, order)) == expected
