import json

import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.methods.semcl.image_labels import FILE, read_image_labels


def test_no_file_means_no_labels(tmp_path):
    assert read_image_labels(tmp_path, {"a"}) == {}


def test_labels_are_read(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"a": "portal venous", "b": "non-contrast"}))
    assert read_image_labels(tmp_path, {"a", "b", "c"}) == {"a": "portal venous", "b": "non-contrast"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "broken JSON"),
        ("[]", "a JSON list.*an object like"),
        ('{"a": 1}', "image_labels.json, a: found 1"),
        ('{"x": "portal venous"}', "image_labels.json, x: found no such case.*one of the 1 preprocessed"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=message):
        read_image_labels(tmp_path, {"a"})
