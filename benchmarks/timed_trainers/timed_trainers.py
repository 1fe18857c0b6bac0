"""Trainers of benchmarks/gpu_check.py: an epoch of each phase, whose steps are timed.

The environment variable GPU_CHECK says by a JSON object how many `steps` an epoch has and how many `unlabelled` cases
there are. Figures go into FOLD/phases.json.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch._dynamo.utils import counters

from nnunet_semcl.files.cases import Cases
from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

RUN: dict[str, Any] = json.loads(os.environ["GPU_CHECK"])
WARM_UP = RUN["steps"] // 3  # compilation, the choice of algorithms, loaders that start
PROFILED = 4  # of the last steps, which are not timed
phase.HELD_OUT_BATCHES = 2


class Stopwatch:
    """An iterator over batches that notes how long a step waited for its batch, and how long it then took.

    nnU-Net's steps and ours end with the loss on the CPU, so the GPU has nothing to do while a step waits.
    """

    def __init__(self, batches: Iterator, profile: Path) -> None:
        self.batches = batches
        self.file = profile
        self.profile = torch.profiler.profile()
        self.waits: list[float] = []
        self.steps: list[float] = []
        self.left = 0.0
        self.graphs = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def __iter__(self) -> Stopwatch:
        return self

    def __next__(self) -> Any:
        came = time.perf_counter()
        if self.left:
            self.steps.append(came - self.left)
        if len(self.steps) == WARM_UP:
            self.graphs = counters["stats"]["unique_graphs"]
        if len(self.waits) == RUN["steps"] - PROFILED:
            self.profile.start()
        batch = next(self.batches)
        self.left = time.perf_counter()
        self.waits.append(self.left - came)
        return batch

    def figures(self) -> dict[str, float]:
        """Medians in seconds, without the warm-up, and what the GPU waited of the time."""
        self.profile.stop()
        operations = self.profile.key_averages()
        # An operation's row repeats the time of its kernels, which have rows of their own.
        on_gpu = [row for row in operations if row.device_type != torch.autograd.DeviceType.CPU]
        busy = sum(row.self_device_time_total for row in on_gpu if not row.is_user_annotation) / 1e6
        keys = ("self_device_time_total", "self_cpu_time_total")
        self.file.write_text("\n".join(operations.table(sort_by=key, row_limit=25) for key in keys))
        steps, waits = self.steps[WARM_UP:-PROFILED], self.waits[WARM_UP + 1 : -PROFILED]
        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        return {
            "step_seconds": statistics.median(steps),
            "step_seconds_spread": statistics.quantiles(steps, n=4)[2] - statistics.quantiles(steps, n=4)[0],
            "first_step_seconds": self.steps[0],
            "waiting_share": sum(waits) / (sum(waits) + sum(steps)),
            "gpu_seconds": busy / PROFILED,
            "peak_gib": memory,
            "recompilations": counters["stats"]["unique_graphs"] - self.graphs,
        }


class TimedPhase(PretrainingPhase):
    """A phase with a stopwatch."""

    watch: Stopwatch | None = None
    figures: dict[str, float]

    def _batches_by_epoch(self, first_epoch: int) -> Iterator[Stopwatch]:
        for batches in super()._batches_by_epoch(first_epoch):
            self.watch = Stopwatch(batches, self.folder / f"profile_{self.name}.txt")
            yield self.watch

    def _held_out_figures(self) -> dict[str, float]:
        if self.watch is not None:
            self.figures = self.watch.figures()  # before held-out batches add to the profile and the memory
        started = time.perf_counter()
        figures = super()._held_out_figures()
        self.held_out_seconds = (time.perf_counter() - started) / phase.HELD_OUT_BATCHES
        return figures


class TimedTrainer(PretrainingTrainer):
    """Each phase and nnU-Net's training for one epoch; few unlabelled cases, no validation of whole cases."""

    num_iterations_per_epoch = RUN["steps"]
    num_val_iterations_per_epoch = 2
    seed = 0
    disable_checkpointing = True

    def initialize(self) -> None:
        super().initialize()
        self.timed: dict[str, dict[str, float]] = {}

    def find_unlabelled_images(self, configuration: ConfigurationManager) -> dict[str, Path]:
        return dict(islice(super().find_unlabelled_images(configuration).items(), RUN["unlabelled"]))

    def build_phase(self, *args: Any, **options: Any) -> PretrainingPhase:
        built = super().build_phase(*args, **options)
        return TimedPhase(**{field.name: getattr(built, field.name) for field in fields(built)})

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        for timed in super().pretraining_phases():
            assert isinstance(timed, TimedPhase)
            yield timed
            self.timed[timed.name] = timed.figures | {"held_out_batch_seconds": timed.held_out_seconds}

    def on_train_start(self) -> None:
        super().on_train_start()
        self.untimed = self.dataloader_train
        self.dataloader_train = Stopwatch(self.untimed, Path(self.output_folder, "profile_training.txt"))

    def on_train_epoch_end(self, train_outputs: list) -> None:
        self.timed["training"] = self.dataloader_train.figures()
        super().on_train_epoch_end(train_outputs)

    def on_train_end(self) -> None:
        self.dataloader_train = self.untimed
        super().on_train_end()
        file = Path(self.output_folder, "phases.json")
        file.write_text(json.dumps(self.timed | {"patch_size": list(self.configuration_manager.patch_size)}))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        pass


class TimedSemCL(TimedTrainer, SemCLTrainer):
    """Coarse training, contrast, nnU-Net's training."""

    num_epochs = 3

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        return {"coarse": 1 / 3, "pretraining": 1 / 3}, "an epoch each"

    def _pseudo_labelled(self, *args: Any) -> list[Cases]:
        started = time.perf_counter()
        cases = super()._pseudo_labelled(*args)
        seconds = time.perf_counter() - started
        self.timed["masks"] = {"seconds": seconds, "cases": len(self.unlabelled_images())}
        return cases


class TimedIDEAL(TimedTrainer, IDEALTrainer):
    """Dense contrast, training with two decoders."""

    num_epochs = 2

    def epoch_shares(self, settings: IDEALSettings) -> tuple[dict[str, float], str]:
        return {"pretraining": 1 / 2}, "an epoch each"
