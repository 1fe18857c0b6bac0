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
        queries: how many queries a batch holds at most: O classes with K >= 2 queries each.
        voxels: how many voxels of a batch are sampled for their contrast.
        seed: of all batches.
        image_labels: case -> image label. What is contrasted is an object in images of one label; the same object
            in others is a negative, as in the paper.

        previous_stage_labels: in a cascade, the labels whose masks by the previous stage are further channels of the
            image, as nnU-Net has them in training.

    Attributes:
        classes: (object, image label) that occur; their places are the numbers in a batch's "object".
    """

    def __init__(
        self,
        attentions: Sequence[Attention],
        views: QueryViews,
        queries: int,
        voxels: int,
        seed: int,
        image_labels: dict[str, str] | None = None,
        previous_stage_labels: Sequence[int] = (),
    ) -> None:
        self.attentions = attentions
        self.views = views
        self.image_labels = image_labels or {}
        self.previous_stage_labels = previous_stage_labels
        self.classes: list[tuple[Object, str]] = list(
            dict.fromkeys((o, self._label(c)) for a in attentions for o, cases in a.centres.items() for c in cases)
        )
        self.classes_per_batch = min(len(self.classes), queries // 2)
        self.queries_per_class = queries // self.classes_per_batch
        self.voxels = voxels
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Of B = 2 O K views, first and second of each query in turn: image (B, C, X, Y[, Z]) float32,
        segmentation (B, 1, X, Y[, Z]) int16, mask (B, 1, X, Y[, Z]) float32 of 0 and 1, object (B,) and query (B,)
        int64, numbers of the class and of the query that a view shows. Of V sampled voxels: voxel (V,) int64,
        positions in the flattened second views (B / 2, X, Y[, Z]), and voxel_class (V,) int64, labels."""
        with _seeded(self.seed, number) as rng:
            images, segmentations, masks, objects = [], [], [], []
            for i in rng.choice(len(self.classes), self.classes_per_batch, replace=False):
                o, image_label = self.classes[i]
                labels = torch.tensor(labels_of(o))
                for attention, case in self._cases(o, image_label, rng):
                    for image, segmentation in self._query(attention, case, o, labels, rng):
                        previous = [segmentation[1:] == label for label in self.previous_stage_labels]
                        images.append(torch.cat((image, *previous)))
                        segmentations.append(segmentation[:1])
                        masks.append(torch.isin(segmentation[:1], labels))
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

    def _label(self, case: str) -> str:
        return self.image_labels.get(case, "")

    def _cases(self, o: Object, image_label: str, rng: np.random.Generator) -> Iterator[tuple[Attention, str]]:
        """As many different cases as there are, each once before any comes twice."""
        cases_of = {a: [c for c in a.centres.get(o, ()) if self._label(c) == image_label] for a in self.attentions}
        having = [(attention, cases) for attention, cases in cases_of.items() if cases]
        for number, (attention, cases) in enumerate(having):
            share = (self.queries_per_class + len(having) - 1 - number) // len(having)
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
