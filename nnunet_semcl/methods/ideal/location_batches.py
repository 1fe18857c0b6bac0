"""IDEAL's batches: two views each of patches from all cases, and the locations that both views show. No label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch.utils.data import Dataset

from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.methods.ideal.located_views import LocatedViews, shared_locations

DRAWS = 20
FEWEST = 8  # shared locations: with fewer, a patch is drawn anew


class LocationBatches(Dataset):
    """Batch number i, a function of the seed and i alone.

    Args:
        images: files of the cases, preprocessed, without extension. Nothing but the images is opened.
        views: draws the views.
        patches: how many patches a batch holds.
        locations: how many locations a patch gives at most.
        spacing: of a voxel in mm, one for each axis of a view.
        seed: of all batches.
    """

    def __init__(
        self,
        images: Sequence[Path],
        views: LocatedViews,
        patches: int,
        locations: int,
        spacing: Sequence[float],
        seed: int,
    ) -> None:
        self.images = images
        self.views = views
        self.patches = patches
        self.locations = locations
        self.spacing = torch.tensor(spacing, dtype=torch.float32)
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Of B patches: query and key (B, C, X, Y[, Z]) float32, the two views. Of N locations in all: image (N,)
        int64, the number of the patch; voxel (N, axes) int64 in the query; place (N, axes) float32 in voxels of the
        key; position (N, axes) float32 in mm. redrawn () float32, how many pairs of views shared too little."""
        with seeded(self.seed, number) as rng:
            cases = [
                self.images[i] for i in rng.choice(len(self.images), self.patches, self.patches > len(self.images))
            ]
            drawn = [self._pair(case, rng) for case in cases]
        query, key, voxel, place, source, redrawn = zip(*drawn, strict=True)
        return {
            "query": torch.stack(query),
            "key": torch.stack(key),
            "image": torch.arange(self.patches).repeat_interleave(torch.tensor([len(v) for v in voxel])),
            "voxel": torch.cat(voxel),
            "place": torch.cat(place),
            "position": torch.cat(source) * self.spacing,
            "redrawn": torch.tensor(float(sum(redrawn))),
        }

    def _pair(self, case: Path, rng: np.random.Generator) -> tuple:
        volume = open_case(case)
        two_d = len(self.views.cut_size) == 2
        size = np.array([1, *self.views.cut_size] if two_d else self.views.cut_size)
        seen = np.array([1, *self.views.size] if two_d else self.views.size)
        shape = np.array(volume.shape[1:])
        for redrawn in range(DRAWS):
            # As nnU-Net: a view anywhere in the case, beyond it only where the case is smaller.
            margin = np.minimum(seen, shape) / 2
            centre = rng.uniform(margin, shape - margin)
            start = np.floor(centre - size / 2).astype(int)
            box = np.stack((start, start + size), axis=1).tolist()
            image = crop_and_pad_nd(volume, box, 0).astype(np.float32, copy=False)
            inside = np.zeros((1, *size), bool)
            inside[(0, *(slice(max(0, -s), max(0, n - s)) for s, n in zip(start, shape, strict=True)))] = True
            if two_d:
                image, inside = image[:, 0], inside[:, 0]
            (query, *first), (key, *second) = (
                self.views(torch.from_numpy(image), torch.from_numpy(inside)) for _ in range(2)
            )
            shared = shared_locations(first, second, self.locations, rng)
            if len(shared[0]) >= min(FEWEST, self.locations):
                return query, key, *shared, redrawn
        raise RuntimeError(f"{case}: in {DRAWS} draws two views never shared {FEWEST} locations. Is the image empty?")
