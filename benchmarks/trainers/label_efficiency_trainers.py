"""Trainers of benchmarks/label_efficiency.py: so many optimiser steps in all, whatever they are spent on.

The script says by the environment variable LABEL_EFFICIENCY, a JSON object, what a run is.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.data.attention import Cases, Object
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.training.ideal_trainer import IDEALTrainer
from nnunet_semcl.training.pretraining_trainer import PretrainingTrainer
from nnunet_semcl.training.semcl_trainer import SemCLTrainer

phase.HELD_BACK_BATCHES = 1  # for the log alone, and after each of the short epochs here


class InMemory:
    """A data set of nnU-Net's whose cases are read once. It changes no bit of a training, only its time."""

    def __init__(self, dataset: Cases) -> None:
        self.dataset = dataset
        self.source_folder, self.identifiers = dataset.source_folder, dataset.identifiers
        self.load_case = cache(self._read)

    def _read(self, identifier: str) -> tuple:
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image[:], segmentation[:], previous, properties


class ColdTrainer(nnUNetTrainer):
    """nnU-Net's own training, for all the steps."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        run = json.loads(os.environ["LABEL_EFFICIENCY"])
        self.run_seed = run["seed"]
        self.in_memory = run["in_memory"]
        self.num_iterations_per_epoch = run["steps_per_epoch"]
        self.num_epochs = (run["steps"] - self.steps_before_training(run)) // run["steps_per_epoch"]
        self.num_val_iterations_per_epoch = 1
        torch.set_num_threads(run["threads"])

    def steps_before_training(self, run: dict) -> int:
        return 0

    def get_tr_and_val_datasets(self) -> tuple:
        datasets = super().get_tr_and_val_datasets()
        return tuple(map(InMemory, datasets)) if self.in_memory else datasets

    def initialize(self) -> None:
        self._seed()
        super().initialize()

    def on_train_start(self) -> None:
        self._seed()
        super().on_train_start()

    def _seed(self) -> None:
        random.seed(self.run_seed)
        np.random.seed(self.run_seed)
        torch.manual_seed(self.run_seed)


class PretrainedTrainer(PretrainingTrainer, ColdTrainer):
    """Pretraining, and nnU-Net's training for the steps that are left; settings of the method or of its trainer."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        run = json.loads(os.environ["LABEL_EFFICIENCY"])
        self.seed = self.run_seed
        self.num_pretraining_iterations_per_epoch = run["steps_per_epoch"]
        self.num_pretraining_epochs = run["pretraining_steps"] // run["steps_per_epoch"]
        config = self.config()
        of_config = {field.name for field in fields(config)}
        for key, value in run["settings"].items():
            if key in of_config:
                self.configuration_manager.configuration.setdefault(config.section, {})[key] = value
            elif hasattr(self, key):
                setattr(self, key, value)
            else:
                raise ValueError(f"{key} is neither a setting of {type(config).__name__} nor an attribute of a trainer")

    def steps_before_training(self, run: dict) -> int:
        return run["pretraining_steps"] + run["coarse_steps"]


class SemCL(PretrainedTrainer, SemCLTrainer):
    """Coarse training where cases are unlabelled, contrast, and nnU-Net's training for the steps that are left."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        run = json.loads(os.environ["LABEL_EFFICIENCY"])
        self.num_coarse_epochs = run["coarse_steps"] // run["steps_per_epoch"]

    def _pseudo_labelled(self, *args: Any) -> list[Cases]:
        cases = super()._pseudo_labelled(*args)
        return [InMemory(of) for of in cases] if self.in_memory else cases


class SemCL_noUnlabelled(SemCL):
    """The labels are the only attention; the steps of the coarse training go to nnU-Net's."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.use_unlabelled = False


class SelfTraining(SemCL):
    """SemCL without its contrast: what the masks of unlabelled cases and copy-paste give by themselves."""

    def _contrast_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, objects: list[Object], epochs: int
    ) -> PretrainingPhase:
        return self._supervised_phase(name, cases, None, epochs, copy_paste=True)


class Control(SemCL):
    """SemCL without contrast and without the unlabelled cases: supervised steps under the same optimiser, schedule and
    augmentation, with as many patches a step."""

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        labelled: list[Cases] = [self.get_tr_and_val_datasets()[0]]
        if self.num_coarse_epochs:
            yield self._supervised_phase("coarse", labelled, None, self.num_coarse_epochs)
        yield self._supervised_phase("pretraining", labelled, None, self.num_pretraining_epochs, copy_paste=True)


class IDEAL(PretrainedTrainer, IDEALTrainer):
    """Dense contrast, and training with two decoders for the steps that are left."""


class IDEAL_noPretraining(IDEAL):
    """All the steps with two decoders."""
