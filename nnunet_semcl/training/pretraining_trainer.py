"""nnU-Net's trainer with one phase in front: pretrain, drop what was added, train as always."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import nn
from torch._dynamo import OptimizedModule
from torch.utils.data import Dataset

from nnunet_semcl.errors import InputError
from nnunet_semcl.preprocessed import check_cases
from nnunet_semcl.pretraining.checkpoint import load_safely, save_atomically
from nnunet_semcl.pretraining.phase import CHECKPOINT_NAME, PretrainingPhase
from nnunet_semcl.pretraining.task import PretrainingTask

PRETRAINED_NAME = "checkpoint_pretrained.pth"
BATCH_SEED = 12345  # nnU-Net's for its splits: what is drawn in pretraining is the same in every run without a seed


class PretrainingTrainer(nnUNetTrainer, ABC):
    """A method's trainer says what the task, its batches and its settings are; all else is here or nnU-Net's.

    Attributes:
        num_pretraining_epochs, num_pretraining_iterations_per_epoch: length of the phase.
        seed: None, or a number with which a run repeats bit for bit (on the CPU, with nnUNet_n_proc_DA=0).
    """

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
    def build_pretraining_task(self, network: nn.Module) -> PretrainingTask:
        """The task over nnU-Net's planned network, which may be changed in place until task.remove_additions()."""

    @abstractmethod
    def build_pretraining_batches(self, cases: nnUNetBaseDataset, seed: int) -> Dataset:
        """Batches drawn from the given cases alone."""

    def initialize(self) -> None:
        # Faults of data, fold and settings are told here, before any long work.
        data = Path(self.preprocessed_dataset_folder)
        check_cases(data, self.configuration_name, self.plans_manager.plans_name, self.fold)
        self.pretraining_settings()
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
        """Runs the phase, takes it up where it was interrupted, or takes its result where it is done."""
        if self.is_ddp:
            raise InputError("-num_gpus", "more than one", "1", "Pretraining runs on one GPU: leave -num_gpus out.")
        folder = Path(self.output_folder)
        interrupted = self.logger.resume and (folder / CHECKPOINT_NAME).is_file()
        if self.logger.resume and not interrupted and (folder / PRETRAINED_NAME).is_file():
            self._load_pretrained(folder / PRETRAINED_NAME)
            return
        phase = self._build_phase(folder)
        if interrupted:
            phase.resume()
            self.print_to_log_file(f"Pretraining goes on after epoch {phase.records[-1]['epoch']}: {phase.checkpoint}")
        phase.run()
        phase.task.remove_additions()
        if not self.disable_checkpointing:
            self._save_pretrained(folder / PRETRAINED_NAME, phase.settings)
            phase.checkpoint.unlink(missing_ok=True)
        self.print_to_log_file("Pretraining done.\n")

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        # Without --c nnU-Net starts anew beside the checkpoints of an earlier run; --c must not fall back to those.
        if self.logger.resume and Path(self.output_folder, CHECKPOINT_NAME).is_file():
            self.print_to_log_file(
                "The last run was interrupted in pretraining: nnU-Net's checkpoint is older, not used"
            )
            return
        super().load_checkpoint(filename_or_checkpoint)

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net writes in place; a kill in the middle would cost the only checkpoint.
        temporary = os.path.join(os.path.dirname(filename), "." + os.path.basename(filename))
        super().save_checkpoint(temporary)
        if os.path.isfile(temporary):
            os.replace(temporary, filename)

    def _build_phase(self, folder: Path) -> PretrainingPhase:
        training_cases, validation_cases = self.get_tr_and_val_datasets()
        seed = BATCH_SEED if self.seed is None else self.seed
        settings = self.pretraining_settings()
        length = {"epochs": self.num_pretraining_epochs, "iterations": self.num_pretraining_iterations_per_epoch}
        self.print_to_log_file(
            f"\nPretraining by {type(self).__name__} on {len(training_cases.identifiers)} training cases:",
            length,
            settings,
            f"seed {seed}",
            add_timestamp=False,
        )
        batches = self.build_pretraining_batches(training_cases, seed)
        return PretrainingPhase(
            task=self.build_pretraining_task(self._planned_network()),
            batches=batches,
            held_back=self._held_back_batches(training_cases, validation_cases, seed),
            epochs=self.num_pretraining_epochs,
            iterations_per_epoch=self.num_pretraining_iterations_per_epoch,
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            folder=folder,
            device=self.device,
            settings={"trainer": type(self).__name__, **length, **settings, "seed": seed},
            workers=get_allowed_n_proc_DA(),
            write_checkpoints=not self.disable_checkpointing,
            log=self.print_to_log_file,
        )

    def _held_back_batches(
        self, training_cases: nnUNetBaseDataset, validation_cases: nnUNetBaseDataset, seed: int
    ) -> Dataset | None:
        """Batches of the validation cases, which are looked at for the log and never learnt from."""
        if set(training_cases.identifiers) & set(validation_cases.identifiers):
            return None  # fold all
        try:
            return self.build_pretraining_batches(validation_cases, seed)
        except InputError as error:
            self.print_to_log_file(f"No held-back figures in the pretraining log: {error}")
            return None

    def _planned_network(self) -> nn.Module:
        return self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network

    def _load_pretrained(self, path: Path) -> None:
        content = load_safely(path, self.device, {"network_weights"})
        self._planned_network().load_state_dict(content["network_weights"])
        self.print_to_log_file(f"Pretraining was done already: weights from {path}")

    def _save_pretrained(self, path: Path, settings: dict[str, Any]) -> None:
        save_atomically(
            {
                "network_weights": self._planned_network().state_dict(),
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
