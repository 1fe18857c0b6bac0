"""How the epochs of a training are divided among its phases, and the learning rate of the last of them."""

from __future__ import annotations

from typing import Any

from nnunet_semcl.errors import InputError

TRAINING = "training"


def divide_epochs(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Returns the number of epochs of each phase, and of nnU-Net's training, which gets the rest.

    A phase whose share is above zero gets at least one epoch, and so does training.

    Args:
        total: epochs of all phases together.
        shares: phase -> its share of the epochs.

    Raises:
        InputError: there are fewer epochs than phases.

    >>> divide_epochs(1000, {"coarse": 0.25, "pretraining": 0.5})
    {'coarse': 250, 'pretraining': 500, 'training': 250}
    >>> divide_epochs(5, {"coarse": 0.25, "pretraining": 0.75})
    {'coarse': 1, 'pretraining': 3, 'training': 1}
    """
    phases = {name: share for name, share in shares.items() if share > 0}
    if total < len(phases) + 1:
        names = ", ".join([*phases, TRAINING])
        raise InputError(
            f"{total} epochs are too few for {names}",
            f"Use at least {len(phases) + 1} epochs, or leave a phase out by the setting shares.",
        )
    epochs: dict[str, int] = {}
    for i, (name, share) in enumerate(phases.items()):
        later = len(phases) - i  # phases after this one, training included
        epochs[name] = min(max(1, round(share * total)), total - sum(epochs.values()) - later)
    return {name: epochs.get(name, 0) for name in shares} | {TRAINING: total - sum(epochs.values())}


class ContinuedSchedule:
    """nnU-Net's learning rate schedule, of which the first epochs are over when training begins.

    An epoch has the rate of its end, so that the last one has 0: it only validates.

    Args:
        schedule: of all epochs.
        past: number of epochs before.
    """

    def __init__(self, schedule: Any, past: int) -> None:
        self.schedule = schedule
        self.past = past

    def step(self, epoch: int) -> None:
        """Sets the learning rate of an epoch of training, counted from 0."""
        self.schedule.step(self.past + epoch + 1)
