"""Places follow nnU-Net's own augmentation, which is shown with a real trainer on preprocessed cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeTrainer

from nnunet_semcl.data.places import Body, places_in_box, sample_places
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.files.cases import Cases


class Parts:
    """Cases whose label says in which of eight parts of the body a voxel is."""

    def __init__(self, dataset: Cases) -> None:
        self.dataset, self.identifiers = dataset, dataset.identifiers

    def load_case(self, case: str) -> tuple[Any, ...]:
        image, _, *others = self.dataset.load_case(case)
        body = Body.of_case(image)
        middle = [first + size / 2 for first, size in zip(body.first, body.size, strict=True)]
        halves = [np.arange(n) + 0.5 > half for n, half in zip(image.shape[1:], middle, strict=True)]
        x, y, z = np.meshgrid(*halves, indexing="ij")
        return image, (1 + x + 2 * y + 4 * z).astype(np.int16)[None], *others


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_places_are_those_of_the_augmented_labels(make_trainer: MakeTrainer, configuration: str) -> None:
    trainer = make_trainer(configuration=configuration)
    trainer.initialize()
    cases = Parts(trainer.get_tr_and_val_datasets()[0])
    batches = TrainingBatches(trainer, [cases], seed=1, copy_paste=True, places=200)
    agree, at_edge = [], []
    for number in range(4):
        batch = batches[number]
        assert batch["place"].shape == (len(batch["placed"]), 3)
        part = 1 + ((batch["place"] > 0.5) * torch.tensor([1, 2, 4])).sum(1)
        agree.append(part == batch["target"][0].flatten()[batch["placed"]])
        at_edge.append(((batch["place"] - 0.5).abs() < 0.06).any(1))  # the label there is interpolated otherwise
    assert len(torch.cat(agree)) > 400
    assert (torch.cat(agree) | torch.cat(at_edge)).all()
    assert torch.cat(agree).float().mean() > 0.9


def test_without_places_a_batch_is_the_same(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.initialize()
    cases = [trainer.get_tr_and_val_datasets()[0]]
    plain = TrainingBatches(trainer, cases, seed=1, copy_paste=True)[3]
    placed = TrainingBatches(trainer, cases, seed=1, copy_paste=True, places=50)[3]
    assert torch.equal(placed["image"], plain["image"])
    assert all(torch.equal(a, b) for a, b in zip(placed["target"], plain["target"], strict=True))
    assert set(placed) - set(plain) == {"placed", "place"}


def test_coordinates_of_a_box_that_leaves_the_case() -> None:
    places = places_in_box(((-1, 0, 2), (2, 1, 4)), (4, 1, 4), Body((0, 0, 0), (4, 1, 4), dark=0))
    assert places.shape == (4, 3, 1, 2)
    assert places[0, :, 0, 0].tolist() == [-0.125, 0.125, 0.375]
    assert places[1].unique().tolist() == [0.5]
    assert places[2, 0, 0].tolist() == [0.625, 0.875]
    assert places[3, :, 0, 0].tolist() == [0, 1, 1]


def test_places_are_relative_to_the_body() -> None:
    """A bright body in dark air with noise; a single bright voxel far away is none."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-2, -1.8, (2, 20, 30, 40)).astype(np.float32)
    image[0, 5:15, 10:20, 30:34] = 1
    image[0, 0, 0, 0] = 1
    body = Body.of_case(image)
    assert (body.first, body.size) == ((5, 10, 30), (10, 10, 4))
    places = places_in_box(((5, 10, 30), (15, 20, 34)), image.shape[1:], body)
    assert places[0, :, 0, 0].tolist() == pytest.approx(np.arange(0.05, 1, 0.1))
    empty = Body.of_case(np.zeros((1, 3, 4, 5), np.float32))
    assert (empty.first, empty.size) == ((0, 0, 0), (3, 4, 5))


def test_only_voxels_of_the_body_are_drawn_none_twice() -> None:
    places = torch.rand(2, 4, 5, 6)
    places[:, 3] = torch.rand(2, 5, 6) > 0.5
    voxel, place = sample_places(places, 1000, np.random.default_rng(0))
    assert len(voxel.unique()) == len(voxel) == int(places[:, 3].sum())
    assert torch.equal(place, places[:, :3].permute(0, 2, 3, 1).reshape(-1, 3)[voxel])
    assert len(sample_places(places, 7, np.random.default_rng(0))[0]) == 7
