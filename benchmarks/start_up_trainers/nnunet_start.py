"""nnU-Net's own trainer and the clock of benchmarks/start_up.py.

nnU-Net looks through the modules of a folder by name and stops at the first that has the trainer: this one comes first,
so that nnU-Net's start does not load this package.

The environment variable START_UP, a JSON object, says when the process was `started`, after how many optimiser `steps`
it ends, and to which `file` the figures go.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim.optimizer import register_optimizer_step_post_hook

RUN: dict[str, Any] = json.loads(os.environ["START_UP"])
FIGURES: dict[str, Any] = {"steps": []}


def moment() -> dict[str, float]:
    """Seconds since the process was started, those of the CPU, and the most memory that it has had."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": time.time() - RUN["started"], "cpu": usage.ru_utime + usage.ru_stime, "mib": mib}


def write_figures() -> None:
    temporary = Path(RUN["file"]).with_suffix(".new")
    temporary.write_text(json.dumps(FIGURES))
    temporary.replace(RUN["file"])


def after_step(*_: object) -> None:
    FIGURES["steps"].append(moment())
    write_figures()
    if len(FIGURES["steps"]) == RUN["steps"]:
        os._exit(0)  # as a kill would end it; the script ends the workers


register_optimizer_step_post_hook(after_step)


class StartNNUNet(nnUNetTrainer):
    """nnU-Net's own."""

    def on_train_start(self) -> None:
        super().on_train_start()
        FIGURES["ready"] = moment()["seconds"]
