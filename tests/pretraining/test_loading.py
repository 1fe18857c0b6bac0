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


def test_a_late_batch_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a scheduler has suspended the whole training."""
    monkeypatch.setattr(loading, "PATIENCE", 1)
    lines: list[str] = []
    assert numbers(Numbers({2: 1.5, 4: 1.5}), range(6), 1, CPU, lines.append) == [0, 1, 2, 3, 4, 5]
    assert len(lines) == 2
    assert lines[0].startswith("WARNING: no batch for 1 s")


def test_workers_that_hang_end_the_training_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 1)
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"no batch came in 2 s: the workers hang\. Look at `nnunet-semcl doctor`"):
        numbers(Numbers({1: 5}), range(3), 1, CPU, lines.append)
    assert len(lines) == 1


def test_a_worker_that_dies_is_an_error_at_once() -> None:
    class Dying(Numbers):
        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        numbers(Dying(), range(3), 1, CPU, print)
