"""SemCL's batches: query patches around objects, as many of each object, two views of each query."""

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
    """Batch number i, a function of the seed and i alone.

    So a run repeats bit for bit whatever the number of workers, and resuming is starting at a later number.

    Args:
        attentions: query centres and segmentations of the cases to draw from; each gives the same share of an
            object's queries, so that few labelled cases are not lost among many unlabelled ones.
        views: draws the views of a query.
        queries: how many queries a batch holds at most: O classes with K >= 2 queries each.
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
        self.seed = seed

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Of B = 2 O K views, first and second of each query in turn: image (B, C, X, Y[, Z]) float32,
        mask (B, 1, X, Y[, Z]) float32 of 0 and 1, object (B,) and query (B,) int64, numbers of the class and of the
        query that a view shows."""
        with seeded(self.seed, number) as rng:
            images, masks, objects = [], [], []
            for i in rng.choice(len(self.classes), self.classes_per_batch, replace=False):
                o, image_label = self.classes[i]
                labels = torch.tensor(labels_of(o))
                for attention, case in self._cases(o, image_label, rng):
                    for image, segmentation in self._query(attention, case, o, labels, rng):
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

    def _cases(self, o: Object, image_label: str, rng: np.random.Generator) -> Iterator[tuple[Attention, str]]:
        """As many different cases as there are, each once before any comes twice."""
        cases_of = {a: [c for c in a.centres.get(o, ()) if self._label(c) == image_label] for a in self.attentions}
        having = [(attention, cases) for attention, cases in cases_of.items() if cases]
        for (attention, cases), share in zip(having, split_evenly(self.queries_per_class, len(having)), strict=True):
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
