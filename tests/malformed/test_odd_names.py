"""Unusual but valid names: folders with spaces, cases with dots, brackets and letters of many alphabets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from nnunet_semcl.cli import main

if TYPE_CHECKING:
    from conftest import NNUNetFolders

    from nnunet_semcl.pretraining.trainer import PretrainingTrainer

NAMES = {
    "phantom_000": "Müller, Jörg (2)",
    "phantom_001": "1.2.840.10008",
    "phantom_002": "[a]*?",
    "phantom_003": "患者 4",
}


@pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_odd_names_work(
    folders: NNUNetFolders,
    make_trainer: Callable[..., PretrainingTrainer],
    monkeypatch: pytest.MonkeyPatch,
    trainer: str,
) -> None:
    root = folders.root / "my data (copy) ü"
    root.mkdir()
    for name in ("preprocessed", "results"):
        (folders.root / name).rename(root / name)
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    data = root / "preprocessed" / folders.dataset
    for old, new in NAMES.items():
        for file in (data / "nnUNetPlans_2d").glob(f"{old}*"):
            file.rename(file.with_name(file.name.replace(old, new)))
    splits = [{"train": list(NAMES.values()), "val": ["phantom_004"]}]
    (data / "splits_final.json").write_text(json.dumps(splits))
    shutil.rmtree(data / "nnUNetPlans_3d_fullres")
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    made = make_trainer(trainer, fold=1)
    made.initialize()
    made.pretrain()
    fold = Path(made.output_folder)
    assert fold.is_relative_to(root)
    weights = torch.load(fold / "checkpoint_pretrained.pth", weights_only=True)["network_weights"]
    assert all(weight.isfinite().all() for weight in weights.values())
    masks = {file.name.removesuffix(".b2nd") for file in fold.glob("coarse_masks/*.b2nd")}
    hidden = set(json.loads((data / "splits_final.json").read_text())[1]["unlabelled"])
    assert trainer != "SemCLTrainerShort" or masks == hidden | {f"{case}_seg" for case in hidden}
