"""SemCLTrainer for benchmarks/start_up.py: phases of one step, and masks that are timed.

START_UP also says how many `masks` are predicted (null: all), whether by the `network`, how many batches are `held_out`
(null: as many as in a real training), and which `levels` of intensity the classes have. The network's prediction takes
its time, but it has learned nothing: the classes of its logits come from the intensities, so that what is done with the
masks has masks to work on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from nnunet_start import FIGURES, RUN, moment, write_figures
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.phase import PretrainingPhase

SHARPNESS = 50  # of the logits: a voxel with an organ's own intensity is sure to be of it
predict = nnUNetPredictor.predict_sliding_window_return_logits
spent = {"network": 0.0, "levels": 0.0}


def timed_logits(self: nnUNetPredictor, image: torch.Tensor) -> torch.Tensor:
    started = time.perf_counter()
    if RUN["network"]:
        logits = predict(self, image)
    else:
        logits = torch.empty((len(RUN["levels"]), *image.shape[1:]), dtype=torch.half)  # as nnU-Net's
    predicted = time.perf_counter()
    with torch.inference_mode():  # nnU-Net's logits cannot be changed elsewhere
        for of_class, level in zip(logits, RUN["levels"], strict=True):
            of_class.copy_((image[0] - level).square_().mul_(-SHARPNESS))
    spent["network"] += predicted - started
    spent["levels"] += time.perf_counter() - predicted
    return logits


nnUNetPredictor.predict_sliding_window_return_logits = timed_logits
phase.HELD_OUT_BATCHES = RUN["held_out"] or phase.HELD_OUT_BATCHES


class StartSemCL(SemCLTrainer):
    """Coarse training, contrast and nnU-Net's training, a step each."""

    num_epochs = 3
    num_iterations_per_epoch = 1
    most_unlabelled: int | None = None

    def epoch_shares(self, settings: Any) -> tuple[dict[str, float], str]:
        return {"coarse": 1 / 3, "pretraining": 1 / 3}, "an epoch each"

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        self.most_unlabelled = RUN["masks"]  # all cases have been looked at
        for built in super().pretraining_phases():
            if not FIGURES["steps"]:
                FIGURES["ready"] = moment()["seconds"]
            yield built

    def find_unlabelled_images(self, configuration: ConfigurationManager) -> dict[str, Path]:
        return dict(islice(super().find_unlabelled_images(configuration).items(), self.most_unlabelled))

    def _pseudo_labelled(self, *args: Any) -> list:
        started = time.perf_counter()
        cases = super()._pseudo_labelled(*args)
        seconds = time.perf_counter() - started - spent["levels"]
        number = len(self.unlabelled_images())
        FIGURES["masks"] = {"number": number, "all": seconds, "network": spent["network"], "mib": moment()["mib"]}
        write_figures()
        return cases
