"""The pretraining phase: optimiser, loop, checkpoint, resume and log. It does not depend on the method it runs."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from tqdm import tqdm

from nnunet_semcl.distributed import all_gather_object, rank, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely, load_weights, save_atomically
from nnunet_semcl.pretraining.history import Record, write_history
from nnunet_semcl.pretraining.loading import load_batches
from nnunet_semcl.pretraining.task import PretrainingTask

MAX_GRADIENT_NORM = 12  # as in nnU-Net
HELD_OUT_BATCHES = 16
MOST_OVERFLOWS = 20  # steps in a row; the scaler halves its scale at each, from 2**16


def checkpoint_name(phase: str) -> str:
    return f"checkpoint_{phase}.pth"


@dataclass
class PretrainingPhase:
    """Trains a task on batches, which pretrains the task's network.

    Attributes:
        name: appears in file names and log lines: checkpoint_NAME.pth, NAME_log.jsonl, NAME.png.
        task: turns a batch into a loss.
        batches: item i is batch number i, a dict of tensors; there is no last one.
        held_out: the same from cases that the phase does not train on, for the log only; None if there are none.
        epochs, iterations_per_epoch: length of the phase.
        learning_rate, weight_decay: for AdamW, with a one-cycle schedule that warms up over the first tenth.
        folder: an existing folder for the checkpoint, the log and the plot.
        device: where the task's network is.
        settings: plain values; a phase resumes only from a checkpoint with the same settings.
        workers: number of processes that prepare batches; with 0 the main process does it.
        write_checkpoints: False writes no checkpoint (nnU-Net's --disable_checkpointing).
        log: writes a line to nnU-Net's log file.
        compile: whether to use torch.compile.
        track: gets the figures of each epoch, besides the log.
    """

    name: str
    task: PretrainingTask
    batches: Dataset
    held_out: Dataset | None
    epochs: int
    iterations_per_epoch: int
    learning_rate: float
    weight_decay: float
    folder: Path
    device: torch.device
    settings: dict[str, Any]
    workers: int
    write_checkpoints: bool
    log: Callable[[str], None]
    compile: bool = False
    track: Callable[[Record], None] | None = None

    def __post_init__(self) -> None:
        forward: nn.Module = cast("nn.Module", torch.compile(self.task)) if self.compile else self.task
        if world_size() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            forward = DistributedDataParallel(forward, devices, find_unused_parameters=True)
        self.forward = forward
        parameters = [p for p in self.task.parameters() if p.requires_grad]
        # One kernel for all weights: a loop over them takes longer than nnU-Net's SGD.
        self.optimizer = torch.optim.AdamW(
            parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        steps = self.epochs * self.iterations_per_epoch + 1
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=self.learning_rate,
            total_steps=steps,
            pct_start=max(0.1, 2 / steps),  # a warm-up of zero steps would divide by zero
            cycle_momentum=False,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")
        self.records: list[Record] = []
        self.overflows = 0  # in a row

    @property
    def checkpoint(self) -> Path:
        return self.folder / checkpoint_name(self.name)

    def run(self) -> None:
        """Runs the remaining epochs and writes the log, the plot and the checkpoint after each.

        Raises:
            RuntimeError: the loss is no longer finite; the checkpoint of the last good epoch remains.
        """
        if not self.records:
            self.records.append({"epoch": 0, **self._held_out_figures()})
            self._save()  # from now on --c continues this run, not an earlier one
        first = int(self.records[-1]["epoch"])
        if first == self.epochs:
            return  # without starting workers
        for epoch, batches in enumerate(self._batches_by_epoch(first), start=first + 1):
            started = time.time()
            learning_rate = float(self.schedule.get_last_lr()[0])
            figures = self._train(batches, epoch)
            figures |= self._held_out_figures()
            self.records.append(
                {"epoch": epoch, "learning_rate": learning_rate, "seconds": time.time() - started, **figures}
            )
            # The checkpoint holds the records too: if the log is lost here, the next epoch writes it again.
            self._save()
            if rank() == 0:
                write_history(self.folder, self.name, self.records)
            if self.track is not None:
                self.track(self.records[-1])
            self._log_epoch()

    def resume(self) -> None:
        """Restores the state that the checkpoint holds.

        Raises:
            InputError: the checkpoint cannot be read, or is from other settings or another network.
        """
        content = load_safely(self.checkpoint, self.device, set(self._state()))
        differing = sorted(
            k
            for k in self.settings.keys() | content["settings"].keys()
            if self.settings.get(k) != content["settings"].get(k)
        )
        if differing:
            previous = ", ".join(f"{k} = {content['settings'].get(k)}" for k in differing)
            present = ", ".join(f"{k} = {self.settings.get(k)}" for k in differing)
            raise InputError(
                f"{self.checkpoint}: the run was started with {previous}, but now {present}",
                "Go back to them (what the plans do not set follows from the cases), or start again without --c.",
            )
        load_weights(self.task, content["task"], self.checkpoint)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        self.records = content["records"]

    def _state(self) -> dict[str, Any]:
        return {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "records": self.records,
            "settings": self.settings,
        }

    def _save(self) -> None:
        if self.write_checkpoints and rank() == 0:
            save_atomically(self._state(), self.checkpoint)

    def _batches_by_epoch(self, first_epoch: int) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
        steps = range(first_epoch * self.iterations_per_epoch, self.epochs * self.iterations_per_epoch)
        loader = self._load(self.batches, steps)
        for _ in range(first_epoch, self.epochs):
            yield islice(loader, self.iterations_per_epoch)
        next(loader, None)  # reaching the end stops the workers before nnU-Net starts its own

    def _load(self, batches: Dataset, steps: Iterable[int]) -> Iterator[dict[str, torch.Tensor]]:
        return load_batches(batches, steps, self.workers, self.device, self.log)

    @cached_property
    def _held_out_batches(self) -> list[dict[str, torch.Tensor]]:
        """Made once, by the workers: to make them after each epoch took as long as training for half of it."""
        return [] if self.held_out is None else list(self._load(self.held_out, range(HELD_OUT_BATCHES)))

    def _train(self, batches: Iterator[dict[str, torch.Tensor]], epoch: int) -> dict[str, float]:
        """Trains for one epoch and returns the means of the task's figures."""
        self.task.train()
        sums: dict[str, float] = defaultdict(float)
        finite = 0
        title = f"{self.name.capitalize()} epoch {epoch}/{self.epochs}"
        bar = tqdm(
            batches, title, self.iterations_per_epoch, leave=False, disable=rank() > 0 or not sys.stderr.isatty()
        )
        for batch in bar:
            self.optimizer.zero_grad(set_to_none=True)
            figures = self._forward(batch)
            self.scaler.scale(figures["loss"]).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.parameters(), MAX_GRADIENT_NORM)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            loss = figures["loss"].item()
            bar.set_postfix(loss=f"{loss:.3f}")
            if math.isfinite(loss):
                finite, self.overflows = finite + 1, 0
                for name, figure in figures.items():
                    sums[name] += figure.item()
                continue
            # In half precision a loss may overflow; the scaler then leaves out the step and tries a smaller scale.
            self.overflows += 1
            if not self.scaler.is_enabled() or self.overflows == MOST_OVERFLOWS:
                raise RuntimeError(
                    f"{title}: the loss is {loss}. The state after epoch {epoch - 1} is kept in {self.checkpoint}. "
                    "Lower learning_rate, or check the images for NaN and infinite values."
                )
        return _means(sums, max(1, finite))

    @torch.no_grad()
    def _held_out_figures(self) -> dict[str, float]:
        self.task.eval()
        sums: dict[str, float] = defaultdict(float)
        for batch in self._held_out_batches:
            for name, figure in self._forward(batch).items():
                sums[f"held_out_{name}"] += figure.item()
        return _means(sums, len(self._held_out_batches))

    def _forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        here = self.task.stays_on_cpu
        on_device = {name: entry if name in here else _to(entry, self.device) for name, entry in batch.items()}
        # As in nnU-Net, mixed precision on CUDA only: autocast is slow on the CPU and missing on mps.
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return self.forward(on_device)

    def _log_epoch(self) -> None:
        record = self.records[-1]
        self.log("")
        self.log(f"{self.name.capitalize()} epoch {record['epoch']} of {self.epochs}")
        self.log(f"Current learning rate: {record['learning_rate']:.5f}")
        names = [k for k in record if k not in ("epoch", "learning_rate", "seconds")]
        for name in names:
            self.log(f"{self.name} {name.replace('held_out_', 'held-out ')} {record[name]:.4f}")
        self.log(f"Epoch time: {record['seconds']:.2f} s")


def _means(sums: dict[str, float], steps: int) -> dict[str, float]:
    """Means over steps and processes."""
    all_sums = all_gather_object(dict(sums))
    return {name: sum(each[name] for each in all_sums) / len(all_sums) / steps for name in sums}


def _to(entry: torch.Tensor | list[torch.Tensor], device: torch.device) -> torch.Tensor | list[torch.Tensor]:
    if isinstance(entry, list):
        return [tensor.to(device, non_blocking=True) for tensor in entry]
    return entry.to(device, non_blocking=True)
