from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nnunet_semcl.files.training_progress import parse_log, read_progress

START = "2026-01-01 10:00:00.000000: 60 epochs in all: 15 of coarse, 42 of pretraining, 3 of training (5 of 6 cases)\n"
COARSE = """
2026-01-01 10:01:00.000000: Coarse epoch {} of 15
2026-01-01 10:01:00.000000: Current learning rate: 0.00100
2026-01-01 10:01:00.000000: Epoch time: 20.00 s
"""
TRAINING = """
2026-01-01 10:01:00.000000: Epoch {}
2026-01-01 10:01:00.000000: Current learning rate: 0.00372
2026-01-01 10:01:20.000000: train_loss -0.5424
2026-01-01 10:01:20.000000: Pseudo dice [np.float32(0.5), 0.25, np.float32(nan), np.float32(0.0)]
2026-01-01 10:01:20.000000: Epoch time: 10.00 s
"""


def test_nothing_is_known_before_the_first_line(tmp_path: Path) -> None:
    progress = read_progress(tmp_path / "absent")
    assert (progress.phase, progress.epoch, progress.seconds_left, progress.is_finished) == ("", 0, None, False)


def test_in_a_phase_of_pretraining() -> None:
    progress = parse_log(START + COARSE.format(1) + COARSE.format(2), 0)
    assert (progress.phase, progress.epoch, progress.epochs) == ("coarse", 3, 15)
    assert progress.seconds_left == pytest.approx((13 + 42 + 3) * 20)
    assert progress.pseudo_dice is None


def test_in_training_after_pretraining() -> None:
    progress = parse_log(START + COARSE.format(15) + TRAINING.format(0) + "2026-01-01 10:02:00.0: Epoch 1\n", 0)
    assert (progress.phase, progress.epoch, progress.epochs) == ("training", 2, 3)
    assert progress.pseudo_dice == pytest.approx(0.25)
    assert progress.seconds_left == pytest.approx(2 * 15)


def test_in_nnunets_own_training(tmp_path: Path) -> None:
    (tmp_path / "training_log_2026_1_1.txt").write_text("2026-01-01 09:00:00.0: Epoch 7\n")
    newest = tmp_path / "training_log_2026_1_2.txt"
    newest.write_text(TRAINING.format(0))
    os.utime(tmp_path / "training_log_2026_1_1.txt", (0, 0))
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "1000"}))
    progress = read_progress(tmp_path)
    assert (progress.phase, progress.epoch, progress.epochs) == ("training", 1, 1000)
    assert progress.seconds_left == pytest.approx(1000 * 10)


def test_in_validation_and_finished(tmp_path: Path) -> None:
    (tmp_path / "training_log_2026_1_1.txt").write_text(TRAINING.format(2) + "2026-01-01 10:03:00.0: predicting a\n")
    assert read_progress(tmp_path).phase == "validation"
    assert not read_progress(tmp_path).is_finished
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "summary.json").write_text(json.dumps({"foreground_mean": {"Dice": 0.75}}))
    progress = read_progress(tmp_path)
    assert progress.is_finished
    assert progress.dice == 0.75
