"""nnU-Net's own training batches, with its sampling and augmentation, for the phases before its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.utils.data import Dataset

from nnunet_semcl.data.copy_paste import swap_boxes
from nnunet_semcl.data.places import CHANNELS, Body, Box, WithPlaces, sample_places
from nnunet_semcl.data.pseudo_labels import maybe_background
from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.distributed import rank, split_evenly
from nnunet_semcl.files.cases import Cases, Object, Voxels
from nnunet_semcl.losses.deep_supervision import levels_of


class TrainingBatches(Dataset):
    """Batches as in nnU-Net's training, but batch number i depends only on the seed and i.

    Args:
        trainer: defines patch size, batch size, oversampling and augmentation.
        datasets: each gives an equal share of a batch, so that few labelled cases are not lost among many others. If
            every process has only one patch, the processes start with different data sets.
        seed: of all batches.
        copy_paste: whether the two halves of a batch swap boxes.
        plain_view: whether a batch also holds the images under the spatial augmentation alone.
        places: number of voxels of a batch whose places in their cases it holds.
        labels: the labels of pseudo-labelled cases, with an ignore label; None for the data set's own.
    """

    def __init__(
        self,
        trainer: nnUNetTrainer,
        datasets: Sequence[Cases],
        seed: int,
        copy_paste: bool,
        plain_view: bool = False,
        places: int = 0,
        labels: LabelManager | None = None,
    ) -> None:
        labels = labels or cast("LabelManager", trainer.label_manager)
        patch_size = trainer.configuration_manager.patch_size
        rotation, dummy_2d, initial_size, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        transforms = trainer.get_training_transforms(
            patch_size,
            rotation,
            trainer._get_deep_supervision_scales(),
            axes,
            dummy_2d,
            use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
            is_cascaded=trainer.is_cascaded,
            foreground_labels=labels.foreground_labels,
            regions=_regions(labels),
            ignore_label=labels.ignore_label,
        )
        if plain_view:
            transforms = WithPlainView(transforms)
        if places:
            transforms = WithPlaces(transforms)
        slots = zip(_rotated(datasets), split_evenly(trainer.batch_size, len(datasets)), strict=True)
        self.loader = SlotLoader(
            [dataset for dataset, share in slots for _ in range(share)],
            initial_size,
            patch_size,
            trainer.label_manager,
            trainer.oversample_foreground_percent,
            transforms,
        )
        self.heads = labels.foreground_regions if labels.has_regions else labels.all_labels
        self.missing = {case: of for dataset in datasets for case, of in getattr(dataset, "missing", {}).items()}
        self.seed = seed
        self.copy_paste = copy_paste
        self.plain_view = plain_view
        self.places = places

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Draws batch number `number`.

        Shape:
            image: (B, C, X, Y[, Z]) float32.
            target: labels (B, 1, X, Y[, Z]) or regions (B, R, X, Y[, Z]); with deep supervision a list from fine to
                coarse, as nnU-Net's loss expects it.
            missing: (B, heads) bool, the network's heads whose object was not found in a patch's case: voxels that are
                `maybe_background` may be one of these.
            plain: as image; only with `plain_view`.
            placed, place: (V,) int64, voxels in the flattened (B, X, Y[, Z]), and (V, 3) float32, where in their cases
                they are; only with `places`.
        """
        with seeded(self.seed, number) as rng:
            drawn = self.loader.generate_train_batch()
            image, target = drawn["data"], drawn["target"]
            missing = torch.tensor([self._missing_heads(case) for case in drawn["keys"]])
            if self.copy_paste:
                for pair in swap_boxes([image, *levels_of(target)], rng):
                    missing[pair] = missing[pair].any(0)
            batch = {"image": image, "target": target, "missing": missing}
            if self.places:
                batch["image"] = image[:, :-CHANNELS].contiguous()
                batch["placed"], batch["place"] = sample_places(image[:, -CHANNELS:], self.places, rng)
        if self.plain_view:
            batch["image"], batch["plain"] = image.chunk(2, dim=1)
        return batch

    def _missing_heads(self, case: str) -> list[bool]:
        missing = self.missing.get(case, [])
        return [head in missing for head in self.heads]


class SlotLoader(nnUNetDataLoader):
    """nnU-Net's loader; each slot of a batch has a data set of its own.

    Args:
        slots: the data set of each patch of a batch.
        patch_size: edge lengths of the patch to cut, larger than what the transforms return.
        final_patch_size: edge lengths of what they return.
        labels: nnU-Net's label manager.
        forced: share of patches that are placed on foreground.
        transforms: nnU-Net's augmentation.
    """

    def __init__(
        self,
        slots: Sequence[Cases],
        patch_size: Sequence[int],
        final_patch_size: Sequence[int],
        labels: LabelManager,
        forced: float,
        transforms: BasicTransform | WithPlainView | WithPlaces,
    ) -> None:
        super().__init__(
            slots[0],
            len(slots),
            patch_size,
            final_patch_size,
            labels,
            forced,
            # nnU-Net's alternative oversamples the last third of a batch: of one patch, that is none.
            probabilistic_oversampling=True,
            transforms=transforms,
        )
        self.slots = slots
        self._bodies: dict[str, Body] = {}
        self._data = self
        self.dataset_of = {case: dataset for dataset in slots for case in dataset.identifiers}

    def get_indices(self) -> list[str]:
        """Draws the case of each slot."""
        return [dataset.identifiers[np.random.randint(len(dataset.identifiers))] for dataset in self.slots]

    def get_bbox(self, data_shape: Sequence[int], *args: Any, **kwargs: Any) -> Box:
        """Draws the box of the next patch, in the case that was loaded last."""
        box = super().get_bbox(data_shape, *args, **kwargs)
        if isinstance(self.transforms, WithPlaces):
            self.transforms.next_is(box, data_shape, self._body)
        return box

    def load_case(self, identifier: str) -> tuple[np.ndarray, Voxels, np.ndarray | None, dict]:
        """As a data set, for nnU-Net's loader."""
        case = self.dataset_of[identifier].load_case(identifier)
        if isinstance(self.transforms, WithPlaces):
            if identifier not in self._bodies:
                self._bodies[identifier] = Body.of_case(case[0])
            self._body = self._bodies[identifier]
        return case


class WithPlainView:
    """nnU-Net's augmentation; the image under the spatial transforms alone is appended as further channels."""

    def __init__(self, transforms: BasicTransform) -> None:
        self.transforms = transforms

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        # The spatial transforms treat a regression target like an image, the intensity transforms ignore it.
        views = self.transforms(image=image, segmentation=segmentation, regression_target=image.clone())
        return {**views, "image": torch.cat((views["image"], views["regression_target"]))}


def _regions(labels: LabelManager) -> list[Object] | None:
    """The regions that become channels of the target, that of `maybe_background` behind the others."""
    if not labels.has_regions:
        return None
    return [*labels.foreground_regions, *([maybe_background(labels)] if labels.has_ignore_label else [])]


def _rotated(datasets: Sequence[Cases]) -> list[Cases]:
    first = rank() % len(datasets)
    return [*datasets[first:], *datasets[:first]]
