"""nnU-Net's trainer, made safe to kill: at most one epoch is lost. With a seed, a run repeats bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_semcl.data.seeding import random_states, set_random_states
from nnunet_semcl.distributed import all_gather_object, world_size
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.checkpoints import load_safely, load_weights
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer
from nnunet_semcl.pretraining.interruption import exclusive, on_sigterm

CHECKPOINT_KEY = "nnunet_semcl"  # our own state in nnU-Net's checkpoints


class InterruptibleTrainer(ClassAttributeTrainer):
    """Writes an atomic checkpoint after each epoch, with the random states; locks the fold; handles SIGTERM.

    Attributes:
        seed: a number makes runs repeat bit for bit, on the CPU and with nnUNet_n_proc_DA=0; None seeds nothing.
    """

    network: nn.Module
    seed: int | None = None
    save_every = 1  # nnU-Net's default is 50
    _states_to_restore: dict[str, Any] | None = None

    def initialize(self) -> None:
        self.seed_everything()
        super().initialize()

    def on_train_start(self) -> None:
        if self.current_epoch == 0:  # --c restores the states of its checkpoint
            self.seed_everything()
        super().on_train_start()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self.exclusive():
            super().perform_actual_validation(save_probabilities)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        if not self.was_initialized:
            self.initialize()
        needed = {"network_weights", "optimizer_state", "current_epoch", "logging"}
        content = load_safely(Path(filename_or_checkpoint), self.device, needed)
        load_weights(self.planned_network, content["network_weights"], Path(filename_or_checkpoint))
        self.load_additions(content.get(CHECKPOINT_KEY, {}), filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)
        # nnU-Net writes checkpoint_latest before it checks whether the epoch was the best one.
        self._best_ema = max(content["logging"]["ema_fg_dice"])

    def save_checkpoint(self, filename: str) -> None:
        additions = self.checkpoint_additions()
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # writes nothing
            return
        # nnU-Net overwrites the file in place: a kill at that moment would destroy the only checkpoint.
        with atomic_write(Path(filename)) as temporary, _saved_with({CHECKPOINT_KEY: additions}):
            super().save_checkpoint(str(temporary))

    def checkpoint_additions(self) -> dict[str, Any]:
        """The state that --c needs in addition to nnU-Net's own."""
        return {"random_states": all_gather_object(random_states())}

    def load_additions(self, additions: dict[str, Any], file: str) -> None:
        """Restores what `checkpoint_additions` saved; a checkpoint by nnU-Net itself has none."""
        states = additions.get("random_states", [])
        if len(states) == world_size():
            self._states_to_restore = states[self.local_rank]

    def on_train_epoch_start(self) -> None:
        # Not earlier: setting up the data loaders draws random numbers too.
        if self._states_to_restore is not None:
            set_random_states(self._states_to_restore)
            self._states_to_restore = None
        super().on_train_epoch_start()

    @property
    def planned_network(self) -> nn.Module:
        """nnU-Net's network without the wrappers of DistributedDataParallel and torch.compile."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Locks the fold's folder, and on SIGTERM logs how to continue."""
        lock = exclusive(Path(self.output_folder), self.print_to_log_file) if self.local_rank == 0 else nullcontext()
        with lock, on_sigterm(self._log_how_to_continue):
            yield

    def seed_everything(self) -> None:
        """Seeds Python's, numpy's and torch's generators, if the trainer has a seed."""
        if self.seed is not None:
            seed = self.seed + self.local_rank  # each process augments differently
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)

    def _log_how_to_continue(self) -> None:
        self.print_to_log_file(
            f"SIGTERM. The state after the last epoch is in {self.output_folder}: "
            "continue with the same command and --c"
        )


@contextmanager
def _saved_with(additions: dict[str, Any]) -> Iterator[None]:
    """Adds entries to what torch.save writes: nnU-Net makes its checkpoint and writes it in one method."""
    save = torch.save

    def save_more(content: Any, *args: Any, **options: Any) -> None:
        save({**content, **additions}, *args, **options)

    torch.save = save_more  # type: ignore[assignment]  # with fewer names of arguments
    try:
        yield
    finally:
        torch.save = save
