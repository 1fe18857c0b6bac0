"""SemCL's batches: query patches around objects, equally many per object, with two views of each query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.distributed import split_evenly
from nnunet_semcl.files.cases import Object, labels_of
from nnunet_semcl.methods.semcl.attention import Attention
from nnunet_semcl.methods.semcl.query_views import QueryViews

QUERY_DRAWS = 20


class QueryBatches(Dataset):
    """Batch number i depends only on the seed and i.

    So a run repeats bit for bit with any number of workers, and resuming means starting at a later number.

    Args:
        attentions: query centres and segmentations of the cases to draw from; each gives an equal share of an
            object's queries, so that few labelled cases are not lost among many unlabelled ones.
        views: draws the views of a query.
        queries: largest number of queries in a batch: O classes with K >= 2 queries each.
        seed: of all batches.
        image_labels: case -> image label. A class is an object in images of one label; the same object in images of
            another label is a negative, as in the paper.
        previous_stage_labels: in a cascade, the labels of the previous stage. Their masks are further channels of the
            image, as in nnU-Net's training.

    Attributes:
        classes: the pairs (object, image label) that occur; a batch's "object" holds indices into this list.
    """

    def __init__(
        self,
        attentions: Sequence[Attention],
        views: QueryViews,
        queries: int,
        seed: int,
        image_labels: dict[str, str] | None = None,
        previous_stage_labels: Sequence[int] = (),
    ) -> None:
        self.attentions = attentions
        self.views = views
        self.image_labels = image_labels or {}
        self.previous_stage_labels = previous_stage_labels
        self.classes: list[tuple[Object, str]] = list(
            dict.fromkeys(
                (obj, self._label(case))
                for attention in attentions
                for obj, cases in attention.centres.items()
                for case in cases
            )
        )
        self.classes_per_batch = min(len(self.classes), queries // 2)
        self.queries_per_class = queries // self.classes_per_batch
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Draws batch number `number`, of B = 2 O K views, in which the two views of a query are neighbours.

        Shape:
            image: (B, C, X, Y[, Z]) float32.
            mask: (B, 1, X, Y[, Z]) float32, 0 or 1.
            object: (B,) int64, number of the class that a view shows.
            query: (B,) int64, number of the query.
        """
        with seeded(self.seed, number) as rng:
            images, masks, objects = [], [], []
            for i in rng.choice(len(self.classes), self.classes_per_batch, replace=False):
                obj, image_label = self.classes[i]
                labels = torch.tensor(labels_of(obj))
                for attention, case in self._cases(obj, image_label, rng):
                    for image, segmentation in self._query(attention, case, obj, labels, rng):
                        previous = [segmentation[1:] == label for label in self.previous_stage_labels]
                        images.append(torch.cat((image, *previous)))
                        masks.append(torch.isin(segmentation[:1], labels))
                        objects.append(int(i))
        return {
            "image": torch.stack(images),
            "mask": torch.stack(masks).float(),
            "object": torch.tensor(objects),
            "query": torch.arange(len(objects)) // 2,
        }

    def _label(self, case: str) -> str:
        return self.image_labels.get(case, "")

    def _cases(self, obj: Object, image_label: str, rng: np.random.Generator) -> Iterator[tuple[Attention, str]]:
        """Draws a case for each query of a class; no case comes twice before all have come once."""
        cases_by_attention = {
            attention: [case for case in attention.centres.get(obj, ()) if self._label(case) == image_label]
            for attention in self.attentions
        }
        pools = [(attention, cases) for attention, cases in cases_by_attention.items() if cases]
        for (attention, cases), share in zip(pools, split_evenly(self.queries_per_class, len(pools)), strict=True):
            for start in range(0, share, len(cases)):
                yield from ((attention, case) for case in rng.permutation(cases)[: share - start])

    def _query(
        self, attention: Attention, case: str, obj: Object, labels: torch.Tensor, rng: np.random.Generator
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Draws two views around a random voxel of the object."""
        two_d = len(self.views.cut_size) == 2
        size = np.array([1, *self.views.cut_size] if two_d else self.views.cut_size)
        for _ in range(QUERY_DRAWS):
            start = rng.choice(attention.centres[obj][case]) - size // 2
            image, segmentation = attention.cut(case, np.stack((start, start + size), axis=1).tolist())
            if two_d:  # nnU-Net stores 2D data as volumes of slices
                image, segmentation = image[:, 0], segmentation[:, 0]
            pair = [self.views(torch.from_numpy(image), torch.from_numpy(segmentation), labels) for _ in range(2)]
            views = [view for view in pair if view is not None]
            if len(views) == 2:
                return views
        raise RuntimeError(
            f"Case {case}: in each of {QUERY_DRAWS} queries of object {obj} a view shows no voxel of the object. "
            f"The class locations in {attention.dataset.source_folder} do not match the segmentation: "
            "preprocess the case again."
        )
