"""Contrasts that were tried in place of SemCL's, for benchmarks/label_efficiency.py.

None of them was shown to beat SelfTraining, so the package has none. `--trainers SelfTraining VoxelTrial:levels=3`
repeats one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_efficiency_trainers import InMemory, SelfTraining, SemCL
from torch import nn
from torch.nn.functional import normalize
from torch.utils.data import Dataset

from nnunet_semcl.data.lazy_segmentation import CONFIDENT, FULL
from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.files.cases import UNKNOWN, Cases, Object
from nnunet_semcl.losses.supcon import SupConLoss
from nnunet_semcl.methods.ideal.located_views import LocatedViews
from nnunet_semcl.methods.ideal.location_batches import LocationBatches
from nnunet_semcl.methods.ideal.task import IDEALTask
from nnunet_semcl.methods.semcl.task import CONTRAST_WEIGHT
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.methods.semcl.voxel_batches import sample_voxels
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.networks.voxel_head import VoxelHead
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.task import PretrainingTask

UNSURE = 100  # added to the label of a voxel that the coarse model is not confident of


class VoxelTrial(SemCL):
    """Voxel contrast on several levels of the decoder, or of confident voxels alone. Labels, not regions.

    Attributes:
        levels: of the decoder, from the finest on, each with half as many voxels as the one before.
        confident: whether voxels of unlabelled cases take part only where the coarse model is confident.
    """

    levels = 1
    confident = False

    def _pseudo_labelled(self, *args: Any) -> list[Cases]:
        cases = SemCLTrainer._pseudo_labelled(self, *args)
        return [InMemory(UnsureMarked(of) if self.confident else of) for of in cases]

    def _contrast_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, objects: list[Object], epochs: int
    ) -> PretrainingPhase:
        settings = self.pretraining_settings()
        task = LevelsTask(self.planned_network, self.loss, settings["temperature"], self.levels)
        patches = TrainingBatches(self, cases, self.phase_seed(name), settings["copy_paste"])
        batches = LevelsBatches(patches, settings["voxels"], self.levels)
        return self.build_phase(name, task, batches, None, epochs)


class LocationTrial(SelfTraining):
    """Dense contrast of locations on all images beside the coarse training, and no contrast after that."""

    def _supervised_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, epochs: int, copy_paste: bool = False
    ) -> PretrainingPhase:
        if name != "coarse":
            return super()._supervised_phase(name, cases, held_out, epochs, copy_paste)
        images = [Path(self.preprocessed_dataset_folder, case) for case in cases[0].identifiers]
        images += self.unlabelled_images().values()
        rotation, dummy_2d, _, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        views = LocatedViews(self.configuration_manager.patch_size, rotation, mirror_axes, dummy_2d)
        locations = LocationBatches(images, views, 6, 64, self.configuration_manager.spacing, self.phase_seed(name))
        batches = LocationsBeside(TrainingBatches(self, cases, self.phase_seed(name), copy_paste), locations)
        task = LocationsTask(self.planned_network, self.loss)
        return self.build_phase(name, task, batches, None, epochs)


class UnsureMarked:
    """Pseudo-labelled cases in which UNSURE is added to the label where the coarse model is."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.source_folder, self.identifiers = cases.source_folder, cases.identifiers

    def load_case(self, identifier: str) -> tuple:
        image, segmentation, previous, properties = self.cases.load_case(identifier)
        labels = np.array(segmentation.labels[:])
        labels[segmentation.confidence[:] < CONFIDENT * FULL] += UNSURE
        return image, labels, previous, properties


class LevelsBatches(Dataset):
    """Training patches with voxels sampled on each level; those that are UNSURE are none."""

    def __init__(self, patches: TrainingBatches, voxels: int, levels: int) -> None:
        self.patches, self.voxels, self.levels = patches, voxels, levels

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        batch = self.patches[number]
        classes = [target[:, 0].short() for target in batch["target"][: self.levels]]
        classes = [of.masked_fill(of >= UNSURE, UNKNOWN) for of in classes]
        with seeded(self.patches.seed, number) as rng:
            sampled = [sample_voxels(of, self.voxels >> level, rng) for level, of in enumerate(classes)]
        voxel, voxel_class = map(list, zip(*sampled, strict=True))
        target = [torch.where(of >= UNSURE, of - UNSURE, of) for of in batch["target"]]
        return {"patch": batch["image"], "target": target, "voxel": voxel, "voxel_class": voxel_class}


class LevelsTask(PretrainingTask):
    """nnU-Net's loss, and the mean of the voxel contrasts of several levels beside it."""

    def __init__(self, network: nn.Module, loss: nn.Module, temperature: float, levels: int) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.segmentation_loss = loss
        self.features = [DecoderFeatures(self.decoder, level) for level in range(levels)]
        self.heads = nn.ModuleList([VoxelHead(of.channels, 256) for of in self.features])
        self.contrast = SupConLoss(temperature)

    def forward(self, batch: dict[str, torch.Tensor | list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        output = self.decoder(self.encoder(batch["patch"]))
        levels = zip(self.features, self.heads, batch["voxel"], batch["voxel_class"], strict=True)
        contrasts = [
            self.contrast(normalize(head(of.features, voxel).float(), dim=1), classes)
            for of, head, voxel, classes in levels
        ]
        segmentation = self.segmentation_loss(output, batch["target"])
        loss = segmentation + CONTRAST_WEIGHT * sum(contrasts) / len(contrasts)
        return {"loss": loss, "segmentation_loss": segmentation, "voxel_loss": contrasts[0]}

    def remove_additions(self) -> None:
        for of in self.features:
            of.remove()


class LocationsBeside(Dataset):
    """Training patches and the views and locations of IDEAL's first phase."""

    def __init__(self, patches: TrainingBatches, locations: LocationBatches) -> None:
        self.patches, self.locations = patches, locations

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.patches[number], **{f"dense {key}": of for key, of in self.locations[number].items()}}


class LocationsTask(PretrainingTask):
    """nnU-Net's loss on labelled patches, and a tenth of IDEAL's dense contrast on all images."""

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network, self.segmentation_loss = network, loss
        self.dense = IDEALTask(network, 0, 128, 0.1, 4.0, 0.99)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        segmentation = self.segmentation_loss(self.network(batch["image"]), batch["target"])
        dense = self.dense({key.removeprefix("dense "): of for key, of in batch.items() if key.startswith("dense ")})
        loss = segmentation + 0.1 * dense["loss"]
        return {"loss": loss, "segmentation_loss": segmentation, "dense_loss": dense["loss"]}

    def remove_additions(self) -> None:
        self.dense.remove_additions()
