"""A training that a launcher runs, and what every launcher does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

WAITING, QUEUED, RUNNING, ENDED = "waiting", "queued", "running", "ended"


@dataclass
class Training:
    """A training of one trainer on one fold.

    Attributes:
        trainer, fold: as nnU-Net knows them.
        folder: of the fold in nnUNet_results.
        log: what the training prints.
        command: that starts it, or continues it where it was interrupted.
        state: what its launcher knows: WAITING, QUEUED, RUNNING or ENDED.
        reason: why it ended, if the launcher knows.
    """

    trainer: str
    fold: str
    folder: Path
    log: Path
    command: Sequence[str]
    state: str = WAITING
    reason: str = ""


class Launcher(Protocol):
    """Runs trainings, and keeps their states up to date."""

    def launch(self, trainings: Sequence[Training]) -> None:
        """Takes over trainings that are not finished. Called once."""

    def look(self) -> None:
        """Updates the states of all trainings, and starts what can be started."""

    def leave(self) -> str:
        """Called when the command is stopped. Returns a sentence on what becomes of the trainings."""
