"""The assertion for every row of these tables: our own error, with the words that a user needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nnunet_semcl.errors import InputError


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Expects an InputError of one line that contains all the words: file or key, what was found, the fix."""
    assert all(len(word) > 1 for word in words), "the letters of a text, which was meant to be one of several"
    with pytest.raises(InputError) as error:
        yield
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
