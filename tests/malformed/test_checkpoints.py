"""Checkpoints that are damaged or belong to another network, and coarse models that do not load."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from refusal import refused

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely, save_atomically

if TYPE_CHECKING:
    from conftest import NNUNetFolders

    from nnunet_semcl.pretraining.trainer import PretrainingTrainer

CPU = torch.device("cpu")
CASES = [f"phantom_{number:03d}" for number in range(5)]


def rewritten(file: Path, change: Callable[[dict], object]) -> None:
    torch.save(change(torch.load(file, weights_only=False)), file)


def without(key: str) -> Callable[[dict], dict]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def first_rows(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:1] for name, tensor in weights.items()}


# any damage


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict]:
    """A checkpoint as a phase of pretraining saves it, and its content."""
    network = torch.nn.Linear(20, 30)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 20)).sum().backward()
    optimizer.step()
    content = {
        "task": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "records": [{"epoch": 1, "loss": 0.5}],
        "settings": {"trainer": "SemCLTrainer", "query_size": (64, 64)},
    }
    save_atomically(content, tmp_path / "checkpoint_pretraining.pth")
    return tmp_path / "checkpoint_pretraining.pth", content


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_truncated(saved: tuple[Path, dict], share: float) -> None:
    file, content = saved
    intact = file.read_bytes()
    file.write_bytes(intact[: int(share * len(intact))])
    with refused("checkpoint_pretraining.pth is not a readable checkpoint (", "start the training again with --c"):
        load_safely(file, CPU, set(content))


def test_a_flipped_bit_is_found_or_harmless(saved: tuple[Path, dict]) -> None:
    """Some bytes of the archive are unused, such as a member's date; no weight or setting ever changes unnoticed."""
    file, content = saved
    intact = file.read_bytes()
    rng = random.Random(0)
    errors = []
    for _ in range(400):
        place, bit = rng.randrange(len(intact)), rng.randrange(8)
        file.write_bytes(intact[:place] + bytes([intact[place] ^ (1 << bit)]) + intact[place + 1 :])
        try:
            loaded = load_safely(file, CPU, set(content))
        except InputError as error:
            errors.append(str(error))
            continue
        for part in ("records", "settings"):
            assert loaded[part] == content[part]
        for name, weight in content["task"].items():
            assert torch.equal(loaded["task"][name], weight)
        assert str(loaded["optimizer"]) == str(content["optimizer"])
    assert len(errors) > 300
    assert all(re.search(r"checkpoint_pretraining\.pth (is not a readable|contains|lacks) ", text) for text in errors)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], ("contains data of type list, not the keys records, settings",)),
        ({}, ("lacks the keys records, settings, it has none",)),
        ({"settings": {}}, ("lacks the keys records, it has settings",)),
        ({"settings": Path(), "records": []}, ("is not a readable checkpoint (", "Unsupported global")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_foreign_content(tmp_path: Path, content: object, words: tuple[str, ...]) -> None:
    torch.save(content, tmp_path / "checkpoint_coarse.pth")
    with refused("checkpoint_coarse.pth", *words):
        load_safely(tmp_path / "checkpoint_coarse.pth", CPU, {"settings", "records"})


def test_a_checkpoint_that_is_a_folder(tmp_path: Path) -> None:
    with refused(f"{tmp_path} is not a readable checkpoint (", "Is a directory"):
        load_safely(tmp_path, CPU, set())


def test_a_checkpoint_that_does_not_exist(tmp_path: Path) -> None:
    with refused("checkpoint_best.pth does not exist", "Leave --val_best out"):
        load_safely(tmp_path / "checkpoint_best.pth", CPU, set())


# checkpoints of a training

TRAINING: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "no log": (without("logging"), ("lacks the keys logging, it has", "current_epoch")),
    "no epoch": (without("current_epoch"), ("lacks the keys current_epoch, it has", "logging")),
    "no weights": (lambda c: c | {"network_weights": {}}, ("the weights do not fit the current", "Missing key")),
    "weights that are a list": (lambda c: c | {"network_weights": [1]}, ("the weights do not fit the current", "list")),
    "weights of another size": (
        lambda c: c | {"network_weights": first_rows(c["network_weights"])},
        ("the weights do not fit the current", "size mismatch", "Restore the plans that they were trained with"),
    ),
}


@pytest.mark.parametrize(("change", "words"), TRAINING.values(), ids=TRAINING)
def test_a_training_that_cannot_continue(
    make_trainer: Callable[..., PretrainingTrainer], change: Callable[[dict], object], words: tuple[str, ...]
) -> None:
    trainer = make_trainer()
    trainer.initialize()
    file = Path(trainer.output_folder, "checkpoint_latest.pth")
    trainer.save_checkpoint(str(file))
    rewritten(file, change)
    with refused("fold_0/checkpoint_latest.pth", *words):
        make_trainer(resume=True).load_checkpoint(str(file))


def test_plans_that_changed_after_pretraining(
    folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]
) -> None:
    def pretrain(resume: bool) -> None:
        trainer = make_trainer(resume=resume)
        trainer.num_epochs = 2
        trainer.initialize()
        trainer.pretrain()

    pretrain(resume=False)
    plans = folders.preprocessed / "nnUNetTinyPlans.json"
    content = json.loads(plans.read_text())
    network = content["configurations"]["2d"]["architecture"]["arch_kwargs"]
    network["n_conv_per_stage"] = [2 for _ in network["strides"]]
    plans.write_text(json.dumps(content))
    with refused(
        "checkpoint_pretrained.pth",
        "the weights do not fit the current",
        "Restore the plans that they were trained with",
    ):
        pretrain(resume=True)


# coarse models


@pytest.fixture
def model(folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]) -> Path:
    """The files of a finished model of the fold, which the plans name."""
    splits = [{"train": CASES[:2], "val": CASES[4:], "unlabelled": CASES[2:4]}]
    (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    trainer = make_trainer("nnUNetTrainerShort")
    trainer.initialize()
    folder = Path(trainer.output_folder_base)
    shutil.copy(folders.preprocessed / "nnUNetTinyPlans.json", folder / "plans.json")
    shutil.copy(folders.preprocessed / "dataset.json", folder / "dataset.json")
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["semcl"] = {"coarse_model": str(folder)}
    (folders.preprocessed / "nnUNetTinyPlans.json").write_text(json.dumps(plans))
    return folder


def text(content: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(content)


def checkpoint(change: Callable[[dict], object]) -> Callable[[Path], object]:
    return lambda file: rewritten(file, change)


FINAL = "fold_0/checkpoint_final.pth"
COARSE: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "no plans": ("plans.json", Path.unlink, ("no plans.json", "or train that fold first")),
    "truncated plans": ("plans.json", text('{"dataset_name": "Da'), ("plans.json", "broken JSON")),
    "plans that are a list": ("plans.json", text("[]"), ("plans.json has no dataset_name", "Name a model")),
    "plans without configurations": (
        "plans.json",
        text('{"dataset_name": "Dataset999_Phantom"}'),
        ("nnU-Net cannot load", "Name another model"),
    ),
    "dataset.json that is null": ("dataset.json", text("null"), ("dataset.json has no labels", "Name a model")),
    "dataset.json without labels": ("dataset.json", text("{}"), ("dataset.json has no labels", "Name a model")),
    "other labels": (
        "dataset.json",
        text('{"labels": {"background": 0}}'),
        ("was trained with the labels {'background': 0}, not",),
    ),
    "not finished": (FINAL, Path.unlink, ("no fold_0/checkpoint_final.pth", "finished fold 0")),
    "a truncated checkpoint": (
        FINAL,
        lambda f: f.write_bytes(f.read_bytes()[:5000]),
        (FINAL, "is not a readable checkpoint"),
    ),
    "a checkpoint with only weights": (
        FINAL,
        checkpoint(lambda c: {"network_weights": c["network_weights"]}),
        (FINAL, "lacks the keys init_args, trainer_name, it has network_weights"),
    ),
    "a checkpoint without weights": (
        FINAL,
        checkpoint(lambda c: c | {"network_weights": {}}),
        ("nnU-Net cannot load", "Missing key"),
    ),
    "an unknown trainer": (
        FINAL,
        checkpoint(lambda c: c | {"trainer_name": "NoTrainer"}),
        ("nnU-Net cannot load", "NoTrainer"),
    ),
    "an unknown configuration": (
        FINAL,
        checkpoint(lambda c: c | {"init_args": {"configuration": "4d"}}),
        ("nnU-Net cannot load", "4d"),
    ),
}


@pytest.mark.parametrize(("file", "change", "words"), COARSE.values(), ids=COARSE)
def test_a_coarse_model(
    make_trainer: Callable[..., PretrainingTrainer],
    model: Path,
    file: str,
    change: Callable[[Path], object],
    words: tuple[str, ...],
) -> None:
    change(model / file)
    with refused("nnUNetTrainerShort__nnUNetTinyPlans__2d", *words):
        make_trainer().initialize()
