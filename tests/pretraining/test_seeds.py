"""Which batches a phase draws: others than every other phase, and the same again only where a seed says so."""

from __future__ import annotations

import json

import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.cli import main


def phases(trainer: nnUNetTrainer) -> dict[str, torch.Tensor]:
    """Phase -> its first batch's patches, under the same pseudo-labels in each."""
    trainer.num_epochs = 6  # three of pretraining
    trainer.initialize()
    batches = {}
    for phase in trainer.pretraining_phases():
        batches[phase.name] = phase.batches[0].get("image", phase.batches[0].get("patch"))
        phase.task.remove_additions()
    return batches


def test_no_phase_replays_the_patches_of_another(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    first = phases(make_trainer(fold=5))
    assert list(first) == ["coarse", "pretraining", "refinement", "refinement_2"]
    patches = [batch[0] for batch in first.values()]  # of a labelled case in each
    assert not any(torch.equal(one, other) for i, one in enumerate(patches) for other in patches[:i])
    again = phases(make_trainer(fold=5))
    assert all(torch.equal(again[name], batch) for name, batch in first.items())


def test_without_a_seed_each_run_draws_its_own_and_c_finds_it(
    folders: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    def unseeded(resume: bool = False) -> nnUNetTrainer:
        trainer = make_trainer(resume=resume)
        trainer.seed = None
        return trainer

    trainer = unseeded()
    trainer.initialize()
    trainer.pretrain()
    entry = json.loads((folders.fold("SemCLTrainerShort", "2d") / "semcl_settings.json").read_text())["seed"]
    assert entry["value"] == trainer.batch_seed
    assert "drawn" in entry["reason"]
    log = next(folders.fold("SemCLTrainerShort", "2d").glob("training_log*.txt")).read_text()
    assert f"seed: {trainer.batch_seed}" in log
    assert unseeded(resume=True).batch_seed == trainer.batch_seed
    assert unseeded().batch_seed != trainer.batch_seed
