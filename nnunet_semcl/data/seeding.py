"""Random numbers that depend on a seed and a batch's number alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, number: int) -> Iterator[np.random.Generator]:
    """Gives a generator, and seeds numpy's and torch's global ones, which nnU-Net's loader and transforms draw from.

    Afterwards the global ones are as they were.
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
