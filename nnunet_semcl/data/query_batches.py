"""SemCL's batches: query patches around objects, as many of each object, two views of each query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from nnunet_semcl.data.attention import LabelAttention, Object
from nnunet_semcl.data.views import QueryViews

QUERY_DRAWS = 20


class QueryBatches(Dataset):
    """Batch number i, a function of the seed and i alone.

    So a run repeats bit for bit whatever the number of workers, and resuming is starting at a later number.

    Args:
        attention: query centres and masks of the cases to draw from.
        views: draws the views of a query.
        queries: how many queries a batch holds at most: O objects with K >= 2 queries each.
        seed: of all batches.
    """

    def __init__(self, attention: LabelAttention, views: QueryViews, queries: int, seed: int) -> None:
        self.attention = attention
        self.views = views
        self.objects: list[Object] = list(attention.centres)
        self.objects_per_batch = min(len(self.objects), queries // 2)
        self.queries_per_object = queries // self.objects_per_batch
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """With B = 2 O K views: image (B, C, X, Y[, Z]) float32, mask (B, 1, X, Y[, Z]) float32 of 0 and 1,
        object (B,) and query (B,) int64, numbers of the object and of the query that a view shows."""
        with _seeded(self.seed, number) as rng:
            images, masks, objects = [], [], []
            for i in rng.choice(len(self.objects), self.objects_per_batch, replace=False):
                for case in self._cases(self.objects[i], rng):
                    for image, mask in self._query(self.objects[i], case, rng):
                        images.append(image)
                        masks.append(mask)
                        objects.append(int(i))
        return {
            "image": torch.stack(images),
            "mask": torch.stack(masks).float(),
            "object": torch.tensor(objects),
            "query": torch.arange(len(objects)) // 2,
        }

    def _cases(self, o: Object, rng: np.random.Generator) -> Iterator[str]:
        """As many different cases as there are, each once before any comes twice."""
        cases = list(self.attention.centres[o])
        for start in range(0, self.queries_per_object, len(cases)):
            yield from rng.permutation(cases)[: self.queries_per_object - start]

    def _query(self, o: Object, case: str, rng: np.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Two views around a random voxel of the object."""
        two_d = len(self.views.cut_size) == 2
        size = np.array([1, *self.views.cut_size] if two_d else self.views.cut_size)
        for _ in range(QUERY_DRAWS):
            start = rng.choice(self.attention.centres[o][case]) - size // 2
            image, mask = self.attention.cut(case, o, np.stack((start, start + size), axis=1).tolist())
            if two_d:  # nnU-Net keeps 2D data as volumes and reads them slice by slice
                image, mask = image[:, 0], mask[:, 0]
            views = [self.views(torch.from_numpy(image), torch.from_numpy(mask)) for _ in range(2)]
            if all(view is not None for view in views):
                return views
        raise RuntimeError(
            f"Case {case}: in {QUERY_DRAWS} queries of object {o} an augmented view held no voxel of it. "
            f"The attention and the case {self.attention.dataset.source_folder}/{case} do not seem to belong together."
        )


@contextmanager
def _seeded(seed: int, number: int) -> Iterator[np.random.Generator]:
    """Seeds numpy's and torch's global generators, which the transforms draw from, and gives them back as they were."""
    state = np.random.get_state()
    sequence = np.random.SeedSequence((seed, number))
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(sequence.generate_state(4))
            torch.random.default_generator.manual_seed(int(sequence.generate_state(1)[0]))
            yield np.random.default_rng(sequence)
    finally:
        np.random.set_state(state)
