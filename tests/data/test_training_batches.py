"""Batches are nnU-Net's, shown with a real trainer on preprocessed cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import MakeTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.utils.data import DataLoader

from nnunet_semcl.data.training_batches import TrainingBatches, split_evenly
from nnunet_semcl.files.cases import Cases


@pytest.fixture
def trainer(make_trainer: MakeTrainer) -> nnUNetTrainer:
    trainer = make_trainer()
    trainer.initialize()
    return trainer


def equal(a: dict, b: dict) -> bool:
    flat = [[entry["image"], *entry["target"]] for entry in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*flat, strict=True))


def test_they_repeat_with_the_seed_and_have_the_form_of_nnunets_batches(trainer: nnUNetTrainer) -> None:
    labelled, _ = trainer.get_tr_and_val_datasets()
    batches = TrainingBatches(trainer, [labelled], seed=1, copy_paste=False)
    batch = batches[4]
    assert equal(batch, TrainingBatches(trainer, [labelled], seed=1, copy_paste=False)[4])
    assert not equal(batch, batches[5])
    assert not equal(batch, TrainingBatches(trainer, [labelled], seed=2, copy_paste=False)[4])
    trainer.probabilistic_oversampling = True
    expected = next(trainer.get_dataloaders()[0])
    assert batch["image"].shape == expected["data"].shape
    assert batch["image"].dtype == expected["data"].dtype
    assert [(t.shape, t.dtype) for t in batch["target"]] == [(t.shape, t.dtype) for t in expected["target"]]
    trainer.loss(trainer.network(batch["image"]), batch["target"]).backward()


def test_workers_change_nothing_and_the_callers_random_state_is_untouched(trainer: nnUNetTrainer) -> None:
    batches = TrainingBatches(trainer, [trainer.get_tr_and_val_datasets()[0]], seed=1, copy_paste=False)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    alone = [batches[i] for i in range(3)]
    assert (np.random.rand(), torch.rand(1)) == expected
    by_workers = DataLoader(batches, batch_size=None, sampler=range(3), num_workers=2)
    assert all(equal(a, b) for a, b in zip(alone, by_workers, strict=True))


def test_data_sets_share_a_batch(trainer: nnUNetTrainer) -> None:
    class Marked:
        """Cases whose image is constant."""

        def __init__(self, dataset: Cases, number: float) -> None:
            self.dataset, self.identifiers, self.number = dataset, dataset.identifiers, number

        def load_case(self, case: str) -> tuple:
            image, *others = self.dataset.load_case(case)
            return np.full(image.shape, self.number, np.float32), *others

    labelled, other = trainer.get_tr_and_val_datasets()
    batches = TrainingBatches(trainer, [Marked(labelled, 50), Marked(other, -50)], seed=0, copy_paste=False)
    image = batches[0]["image"]
    signs = image.flatten(1).mean(1).sign().tolist()
    assert signs == [1] * (trainer.batch_size // 2) + [-1] * (trainer.batch_size // 2)


def test_halves_swap_boxes_of_image_and_target(trainer: nnUNetTrainer) -> None:
    labelled, _ = trainer.get_tr_and_val_datasets()
    plain = TrainingBatches(trainer, [labelled], seed=1, copy_paste=False)[0]
    pasted = TrainingBatches(trainer, [labelled], seed=1, copy_paste=True)[0]
    half = trainer.batch_size // 2
    for before, after in zip([plain["image"], *plain["target"]], [pasted["image"], *pasted["target"]], strict=True):
        assert not torch.equal(before, after)
        torch.testing.assert_close(before[:half] + before[half:], after[:half] + after[half:])


def test_patches_know_which_objects_their_case_lacks(trainer: nnUNetTrainer) -> None:
    class Incomplete:
        """Cases in which labels 2 and 3 were not found."""

        def __init__(self, dataset: Cases) -> None:
            self.dataset, self.identifiers, self.load_case = dataset, dataset.identifiers, dataset.load_case
            self.missing = {case: [2, 3] for case in self.identifiers}

    labelled, other = trainer.get_tr_and_val_datasets()
    half = trainer.batch_size // 2
    expected = torch.zeros(trainer.batch_size, 9, dtype=torch.bool)
    expected[half:, 2:4] = True
    alone = TrainingBatches(trainer, [labelled, Incomplete(other)], seed=1, copy_paste=False)[0]
    assert torch.equal(alone["missing"], expected)
    pasted = TrainingBatches(trainer, [labelled, Incomplete(other)], seed=1, copy_paste=True)[0]
    swapped = (alone["image"] != pasted["image"]).flatten(1).any(1)
    assert torch.equal(swapped[:half], swapped[half:])
    expected[:half] = expected[half:] & swapped[:half, None]
    assert torch.equal(pasted["missing"], expected)


def test_the_plain_view_has_the_geometry_of_the_augmented_one(trainer: nnUNetTrainer) -> None:
    labelled, _ = trainer.get_tr_and_val_datasets()
    alone = TrainingBatches(trainer, [labelled], seed=1, copy_paste=False)
    both = TrainingBatches(trainer, [labelled], seed=1, copy_paste=False, plain_view=True)
    altered = 0
    for number in range(4):
        batch = both[number]
        assert equal(batch, alone[number])
        assert batch["plain"].shape == batch["image"].shape
        for image, plain in zip(batch["image"], batch["plain"], strict=True):
            altered += not torch.equal(image, plain)
            if plain.std() > 0.1:  # brightness, noise and blur do not move anything
                assert torch.corrcoef(torch.stack((image.flatten(), plain.flatten())))[0, 1].abs() > 0.5
    assert altered


def test_shares() -> None:
    assert split_evenly(12, 2) == [6, 6]
    assert split_evenly(3, 2) == [2, 1]
    assert split_evenly(5, 3) == [2, 2, 1]
