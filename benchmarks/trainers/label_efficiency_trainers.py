"""Trainers of benchmarks/label_efficiency.py: so many optimiser steps in all, whatever they are spent on.

The script says by the environment variable LABEL_EFFICIENCY, a JSON object, what a run is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_semcl.data.image_only_cases import ImageOnlyCases
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.files.cases import Cases, Object
from nnunet_semcl.losses.deep_supervision import Levels, levels_of
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.interruptible_trainer import InterruptibleTrainer
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.settings import MethodSettings
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

phase.HELD_OUT_BATCHES = 1  # for the log alone, and after each of the short epochs here


class InMemory:
    """A data set of nnU-Net's whose cases are read once. It changes no bit of a training, only its time."""

    def __init__(self, dataset: Cases) -> None:
        self.dataset = dataset
        self.source_folder, self.identifiers = dataset.source_folder, dataset.identifiers
        self.missing = getattr(dataset, "missing", {})
        self.load_case = cache(self._read)

    def _read(self, identifier: str) -> tuple:
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image[:], segmentation[:], previous, properties


RUN: dict[str, Any] = json.loads(os.environ["LABEL_EFFICIENCY"])
torch.set_num_threads(RUN["threads"])


def epochs(steps: int) -> int:
    return steps // RUN["steps_per_epoch"]


class ColdTrainer(InterruptibleTrainer):
    """nnU-Net's own training, for all the steps."""

    seed = RUN["seed"]
    in_memory = RUN["in_memory"]
    num_epochs = epochs(RUN["steps"])
    num_iterations_per_epoch = RUN["steps_per_epoch"]
    num_val_iterations_per_epoch = 1

    def get_tr_and_val_datasets(self) -> tuple:
        datasets = super().get_tr_and_val_datasets()
        return tuple(map(InMemory, datasets)) if self.in_memory else datasets

    def initialize(self) -> None:
        super().initialize()
        # Nobody looks at it here, and to draw it takes as long as half an epoch on a GPU.
        self.logger.plot_progress_png = lambda output_folder: None


class PretrainedTrainer(PretrainingTrainer, ColdTrainer):
    """Pretraining, and nnU-Net's training for the steps that are left; settings of the method or of its trainer."""

    def epoch_shares(self, settings: Any) -> tuple[dict[str, float], str]:
        shares, reason = super().epoch_shares(settings)
        if RUN["shares"] is None:
            return shares, reason
        return dict(zip(shares, RUN["shares"][-len(shares) :], strict=True)), "the benchmark's"

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

    def _pseudo_labelled(self, *args: Any) -> list[Cases]:
        cases = super()._pseudo_labelled(*args)
        return [InMemory(of) for of in cases] if self.in_memory else cases


class SemCL_noUnlabelled(SemCL):
    """The labels are the only masks; the steps are divided as where nothing is unlabelled."""

    use_unlabelled = False


class SemCL_unfilled(SemCL):
    """SemCL whose ignored voxels stay ignored in labelled cases; its steps are divided as if they were filled."""

    def _pseudo_labelled(self, labelled: Cases, *args: Any) -> list[Cases]:
        return [labelled, *super()._pseudo_labelled(labelled, *args)[1:]]


class SelfTraining(SemCL):
    """SemCL without its contrast: what the masks of unlabelled cases and copy-paste give by themselves."""

    def _contrast_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, objects: list[Object], epochs: int
    ) -> PretrainingPhase:
        return self._supervised_phase(name, cases, None, epochs, copy_paste=True)


class Control(SemCL):
    """SemCL without contrast and without the unlabelled cases: supervised steps under the same optimiser, schedule (as
    many one-cycles, at the same steps) and augmentation, with as many patches a step."""

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        labelled: list[Cases] = [self.get_tr_and_val_datasets()[0]]
        pretraining = self.epochs["pretraining"]
        rounds = self._rounds(pretraining) if self.unlabelled_images() else {"pretraining": pretraining}
        lengths = {"coarse": self.epochs["coarse"]} | rounds
        for name, length in lengths.items():
            if length:
                yield self._supervised_phase(name, labelled, None, length, copy_paste=name != "coarse")


class EachEpoch:
    """In place of a schedule that nnU-Net steps once an epoch."""

    def step(self, epoch: int) -> None:
        pass


class AdamWOneCycle(ColdTrainer):
    """nnU-Net's training under the optimiser of our phases, AdamW with one cycle, for all the steps: what the optimiser
    gives by itself. On the labelled cases alone."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        rate = MethodSettings.derived(self.configuration_manager)["learning_rate"].value
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=1e-2)
        steps = self.num_epochs * self.num_iterations_per_epoch + 1
        self.one_cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, steps, pct_start=0.1, cycle_momentum=False
        )
        return optimizer, torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(self.network.parameters()), lambda _: 1)

    def train_step(self, batch: dict) -> dict:
        step = super().train_step(batch)
        self.one_cycle.step()
        return step


class OnlineSelfTraining(PretrainedTrainer, SemCLTrainer):
    """Hard labels of the network itself, for unlabelled patches that it then sees turned by right angles.

    After nnFilterMatch's recipe (see docs/results.md): from an early epoch on, half of each batch is unlabelled; the
    network labels it, on all levels of deep supervision and without a threshold, and learns these labels on the same
    patch turned by 90, 180 or 270 degrees (180 where it is not square), by nnU-Net's own loss and optimiser.
    """

    probabilistic_oversampling = True  # the last third of half a batch may be no patch
    first_epoch_share = 0.05

    def epoch_shares(self, settings: Any) -> tuple[dict[str, float], str]:
        return {"coarse": 0.0, "pretraining": 0.0}, "all steps are nnU-Net's"

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()
        self.batch_size = max(1, self.batch_size // 2)

    def on_train_start(self) -> None:
        super().on_train_start()
        cases = InMemory(ImageOnlyCases(self.unlabelled_images(), self.label_manager))
        self.unlabelled_patches = TrainingBatches(self, [cases], self.phase_seed("training"), copy_paste=False)

    def train_step(self, batch: dict) -> dict:
        if self.current_epoch < self.first_epoch_share * self.num_epochs:
            return super().train_step(batch)
        number = self.current_epoch * self.num_iterations_per_epoch + self.step_of_epoch
        self.step_of_epoch += 1
        image = self.unlabelled_patches[number]["image"].to(self.device)
        self.network.eval()
        with torch.no_grad():
            labels = [level.argmax(1, keepdim=True) for level in levels_of(self.network(image))]
        self.network.train()
        turns = int(np.random.randint(1, 4)) if image.shape[-1] == image.shape[-2] else 2
        turned, *targets = (torch.rot90(level, turns, (-2, -1)) for level in (image, *labels))
        network, loss = self.network, self.loss
        self.network, self.loss = TwoBatches(network, turned), partial(two_losses, loss, targets)
        try:
            return super().train_step(batch)
        finally:
            self.network, self.loss = network, loss

    def on_train_epoch_start(self) -> None:
        self.step_of_epoch = 0
        super().on_train_epoch_start()


class TwoBatches(nn.Module):
    """A network's outputs for the batch that it gets and for a second one."""

    def __init__(self, network: nn.Module, second: torch.Tensor) -> None:
        super().__init__()
        self.network, self.second = network, second

    def forward(self, first: torch.Tensor) -> tuple[Levels, Levels]:
        return self.network(first), self.network(self.second)


def two_losses(loss: nn.Module, pseudo_labels: list[torch.Tensor], outputs: tuple, target: Levels) -> torch.Tensor:
    """The mean of a loss over labelled and pseudo-labelled patches."""
    labelled, unlabelled = outputs
    return (loss(labelled, target) + loss(unlabelled, pseudo_labels)) / 2


class IDEAL(PretrainedTrainer, IDEALTrainer):
    """Dense contrast, and training with two decoders for the steps that are left."""


class IDEAL_noPretraining(IDEAL):
    """All the steps with two decoders."""

    def epoch_shares(self, settings: Any) -> tuple[dict[str, float], str]:
        return {"pretraining": 0.0}, "all steps are nnU-Net's"
