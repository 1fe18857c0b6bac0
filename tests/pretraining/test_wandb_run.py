"""Pretraining in Weights & Biases; in place of its client, whose runs go over the network, one that records."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeTrainer
from nnunetv2.training.logging import nnunet_logger

from nnunet_semcl.pretraining.wandb_run import GROUP


class RecordedRun:
    """The part of wandb.Run that nnU-Net and we use."""

    def __init__(self, number: int, options: dict[str, Any]) -> None:
        self.options = options
        self.id = options.get("id") or f"run{number}"
        self.group = options.get("group") or os.environ.get(GROUP)
        self.step, self.finished = 0, False
        self.config: dict[str, Any] = dict(options.get("config", {}))
        self.summary: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step >= self.step, "W&B drops what is logged to an earlier step"
        assert not self.finished
        self.step = step
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedRun]:
    started: list[RecordedRun] = []

    def init(**options: Any) -> RecordedRun:
        started.append(RecordedRun(len(started), options))
        return started[-1]

    monkeypatch.setattr(nnunet_logger, "wandb", SimpleNamespace(init=init))
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_wandb_project", "phantom")
    monkeypatch.delenv(GROUP, raising=False)
    return started


def test_a_phase_has_a_run_in_nnunets_group(runs: list[RecordedRun], make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("IDEALTrainerShort")
    trainer.initialize()
    trainer.pretrain()
    nnunets, ours = runs
    assert nnunets.group == ours.group == "Dataset999_Phantom IDEALTrainerShort__nnUNetTinyPlans__2d fold_0"
    assert GROUP not in os.environ
    assert (ours.options["project"], ours.options["job_type"]) == ("phantom", "pretraining")
    assert ours.id == f"{nnunets.id}-pretraining"
    assert ours.options["dir"] != nnunets.options["dir"]
    assert ours.config["temperature"] == 0.2
    assert [step for step, _ in ours.logged] == [1, 2]
    assert {"loss", "held_out_loss", "learning_rate", "seconds"} <= ours.logged[0][1].keys()
    assert ours.finished
    assert not nnunets.finished
    assert nnunets.logged == []  # its steps are the epochs of the training that follows


def test_a_group_of_the_users(
    runs: list[RecordedRun], make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GROUP, "mine")
    make_trainer("IDEALTrainerShort")
    assert runs[0].group == os.environ[GROUP] == "mine"
