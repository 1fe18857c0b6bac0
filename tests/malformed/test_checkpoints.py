"""Checkpoints that are damaged or another network's, and coarse models that do not load."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from refusal import refused

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely, save_atomically

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
    """What a phase of pretraining saves."""
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
def test_cut_off(saved: tuple[Path, dict], share: float):
    file, content = saved
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with refused("checkpoint_pretraining.pth: found an unreadable file", "start again with --c"):
        load_safely(file, CPU, set(content))


def test_a_flipped_bit_is_found_or_does_no_harm(saved: tuple[Path, dict]):
    """Some bytes of the archive mean nothing, such as a member's date; a weight or a setting is never another one."""
    file, content = saved
    whole = file.read_bytes()
    rng = random.Random(0)
    found = 0
    for _ in range(400):
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        try:
            loaded = load_safely(file, CPU, set(content))
        except InputError as error:
            assert "checkpoint_pretraining.pth: found " in str(error)
            found += 1
            continue
        for part in ("records", "settings"):
            assert loaded[part] == content[part]
        for name, weight in content["task"].items():
            assert torch.equal(loaded["task"][name], weight)
        assert str(loaded["optimizer"]) == str(content["optimizer"])
    assert found > 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], ("found the content list", "a checkpoint with the keys records, settings")),
        ({}, ("found the content , expected",)),
        ({"settings": {}}, ("found the content settings", "records")),
        ({"settings": Path(), "records": []}, ("unreadable file", "Unsupported global")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_foreign_content(tmp_path: Path, content: object, words: tuple[str, ...]):
    torch.save(content, tmp_path / "checkpoint_coarse.pth")
    with refused("checkpoint_coarse.pth", *words):
        load_safely(tmp_path / "checkpoint_coarse.pth", CPU, {"settings", "records"})


def test_a_checkpoint_that_is_a_folder(tmp_path: Path):
    with refused(str(tmp_path), "unreadable file", "Is a directory"):
        load_safely(tmp_path, CPU, set())


# checkpoints of a training

TRAINING: dict[str, tuple[Callable[[dict], object], tuple[str, ...]]] = {
    "no log": (without("logging"), ("found the content", "current_epoch, logging")),
    "no epoch": (without("current_epoch"), ("found the content", "current_epoch, logging")),
    "no weights": (lambda c: c | {"network_weights": {}}, ("weights of another network", "Missing key")),
    "weights that are a list": (lambda c: c | {"network_weights": [1]}, ("weights of another network", "list")),
    "weights of another size": (
        lambda c: c | {"network_weights": first_rows(c["network_weights"])},
        ("weights of another network", "size mismatch", "Go back to the former plans"),
    ),
}


@pytest.mark.parametrize(("change", "words"), TRAINING.values(), ids=TRAINING)
def test_a_training_that_cannot_go_on(make_trainer, change: Callable[[dict], object], words: tuple[str, ...]):
    trainer = make_trainer()
    trainer.initialize()
    file = Path(trainer.output_folder, "checkpoint_latest.pth")
    trainer.save_checkpoint(str(file))
    rewritten(file, change)
    with refused("fold_0/checkpoint_latest.pth", *words):
        make_trainer(resume=True).load_checkpoint(str(file))


def test_plans_that_were_changed_since(folders, make_trainer):
    def pretrain(resume: bool) -> None:
        trainer = make_trainer(resume=resume)
        trainer.num_pretraining_epochs = 1
        trainer.initialize()
        trainer.pretrain()

    pretrain(resume=False)
    plans = folders.preprocessed / "nnUNetTinyPlans.json"
    content = json.loads(plans.read_text())
    network = content["configurations"]["2d"]["architecture"]["arch_kwargs"]
    network["n_conv_per_stage"] = [2 for _ in network["strides"]]
    plans.write_text(json.dumps(content))
    with refused("checkpoint_pretrained.pth", "weights of another network", "Go back to the former plans"):
        pretrain(resume=True)


# coarse models


@pytest.fixture
def model(folders, make_trainer) -> Path:
    """A finished model of the fold as far as its files go, named by the plans."""
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


def text(content: str) -> Callable[[Path], None]:
    return lambda file: file.write_text(content)


def checkpoint(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda file: rewritten(file, change)


FINAL = "fold_0/checkpoint_final.pth"
COARSE: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "no plans": ("plans.json", Path.unlink, ("no plans.json", "or train that fold first")),
    "plans cut off": ("plans.json", text('{"dataset_name": "Da'), ("plans.json", "broken JSON")),
    "plans that are a list": ("plans.json", text("[]"), ("plans.json: found no dataset_name",)),
    "plans without configurations": (
        "plans.json",
        text('{"dataset_name": "Dataset999_Phantom"}'),
        ("what nnU-Net cannot load", "Name another model"),
    ),
    "dataset.json that is null": ("dataset.json", text("null"), ("dataset.json: found no labels",)),
    "dataset.json without labels": ("dataset.json", text("{}"), ("dataset.json: found no labels",)),
    "other labels": ("dataset.json", text('{"labels": {"background": 0}}'), ("found the labels {'background': 0}",)),
    "not finished": (FINAL, Path.unlink, ("no fold_0/checkpoint_final.pth", "finished fold 0")),
    "a checkpoint cut off": (FINAL, lambda f: f.write_bytes(f.read_bytes()[:5000]), (FINAL, "unreadable file")),
    "a checkpoint of weights alone": (
        FINAL,
        checkpoint(lambda c: {"network_weights": c["network_weights"]}),
        (FINAL, "init_args, network_weights, trainer_name"),
    ),
    "a checkpoint without weights": (
        FINAL,
        checkpoint(lambda c: c | {"network_weights": {}}),
        ("what nnU-Net cannot load", "Missing key"),
    ),
    "an unknown trainer": (
        FINAL,
        checkpoint(lambda c: c | {"trainer_name": "NoTrainer"}),
        ("what nnU-Net cannot load", "NoTrainer"),
    ),
    "an unknown configuration": (
        FINAL,
        checkpoint(lambda c: c | {"init_args": {"configuration": "4d"}}),
        ("what nnU-Net cannot load", "4d"),
    ),
}


@pytest.mark.parametrize(("file", "change", "words"), COARSE.values(), ids=COARSE)
def test_a_coarse_model(make_trainer, model: Path, file: str, change: Callable, words: tuple[str, ...]):
    change(model / file)
    with refused("nnUNetTrainerShort__nnUNetTinyPlans__2d", *words):
        make_trainer().initialize()
