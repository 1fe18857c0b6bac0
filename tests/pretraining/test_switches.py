"""nnU-Net's other options with our trainers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.run.run_training import maybe_load_checkpoint

TRAIN = "nnUNetv2_train 999 2d 0 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu"


def test_npz_then_validation_alone_with_the_best_checkpoint(folders: NNUNetFolders) -> None:
    trained = folders.run(f"{TRAIN} --npz")
    assert trained.returncode == 0, trained.stdout
    fold = folders.fold("SemCLTrainerShort", "2d")
    case = json.loads((folders.preprocessed / "splits_final.json").read_text())[0]["val"][0]
    probabilities = fold / "validation" / f"{case}.npz"
    final_probabilities = np.load(probabilities)["probabilities"]
    assert np.allclose(final_probabilities.sum(0), 1, atol=1e-3)
    best = torch.load(fold / "checkpoint_best.pth", weights_only=False)
    final = (fold / "checkpoint_final.pth").read_bytes()
    for weight in best["network_weights"].values():
        weight.neg_()  # makes the best checkpoint predict differently from the final one
    torch.save(best, fold / "checkpoint_best.pth")

    validated = folders.run(f"{TRAIN} --val --val_best --npz")
    assert validated.returncode == 0, validated.stdout
    assert "epoch" not in validated.stdout.lower()
    assert not np.allclose(np.load(probabilities)["probabilities"], final_probabilities, atol=0.01)
    assert (fold / "checkpoint_final.pth").read_bytes() == final


def test_disable_checkpointing(folders: NNUNetFolders) -> None:
    folders.call("label-budget -d 999 --labelled 2")
    command = "nnUNetv2_train 999 2d 5 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu --disable_checkpointing"
    result = folders.run(command)
    assert result.returncode == 0, result.stdout
    fold = folders.fold("SemCLTrainerShort", "2d", fold=5)
    assert (fold / "validation" / "summary.json").is_file()
    assert not list(fold.glob("**/*.pth"))
    assert not list(fold.glob("**/.*.pth"))


@pytest.mark.parametrize("name", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_pretraining_starts_from_pretrained_weights(make_trainer: MakeTrainer, tmp_path: Path, name: str) -> None:
    given = make_trainer("nnUNetTrainerShort")
    given.initialize()
    file = tmp_path / "given.pth"
    torch.save({"network_weights": given.network.state_dict()}, file)
    trainer = make_trainer(name)
    maybe_load_checkpoint(trainer, continue_training=False, validation_only=False, pretrained_weights_file=str(file))
    task = next(trainer.pretraining_phases()).task
    weights = {key: value for key, value in given.network.state_dict().items() if "seg_layers" not in key}
    found = trainer.planned_network.state_dict()
    assert weights
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    assert {id(p) for p in trainer.planned_network.parameters()} & {id(p) for p in task.parameters()}
