"""A fold's network in each state: the weights that the training had then; and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.trained_fold import TrainedFold, find_fold

TrainFold = Callable[..., Path]


def find(
    configuration: str = "2d", trainer: str = "SemCLTrainerShort", fold: str = "0", device: str = "cpu"
) -> TrainedFold:
    return find_fold("999", configuration, trainer, "nnUNetTinyPlans", fold, device)


def look(**arguments: str) -> None:
    found = find(**arguments)
    assert found.cases
    found.saved_states()


def same(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[key], weights[key]) for key in own)


def test_each_state_has_the_weights_that_the_training_had_then(
    folders: NNUNetFolders, make_trainer: MakeTrainer, trained_fold: TrainFold
) -> None:
    fold = trained_fold()
    before = {file: file.read_bytes() for file in fold.parent.rglob("*") if file.is_file()}
    found = find()
    assert found.folder == fold
    states = found.saved_states()
    assert list(states) == ["initial", "pretrained", "trained"]
    saved = {state: torch.load(file, weights_only=False) for state, file in states.items() if file}
    assert all(same(found.predictor(states[state]).network, of["network_weights"]) for state, of in saved.items())
    assert found.predictor(states["trained"]).allowed_mirroring_axes == (0, 1)
    assert found.predictor(states["pretrained"]).allowed_mirroring_axes is None
    assert {file: file.read_bytes() for file in fold.parent.rglob("*") if file.is_file()} == before

    trainer = make_trainer()  # with a seed
    trainer.initialize()
    assert same(found.predictor(None).network, trainer.network.state_dict())


def test_the_coarse_network_is_found_while_a_run_has_it(
    folders: NNUNetFolders, make_trainer: MakeTrainer, trained_fold: TrainFold
) -> None:
    fold = trained_fold()
    for file in fold.glob("checkpoint_*.pth"):
        file.unlink()
    trainer = make_trainer()
    trainer.initialize()
    coarse = next(trainer.pretraining_phases())
    coarse.run()
    states = find().saved_states()
    assert list(states) == ["initial", "coarse"]
    assert same(find().predictor(states["coarse"]).network, trainer.network.state_dict())
    assert not same(find().predictor(None).network, trainer.network.state_dict())


def test_labelled_and_held_out_cases(folders: NNUNetFolders, trained_fold: TrainFold) -> None:
    trained_fold()
    splits = json.loads((folders.preprocessed / "splits_final.json").read_text())
    labelled, held_out = find().cases
    assert (labelled, held_out) == (splits[0]["train"], splits[0]["val"])
    every, none = find(fold="all").cases
    assert len(every) == 5
    assert none == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"configuration": "3d_lowres"}, "has no configuration '3d_lowres'"),
        ({"trainer": "Absent"}, "-tr Absent: nnU-Net finds no trainer of this name"),
        ({"fold": "one"}, "'one' is not 'all' or a whole number"),
        ({"fold": "3"}, "has no fold 3, so that its cases are not known"),
        ({"fold": "all"}, r"fold_all has no checkpoint_pretrained.pth and checkpoint_final.pth \(the folder does not"),
        (
            {"configuration": "3d_fullres"},
            "Train the fold: nnUNetv2_train 999 3d_fullres 0 -tr SemCLTrainerShort -p nnU",
        ),
        ({"device": "mps"}, "-device mps: PyTorch finds no such device. Add -device cpu."),
    ],
)
def test_what_is_refused(folders: NNUNetFolders, trained_fold: TrainFold, arguments: dict, message: str) -> None:
    trained_fold()
    if arguments.get("device") == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match=message):
        look(**arguments)


def test_checkpoints_that_cannot_be_used(folders: NNUNetFolders, trained_fold: TrainFold) -> None:
    fold = trained_fold()
    with pytest.raises(InputError, match=r"has no absent\.pth \(checkpoint_final\.pth, checkpoint_pretrained\.pth\)"):
        find().predictor(fold / "absent.pth")
    final = fold / "checkpoint_final.pth"
    content = torch.load(final, weights_only=False)
    content["network_weights"].popitem()
    torch.save(content, final)
    with pytest.raises(InputError, match="the weights do not fit"):
        find().predictor(final)
    final.write_bytes(b"garbage")
    with pytest.raises(InputError, match=re.escape(f"{final} is not a readable checkpoint")):
        find().predictor(final)


def test_a_second_stage_of_a_cascade_is_refused(folders: NNUNetFolders, trained_fold: TrainFold) -> None:
    trained_fold()
    file = folders.preprocessed / "nnUNetTinyPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    file.write_text(json.dumps(plans))
    with pytest.raises(InputError, match=r"second stage of a cascade.*Look into the first one: -c 3d_lowres"):
        find("cascade")
