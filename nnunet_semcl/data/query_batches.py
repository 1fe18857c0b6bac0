"""SemCL's batches: query patches around objects, as many of each object, two views of each query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from nnunet_semcl.data.attention import Attention, Object, labels_of
from nnunet_semcl.data.views import QueryViews
from nnunet_semcl.data.voxel_sample import sample_voxels

QUERY_DRAWS = 20


class QueryBatches(Dataset):
    """Batch number i, a function of the seed and i alone.

    So a run repeats bit for bit whatever the number of workers, and resuming is starting at a later number.

    Args:
        attentions: query centres and segmentations of the cases to draw from; each gives the same share of an
            object's queries, so that few labelled cases are not lost among many unlabelled ones.
        views: draws the views of a query.
        queries: how many queries a batch holds at most: O objects with K >= 2 queries each.
        voxels: how many voxels of a batch are sampled for their contrast.
        seed: of all batches.
    """

    def __init__(
        self, attentions: Sequence[Attention], views: QueryViews, queries: int, voxels: int, seed: int
    ) -> None:
        self.attentions = attentions
        self.views = views
        self.objects: list[Object] = list(dict.fromkeys(o for a in attentions for o in a.centres))
        self.objects_per_batch = min(len(self.objects), queries // 2)
        self.queries_per_object = queries // self.objects_per_batch
        self.voxels = voxels
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Of B = 2 O K views, first and second of each query in turn: image (B, C, X, Y[, Z]) float32,
        segmentation (B, 1, X, Y[, Z]) int16, mask (B, 1, X, Y[, Z]) float32 of 0 and 1, object (B,) and query (B,)
        int64, numbers of the object and of the query that a view shows. Of V sampled voxels: voxel (V,) int64,
        positions in the flattened second views (B / 2, X, Y[, Z]), and voxel_class (V,) int64, labels."""
        with _seeded(self.seed, number) as rng:
            images, segmentations, masks, objects = [], [], [], []
            for i in rng.choice(len(self.objects), self.objects_per_batch, replace=False):
                labels = torch.tensor(labels_of(self.objects[i]))
                for attention, case in self._cases(self.objects[i], rng):
                    for image, segmentation in self._query(attention, case, self.objects[i], labels, rng):
                        images.append(image)
                        segmentations.append(segmentation)
                        masks.append(torch.isin(segmentation, labels))
                        objects.append(int(i))
            voxel, voxel_class = sample_voxels(torch.stack(segmentations[1::2])[:, 0], self.voxels, rng)
        return {
            "image": torch.stack(images),
            "segmentation": torch.stack(segmentations),
            "mask": torch.stack(masks).float(),
            "object": torch.tensor(objects),
            "query": torch.arange(len(objects)) // 2,
            "voxel": voxel,
            "voxel_class": voxel_class,
        }

    def _cases(self, o: Object, rng: np.random.Generator) -> Iterator[tuple[Attention, str]]:
        """As many different cases as there are, each once before any comes twice."""
        having = [a for a in self.attentions if o in a.centres]
        for number, attention in enumerate(having):
            share = (self.queries_per_object + len(having) - 1 - number) // len(having)
            cases = list(attention.centres[o])
            for start in range(0, share, len(cases)):
                yield from ((attention, case) for case in rng.permutation(cases)[: share - start])

    def _query(
        self, attention: Attention, case: str, o: Object, labels: torch.Tensor, rng: np.random.Generator
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Two views around a random voxel of the object."""
        two_d = len(self.views.cut_size) == 2
        size = np.array([1, *self.views.cut_size] if two_d else self.views.cut_size)
        for _ in range(QUERY_DRAWS):
            start = rng.choice(attention.centres[o][case]) - size // 2
            image, segmentation = attention.cut(case, np.stack((start, start + size), axis=1).tolist())
            if two_d:  # nnU-Net keeps 2D data as volumes and reads them slice by slice
                image, segmentation = image[:, 0], segmentation[:, 0]
            pair = [self.views(torch.from_numpy(image), torch.from_numpy(segmentation), labels) for _ in range(2)]
            if all(view is not None for view in pair):
                return pair
        raise RuntimeError(
            f"Case {case}: in {QUERY_DRAWS} queries of object {o} an augmented view held no voxel of it. "
            f"Its attention ({type(attention).__name__}) and its image do not seem to belong together."
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
