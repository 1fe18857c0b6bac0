from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.methods.semcl.image_labels import FILE, read_image_labels


def test_no_file_means_no_labels(tmp_path: Path) -> None:
    assert read_image_labels(tmp_path, {"a"}) == {}


def test_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"a": "portal venous", "b": "non-contrast"}))
    assert read_image_labels(tmp_path, {"a", "b", "c"}) == {"a": "portal venous", "b": "non-contrast"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "broken JSON"),
        ("[]", "image_labels.json: a list is not an object of image labels.*portal venous"),
        ("3", "image_labels.json: a number is not an object of image labels"),
        ('{"a": 1}', "image_labels.json, a: 1 is not a text.*portal venous"),
        ('{"x": "portal venous"}', "image_labels.json: x is not one of the 1 preprocessed cases.*Correct its name"),
    ],
)
def test_an_invalid_file_is_reported(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=message):
        read_image_labels(tmp_path, {"a"})
