"""What every row of these tables asserts: our own error, with the words that a user needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nnunet_semcl.errors import InputError


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Passes where an InputError comes in one line that has all the words: file or key, what was found, the fix."""
    with pytest.raises(InputError) as error:
        yield
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
