"""nnU-Net's trainer with one phase in front: pretrain, drop what was added, train as always."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import nn
from torch._dynamo import OptimizedModule
from torch.utils.data import Dataset

from nnunet_semcl.errors import InputError
from nnunet_semcl.preprocessed import check_cases
from nnunet_semcl.pretraining.checkpoint import load_safely, save_atomically
from nnunet_semcl.pretraining.phase import PretrainingPhase, checkpoint_name
from nnunet_semcl.pretraining.task import PretrainingTask

PRETRAINED_NAME = "checkpoint_pretrained.pth"
BATCH_SEED = 12345  # nnU-Net's for its splits: what is drawn in pretraining is the same in every run without a seed


class PretrainingTrainer(nnUNetTrainer, ABC):
    """A method's trainer says what its phases and its settings are; all else is here or nnU-Net's.

    Attributes:
        phase_names: of all phases that the method may have.
        num_pretraining_epochs, num_pretraining_iterations_per_epoch: length of the phase.
        seed: None, or a number with which a run repeats bit for bit (on the CPU, with nnUNet_n_proc_DA=0).
    """

    phase_names: tuple[str, ...] = ("pretraining",)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_pretraining_epochs = 100
        self.num_pretraining_iterations_per_epoch = 250
        self.seed: int | None = None

    @abstractmethod
    def pretraining_settings(self) -> dict[str, Any]:
        """The method's settings as plain values, learning_rate and weight_decay among them."""

    @abstractmethod
    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        """The phases in their order; what stands between two of them runs when the former one is done."""

    def check_input(self) -> None:
        """Tells faults of data, fold and settings by an InputError, before any long work."""
        data = Path(self.preprocessed_dataset_folder)
        check_cases(data, self.configuration_name, self.plans_manager.plans_name, self.fold)
        self.pretraining_settings()

    def initialize(self) -> None:
        self.check_input()
        self._seed_everything()
        super().initialize()

    def run_training(self) -> None:
        if not self.was_initialized:
            self.initialize()
        # A checkpoint of nnU-Net's own that --c loaded holds weights that went through pretraining already.
        if self.current_epoch == 0:
            self.pretrain()
            self._seed_everything()
        super().run_training()

    def pretrain(self) -> None:
        """Runs the phases, takes them up where they were interrupted, or takes their result where they are done."""
        if self.is_ddp:
            raise InputError("-num_gpus", "more than one", "1", "Pretraining runs on one GPU: leave -num_gpus out.")
        folder = Path(self.output_folder)
        if self.logger.resume and not self._interrupted() and (folder / PRETRAINED_NAME).is_file():
            self._load_pretrained(folder / PRETRAINED_NAME)
            return
        if not self.logger.resume:
            self.discard_interrupted_run()
        for phase in self.pretraining_phases():
            if phase.checkpoint.is_file():
                phase.resume()
                done = phase.records[-1]["epoch"]
                self.print_to_log_file(f"{phase.name.capitalize()} goes on after epoch {done}: {phase.checkpoint}")
            phase.run()
            phase.task.remove_additions()
        if not self.disable_checkpointing:
            self._save_pretrained(folder / PRETRAINED_NAME, phase.settings)
            for name in self.phase_names:
                (folder / checkpoint_name(name)).unlink(missing_ok=True)
        self.print_to_log_file("Pretraining done.\n")

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        # Without --c nnU-Net starts anew beside the checkpoints of an earlier run; --c must not fall back to those.
        if self.logger.resume and self._interrupted():
            self.print_to_log_file(
                "The last run was interrupted in pretraining: nnU-Net's checkpoint is older, not used"
            )
            return
        super().load_checkpoint(filename_or_checkpoint)

    def discard_interrupted_run(self) -> None:
        """Removes what an interrupted run left, before another one starts from the beginning."""
        for name in self.phase_names:
            Path(self.output_folder, checkpoint_name(name)).unlink(missing_ok=True)

    def _interrupted(self) -> bool:
        return any(Path(self.output_folder, checkpoint_name(name)).is_file() for name in self.phase_names)

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net writes in place; a kill in the middle would cost the only checkpoint.
        temporary = os.path.join(os.path.dirname(filename), "." + os.path.basename(filename))
        super().save_checkpoint(temporary)
        if os.path.isfile(temporary):
            os.replace(temporary, filename)

    def build_phase(
        self,
        name: str,
        task: PretrainingTask,
        batches: Dataset,
        held_back: Dataset | None,
        epochs: int,
        settings: dict[str, Any],
    ) -> PretrainingPhase:
        """A phase over the planned network, of num_pretraining_iterations_per_epoch steps an epoch.

        Args:
            settings: plain values that the phase depends on, learning_rate and weight_decay among them.
        """
        settings = {
            "trainer": type(self).__name__,
            "epochs": epochs,
            "iterations": self.num_pretraining_iterations_per_epoch,
            **settings,
            "seed": self.batch_seed,
        }
        self.print_to_log_file(f"\n{name.capitalize()} by {type(task).__name__}:", settings, add_timestamp=False)
        return PretrainingPhase(
            name=name,
            task=task,
            batches=batches,
            held_back=held_back,
            epochs=epochs,
            iterations_per_epoch=self.num_pretraining_iterations_per_epoch,
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            folder=Path(self.output_folder),
            device=self.device,
            settings=settings,
            workers=get_allowed_n_proc_DA(),
            write_checkpoints=not self.disable_checkpointing,
            log=self.print_to_log_file,
        )

    @property
    def batch_seed(self) -> int:
        return BATCH_SEED if self.seed is None else self.seed

    @property
    def planned_network(self) -> nn.Module:
        """nnU-Net's network without the wrapper of torch.compile."""
        return self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network

    def _load_pretrained(self, path: Path) -> None:
        content = load_safely(path, self.device, {"network_weights"})
        self.planned_network.load_state_dict(content["network_weights"])
        self.print_to_log_file(f"Pretraining was done already: weights from {path}")

    def _save_pretrained(self, path: Path, settings: dict[str, Any]) -> None:
        save_atomically(
            {
                "network_weights": self.planned_network.state_dict(),
                "trainer_name": type(self).__name__,
                "init_args": self.my_init_kwargs,
                "pretraining": settings,
            },
            path,
        )

    def _seed_everything(self) -> None:
        if self.seed is not None:
            random.seed(self.seed)
            np.random.seed(self.seed)
            torch.manual_seed(self.seed)
