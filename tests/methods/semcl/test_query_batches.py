from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nnunet_semcl.methods.semcl.attention import Attention
from nnunet_semcl.methods.semcl.query_batches import QueryBatches
from nnunet_semcl.methods.semcl.query_views import QueryViews


class Cases:
    """Six cases with three objects; the image holds the case's number. Only one case shows object 3."""

    source_folder = "preprocessed"
    identifiers = tuple(f"case{i}" for i in range(6))

    def load_case(self, case: str) -> tuple:
        number = int(case[4:])
        segmentation = np.zeros((1, 4, 40, 40), np.int16)
        segmentation[:, :, 4:14, 4:14] = 1
        segmentation[:, :, 24:34, 20:34] = 2
        if number == 5:
            segmentation[:, :, 2, 30] = 3
        locations = {obj: np.argwhere(segmentation == obj) for obj in (1, 2, 3)}
        return np.full(segmentation.shape, number, np.float32), segmentation, None, {"class_locations": locations}


def batches(queries: int = 12, seed: int = 0, size: tuple[int, ...] = (16, 16)) -> QueryBatches:
    views = QueryViews(size, (-0.3, 0.3), tuple(range(len(size))), False)
    views._intensities = lambda **data: data  # so that the image still holds the case's number
    return QueryBatches([Attention(Cases(), [1, 2, 3])], views, queries, seed)


def cases_by_object(batch: dict[str, torch.Tensor]) -> dict[int, list[int]]:
    seen: dict[int, list[int]] = {}
    for image, obj in zip(batch["image"][::2], batch["object"][::2].tolist(), strict=True):
        seen.setdefault(obj, []).append(int(image.max()))
    return seen


@pytest.mark.parametrize("size", [(16, 16), (4, 16, 16)])
def test_shapes_and_balance(size: tuple[int, ...]) -> None:
    batch = batches(size=size)[0]
    assert batch["image"].shape == batch["mask"].shape == (24, 1, *size)
    assert batch["image"].dtype == batch["mask"].dtype == torch.float32
    assert batch["object"].bincount().tolist() == [8, 8, 8]
    assert batch["query"].tolist() == [i // 2 for i in range(24)]
    assert (batch["mask"].flatten(1).sum(1) > 0).all()


def test_queries_of_an_object_come_from_different_cases_if_possible() -> None:
    for number in range(5):
        seen = cases_by_object(batches()[number])
        assert all(len(set(seen[obj])) == 4 for obj in (0, 1))
        assert seen[2] == [5, 5, 5, 5]


def test_each_attention_gives_an_equal_share_of_an_objects_queries() -> None:
    few, many = Cases(), Cases()
    few.identifiers = ("case0",)
    many.identifiers = ("case1", "case2", "case3", "case5")
    views = batches().views
    both = QueryBatches([Attention(few, [1, 2]), Attention(many, [1, 2, 3])], views, 15, 0)
    seen = cases_by_object(both[0])
    for obj in (0, 1):  # five queries: three from the single case, two from the others
        assert seen[obj].count(0) == 3
        assert len(set(seen[obj])) == 3
    assert seen[2] == [5] * 5  # only one case shows object 3


def test_a_mask_covers_its_object() -> None:
    class Shown(Cases):
        def load_case(self, case: str) -> tuple:
            _, segmentation, previous, properties = super().load_case(case)
            return segmentation.astype(np.float32), segmentation, previous, properties

    shown = batches(size=(4, 16, 16))
    shown.attentions = [Attention(Shown(), [1, 2, 3])]
    batch = shown[0]
    inside = batch["image"][batch["mask"] > 0]
    labels = (batch["object"] + 1.0).view(-1, 1, 1, 1, 1).expand_as(batch["mask"])[batch["mask"] > 0]
    assert (inside - labels).abs().median() == 0  # the borders of a rotated image are interpolated


def test_an_object_in_images_of_another_label_is_another_class() -> None:
    labels = {"case0": "portal venous", "case1": "portal venous", "case5": "non-contrast"}
    labelled = QueryBatches([Attention(Cases(), [1, 2, 3])], batches().views, 14, 0, labels)
    expected = {(obj, label) for obj in (1, 2) for label in ("portal venous", "non-contrast", "")}
    assert set(labelled.classes) == expected | {(3, "non-contrast")}
    for i, cases in cases_by_object(labelled[0]).items():
        assert {labels.get(f"case{c}", "") for c in cases} == {labelled.classes[i][1]}


def test_in_a_cascade_the_previous_stages_masks_are_channels_with_the_same_transform() -> None:
    class Cascade(Cases):
        def load_case(self, case: str) -> tuple:
            image, segmentation, _, properties = super().load_case(case)
            return image, segmentation, segmentation[0], properties  # a perfect previous stage

    cascade = QueryBatches([Attention(Cascade(), [1, 2])], batches().views, 8, 0, None, [1, 2, 3])
    batch = cascade[0]
    assert batch["image"].shape[1] == 1 + 3
    for obj, image, mask in zip(batch["object"], batch["image"], batch["mask"], strict=True):
        assert torch.equal(image[1 + obj], mask[0])  # objects 0 and 1 are labels 1 and 2


def test_few_queries_mean_fewer_objects_with_two_queries_each() -> None:
    drawn = set()
    for number in range(10):
        batch = batches(queries=5)[number]
        assert [count for count in batch["object"].bincount().tolist() if count] == [4, 4]
        drawn |= set(batch["object"].tolist())
    assert drawn == {0, 1, 2}


def test_a_batch_depends_only_on_seed_and_number() -> None:
    first = batches()[3]
    np.random.seed(99)
    torch.manual_seed(99)
    again = batches()
    again[7]
    again = again[3]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["image"], batches(seed=1)[3]["image"])
    assert not torch.equal(first["image"], batches()[4]["image"])


def test_workers_change_nothing() -> None:
    alone = [batches()[i] for i in range(4)]
    by_workers = list(DataLoader(batches(), batch_size=None, sampler=range(4), num_workers=2))
    for a, b in zip(alone, by_workers, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_callers_random_state_is_untouched() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    batches()[0]
    assert (np.random.rand(), torch.rand(1)) == expected


def test_a_segmentation_that_does_not_match_the_centres_is_reported() -> None:
    lost = batches()
    lost.attentions[0].cut = lambda case, box: (
        np.zeros((1, 1, 40, 40), np.float32),
        np.zeros((1, 1, 40, 40), np.int16),
    )
    message = r"Case case\d.*locations in preprocessed do not match the segmentation: preprocess"
    with pytest.raises(RuntimeError, match=message):
        lost[0]
