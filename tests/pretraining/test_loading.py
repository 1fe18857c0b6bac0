from __future__ import annotations

import os
import signal
import time
from itertools import count, islice

import pytest
import torch
from torch.utils.data import Dataset

from nnunet_semcl.pretraining import loading
from nnunet_semcl.pretraining.loading import load_batches

CPU = torch.device("cpu")


class Numbers(Dataset):
    """Batch i holds i; making one of `slow` takes so many seconds."""

    def __init__(self, slow: dict[int, float] | None = None) -> None:
        self.slow = slow or {}

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        time.sleep(self.slow.get(number, 0))
        return {"number": torch.tensor(number)}


def numbers(*args: object, **options: object) -> list[int]:
    return [int(batch["number"]) for batch in load_batches(*args, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_come_in_order_and_end_with_the_steps(workers: int) -> None:
    assert numbers(Numbers(), range(3, 8), workers, CPU, print) == [3, 4, 5, 6, 7]
    endless = load_batches(Numbers(), count(5), workers, CPU, print)
    assert [int(batch["number"]) for batch in islice(endless, 3)] == [5, 6, 7]


def test_each_process_of_a_training_gets_batches_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "world_size", lambda: 4)
    monkeypatch.setattr(loading, "rank", lambda: 3)
    assert numbers(Numbers(), range(3), 0, CPU, print) == [3, 7, 11]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOOK_EVERY", 1)
    monkeypatch.setattr(loading, "PATIENCE", 2)


@pytest.mark.usefixtures("impatient")
def test_a_late_batch_is_told_and_waited_for() -> None:
    lines: list[str] = []
    assert numbers(Numbers({1: 1.5, 2: 3}), range(4), 1, CPU, lines.append) == [0, 1, 2, 3]
    assert lines == ["WARNING: no batch for 2 s. Do the workers lack shared memory? See `nnunet-semcl doctor`."]


@pytest.mark.usefixtures("impatient")
def test_workers_that_hang_end_the_training_with_advice() -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"no batch came in 4 s: the workers hang\. Look at `nnunet-semcl doctor`"):
        numbers(Numbers({1: 20}), range(3), 1, CPU, lines.append)
    assert len(lines) == 1


def test_a_worker_that_dies_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its signal gets lost, as when a handler of another one was running."""
    monkeypatch.setattr(loading, "LOOK_EVERY", 1)
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._set_SIGCHLD_handler", lambda: None)

    class Dying(Numbers):
        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        numbers(Dying(), range(3), 1, CPU, print)
