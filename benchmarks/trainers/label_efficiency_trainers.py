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

from nnunet_semcl.files.cases import Cases, Object
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

phase.HELD_OUT_BATCHES = 1  # for the log alone, and after each of the short epochs here


class InMemory:
    """A data set of nnU-Net's whose cases are read once. It changes no bit of a training, only its time."""

    def __init__(self, dataset: Cases) -> None:
        self.dataset = dataset
        self.source_folder, self.identifiers = dataset.source_folder, dataset.identifiers
        self.load_case = cache(self._read)

    def _read(self, identifier: str) -> tuple:
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image[:], segmentation[:], previous, properties


RUN: dict[str, Any] = json.loads(os.environ["LABEL_EFFICIENCY"])
torch.set_num_threads(RUN["threads"])


def epochs(steps: int) -> int:
    return steps // RUN["steps_per_epoch"]


class ColdTrainer(ClassAttributeTrainer):
    """nnU-Net's own training, for all the steps."""

    run_seed = RUN["seed"]
    in_memory = RUN["in_memory"]
    num_epochs = epochs(RUN["steps"] - RUN["coarse_steps"] - RUN["pretraining_steps"])
    num_iterations_per_epoch = RUN["steps_per_epoch"]
    num_val_iterations_per_epoch = 1

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

    seed = RUN["seed"]
    num_pretraining_epochs = epochs(RUN["pretraining_steps"])
    num_pretraining_iterations_per_epoch = RUN["steps_per_epoch"]

    def initialize(self) -> None:
        names = {field.name for field in fields(self.Settings)}
        for key, value in RUN["settings"].items():
            if key in names:
                self.configuration_manager.configuration.setdefault(self.Settings.section, {})[key] = value
            elif hasattr(self, key):
                setattr(self, key, value)
            else:
                owner = self.Settings.__name__
                raise ValueError(f"{key} is neither a setting of {owner} nor an attribute of a trainer")
        super().initialize()


class SemCL(PretrainedTrainer, SemCLTrainer):
    """Coarse training where cases are unlabelled, contrast, and nnU-Net's training for the steps that are left."""

    num_coarse_epochs = epochs(RUN["coarse_steps"])

    def _pseudo_labelled(self, *args: Any) -> list[Cases]:
        cases = super()._pseudo_labelled(*args)
        return [InMemory(of) for of in cases] if self.in_memory else cases


class SemCL_noUnlabelled(SemCL):
    """The labels are the only attention; the steps of the coarse training go to nnU-Net's."""

    use_unlabelled = False


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
