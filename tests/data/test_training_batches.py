"""Batches are nnU-Net's: through a real trainer on preprocessed cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nnunet_semcl.data.training_batches import TrainingBatches, shares


@pytest.fixture
def trainer(make_trainer):
    trainer = make_trainer()
    trainer.initialize()
    return trainer


def equal(a: dict, b: dict) -> bool:
    flat = [[entry["image"], *entry["target"]] for entry in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*flat, strict=True))


def test_they_are_what_nnunets_loader_draws_under_the_same_seed(trainer):
    labelled, _ = trainer.get_tr_and_val_datasets()
    batches = TrainingBatches(trainer, [labelled], seed=1)
    batch = batches[4]
    assert equal(batch, TrainingBatches(trainer, [labelled], seed=1)[4])
    assert not equal(batch, batches[5]) and not equal(batch, TrainingBatches(trainer, [labelled], seed=2)[4])
    trainer.probabilistic_oversampling = True
    of_nnunet = next(trainer.get_dataloaders()[0])
    assert batch["image"].shape == of_nnunet["data"].shape and batch["image"].dtype == of_nnunet["data"].dtype
    assert [(t.shape, t.dtype) for t in batch["target"]] == [(t.shape, t.dtype) for t in of_nnunet["target"]]
    trainer.loss(trainer.network(batch["image"]), batch["target"]).backward()


def test_workers_change_nothing_and_the_callers_random_state_is_untouched(trainer):
    batches = TrainingBatches(trainer, [trainer.get_tr_and_val_datasets()[0]], seed=1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    here = [batches[i] for i in range(3)]
    assert (np.random.rand(), torch.rand(1)) == expected
    there = DataLoader(batches, batch_size=None, sampler=range(3), num_workers=2)
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))


def test_data_sets_share_a_batch_and_labels_come_at_full_resolution(trainer):
    labelled, validation = trainer.get_tr_and_val_datasets()
    batch = TrainingBatches(trainer, [labelled, validation], seed=0, as_labels=True)[0]
    assert len(batch["image"]) == trainer.batch_size
    assert batch["target"].shape == (trainer.batch_size, 1, *trainer.configuration_manager.patch_size)
    assert batch["target"].unique().tolist()[:2] == [0, 1]


def test_shares():
    assert shares(12, 2) == [6, 6] and shares(3, 2) == [2, 1] and shares(5, 3) == [2, 2, 1]
