from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.schedule import TRAINING, divide_epochs

SHARES = st.lists(st.floats(0, 0.25), min_size=1, max_size=3)


@given(total=st.integers(4, 2000), shares=SHARES)
def test_no_epoch_is_lost_and_no_phase_is_left_out(total: int, shares: list[float]) -> None:
    by_phase = {f"phase {i}": share for i, share in enumerate(shares)}
    epochs = divide_epochs(total, by_phase)
    assert list(epochs) == [*by_phase, TRAINING]
    assert sum(epochs.values()) == total
    assert epochs[TRAINING] >= 1
    for phase, share in by_phase.items():
        assert (epochs[phase] >= 1) == (share > 0)
        assert epochs[phase] <= 1 or abs(epochs[phase] - share * total) <= 0.5 or total < 10


@pytest.mark.parametrize(
    ("total", "expected"), [(3, (1, 1, 1)), (4, (1, 2, 1)), (5, (1, 3, 1)), (20, (5, 14, 1)), (1000, (250, 749, 1))]
)
def test_few_epochs(total: int, expected: tuple[int, int, int]) -> None:
    assert tuple(divide_epochs(total, {"coarse": 0.25, "pretraining": 0.75}).values()) == expected


def test_fewer_epochs_than_phases_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 epochs are too few for coarse, pretraining, training. Use at least 3"):
        divide_epochs(2, {"coarse": 0.25, "pretraining": 0.75})
    assert divide_epochs(1, {"pretraining": 0.0}) == {"pretraining": 0, TRAINING: 1}
