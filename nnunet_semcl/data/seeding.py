"""Random numbers that depend only on a seed and a batch number, and the global random states for --c."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int, number: int) -> Iterator[np.random.Generator]:
    """Yields a generator, and seeds numpy's and torch's global ones, which nnU-Net's loader and transforms use.

    The previous global states are restored at the end.
    """
    state = np.random.get_state()
    sequence = np.random.SeedSequence((seed, number))
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(sequence.generate_state(4))
            torch.random.default_generator.manual_seed(int(sequence.generate_state(1)[0]))
            yield np.random.default_rng(sequence)
    finally:
        np.random.set_state(state)


def random_states() -> dict[str, Any]:
    """Returns the states of Python's, numpy's and torch's global generators, including all GPUs.

    They are plain values and tensors, so a checkpoint with them still loads with weights_only=True.
    """
    generator, key, *rest = _numpy_state()
    return {
        "python": random.getstate(),
        "numpy": (generator, torch.from_numpy(key.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restores what `random_states` returned."""
    random.setstate(states["python"])
    generator, key, *rest = states["numpy"]
    np.random.set_state((generator, key.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    # Another machine may have fewer GPUs, or none.
    for gpu, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state.cpu(), gpu)


def _numpy_state() -> tuple[str, np.ndarray, int, int, float]:
    state = np.random.get_state()
    assert isinstance(state, tuple), "numpy's global generator is a Mersenne Twister"
    return state
