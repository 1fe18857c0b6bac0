"""IDEAL's batches: two views of each patch, and the locations that both views show. No label is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch.utils.data import Dataset

from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.methods.ideal.located_views import Box, LocatedViews, shared_locations

DRAWS = 20
FEWEST = 8  # if two views share fewer locations, another patch is drawn

# Views of query and key, then of each shared location: voxel, place and source; and the number of draws before.
Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]


class LocationBatches(Dataset):
    """Batch number i depends only on the seed and i.

    Args:
        images: preprocessed images without extension. No other file of a case is opened.
        views: draws the views.
        patches: number of patches in a batch.
        locations: largest number of locations in a patch.
        spacing: voxel spacing in mm, for each axis of a view.
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
        """Draws batch number `number`, of B patches with N locations in total.

        Shape:
            query, key: (B, C, X, Y[, Z]) float32, the two views of each patch.
            image: (N,) int64, the patch of each location.
            voxel: (N, axes) int64, the location in voxels of the query.
            place: (N, axes) float32, the location in voxels of the key.
            position: (N, axes) float32, the location in the patch in mm.
            redrawn: () float32, number of pairs that were drawn again because their views shared too little.
            passed_over: () float32, number of cases for which that did not help, and another case was drawn.

        Raises:
            RuntimeError: no case gives a pair of views.
        """
        with seeded(self.seed, number) as rng:
            cases = rng.choice(len(self.images), self.patches, self.patches > len(self.images))
            drawn, passed_over = [], 0
            for case in cases:
                pair = self._pair(self.images[case], rng)
                # Such as a volume of one slice in 3D, in which no two turned views share a place.
                for other in () if pair else rng.permutation(len(self.images)):
                    passed_over += 1
                    pair = self._pair(self.images[other], rng)
                    if pair:
                        break
                if not pair:
                    raise RuntimeError(
                        f"{self.images[0].parent}: in none of {len(self.images)} cases {DRAWS} pairs of views shared "
                        f"{FEWEST} locations. Check whether the images are empty."
                    )
                drawn.append(pair)
        query, key, voxel, place, source, redrawn = zip(*drawn, strict=True)
        return {
            "query": torch.stack(query),
            "key": torch.stack(key),
            "image": torch.arange(self.patches).repeat_interleave(torch.tensor([len(v) for v in voxel])),
            "voxel": torch.cat(voxel),
            "place": torch.cat(place),
            "position": torch.cat(source) * self.spacing,
            "redrawn": torch.tensor(float(sum(redrawn))),
            "passed_over": torch.tensor(float(passed_over)),
        }

    def _pair(self, case: Path, rng: np.random.Generator) -> Pair | None:
        """Draws two views of a patch; None if none of DRAWS pairs shares enough locations."""
        volume = open_case(case)
        two_d = len(self.views.cut_size) == 2
        size = np.array([1, *self.views.cut_size] if two_d else self.views.cut_size)
        seen = np.array([1, *self.views.size] if two_d else self.views.size)
        shape = np.array(volume.shape[1:])
        for redrawn in range(DRAWS):
            # As in nnU-Net: a view is anywhere within the case, and exceeds it only if the case is smaller.
            margin = np.minimum(seen, shape) / 2
            centre = rng.uniform(margin, shape - margin)
            start = np.floor(centre - size / 2).astype(int)
            box = np.stack((start, start + size), axis=1).tolist()
            image = crop_and_pad_nd(volume, box, 0).astype(np.float32, copy=False)
            inside = Box(torch.from_numpy(np.maximum(0, -start)), torch.from_numpy(np.minimum(size, shape - start) - 1))
            if two_d:
                image, inside = image[:, 0], Box(inside.first[1:], inside.last[1:])
            (query, of_query), (key, of_key) = (self.views(torch.from_numpy(image)) for _ in range(2))
            voxels, places, sources = shared_locations(of_query, of_key, inside, self.locations, rng)
            if len(voxels) >= min(FEWEST, self.locations):
                return query, key, voxels, places, sources, redrawn
        return None
