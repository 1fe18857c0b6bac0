"""How far a fold's training is, read from the files that nnU-Net and our phases write into its folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

VALIDATION = "validation"
NUMBER = r"(?:np\.float\d+\()?(\d+\.\d+(?:e-\d+)?|nan)"


@dataclass(frozen=True)
class Progress:
    """What the newest log says.

    Attributes:
        phase: of pretraining, or training or validation; empty before the first epoch.
        epoch: the present one in this phase, from 1.
        epochs: of this phase; 0 if unknown.
        pseudo_dice: mean over the classes in nnU-Net's last epoch; None before.
        seconds_left: of training, by the epochs so far; None if unknown.
        dice: mean validation Dice of a finished fold; None before.
    """

    phase: str = ""
    epoch: int = 0
    epochs: int = 0
    pseudo_dice: float | None = None
    seconds_left: float | None = None
    dice: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.dice is not None


def read_progress(fold: Path) -> Progress:
    """Reads a fold's folder, which may not exist yet."""
    summary = fold / "validation" / "summary.json"
    if summary.is_file():
        return Progress(VALIDATION, dice=float(json.loads(summary.read_text())["foreground_mean"]["Dice"]))
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda log: log.stat().st_mtime)
    return parse_log(logs[-1].read_text(errors="replace"), _training_epochs(fold)) if logs else Progress()


def parse_log(text: str, training_epochs: int) -> Progress:
    """Reads a log.

    Args:
        text: of the log.
        training_epochs: of nnU-Net's training, which its log does not say.
    """
    phase, epoch, pseudo_dice = "", 0, None
    epochs = {"training": training_epochs}
    seconds = []
    for line in text.splitlines():
        if match := re.search(r"\d+ epochs in all: (.*?) \(", line):
            epochs |= {name: int(number) for number, name in re.findall(r"(\d+) of (\w+)", match[1])}
        elif match := re.search(r"(\w+) epoch (\d+) of (\d+)\s*$", line):
            # Written at its end: the next one runs.
            phase, epoch, of = match[1].lower(), int(match[2]) + 1, int(match[3])
            epochs.setdefault(phase, of)
            epoch = min(epoch, of)
        elif match := re.search(r": Epoch (\d+)\s*$", line):
            phase, epoch = "training", int(match[1]) + 1
        elif match := re.search(r"Epoch time: ([\d.]+) s", line):
            seconds.append(float(match[1]))
        elif match := re.search(r"Pseudo dice \[(.*)\]", line):
            known = [float(value) for value in re.findall(NUMBER, match[1]) if value != "nan"]
            pseudo_dice = sum(known) / len(known) if known else None
        elif ": predicting " in line:
            phase, epoch = VALIDATION, 0
    left = None
    if seconds and epochs["training"] and phase in epochs:
        names = list(epochs)
        # The log names phases in their order, but training first where it names none.
        order = [name for name in names if name != "training"] + ["training"]
        after = order[order.index(phase) + 1 :]
        left = (epochs[phase] - epoch + 1 + sum(epochs[name] for name in after)) * sum(seconds) / len(seconds)
    return Progress(phase, epoch, epochs.get(phase, 0), pseudo_dice, left)


def _training_epochs(fold: Path) -> int:
    debug = fold / "debug.json"  # nnU-Net writes it when its training starts
    try:
        return int(json.loads(debug.read_text())["num_epochs"])
    except (OSError, ValueError, KeyError):
        return 0
