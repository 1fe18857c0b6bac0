"""A data set with an ignore label: SemCL fills in what nobody annotated, and leaves everything else as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_semcl.data.filled_cases import FilledCases
from nnunet_semcl.files.cases import Cases
from nnunet_semcl.methods.semcl import coarse_model
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.schedule import divide_epochs

IGNORED = 9
SHARES = {"coarse": 0.25, "pretraining": 0.5}


@pytest.fixture
def half(folders: NNUNetFolders, make_trainer: MakeTrainer, all_confident: None) -> MakeTrainer:
    """Makes trainers on the phantom; in two of the four training cases nobody annotated the first half of the slices.

    Nor in the validation case.
    """
    file = folders.preprocessed / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"]["ignore"] = IGNORED
    file.write_text(json.dumps(content))
    data = folders.preprocessed / "nnUNetPlans_2d"
    cases = infer_dataset_class(str(data))(str(data))
    annotated = training_cases(make_trainer())[2:]
    for case in cases.identifiers:
        image, segmentation, _, properties = cases.load_case(case)
        image, labels = image[:], np.array(segmentation[:], np.int16)
        if case not in annotated:
            labels[:, : labels.shape[1] // 2] = IGNORED
        properties["class_locations"] = {value: np.argwhere(labels == value) for value in range(1, IGNORED)}
        properties["class_locations"][(-1, *range(IGNORED))] = np.argwhere(labels != IGNORED)
        for old in data.glob(f"{case}*"):
            old.unlink()
        cases.save_case(image, labels, properties, str(data / case))

    def make(**options: Any) -> SemCLTrainer:
        trainer = make_trainer(**options)
        trainer.epoch_shares = lambda settings: (SHARES, "a test")
        return trainer

    return make


def training_cases(trainer: SemCLTrainer) -> list[str]:
    return list(trainer.do_split()[0])


def pretrain(trainer: SemCLTrainer) -> dict[str, torch.Tensor]:
    trainer.initialize()
    trainer.pretrain()
    return torch.load(f"{trainer.output_folder}/checkpoint_pretrained.pth", weights_only=True)["network_weights"]


def log(trainer: SemCLTrainer) -> str:
    return "".join(file.read_text() for file in sorted(Path(trainer.output_folder).glob("training_log*.txt")))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_ignored_voxels_are_filled_and_nothing_else_changes(half: MakeTrainer, folders: NNUNetFolders) -> None:
    data = folders.preprocessed / "nnUNetPlans_2d"
    before = {file.name: file.read_bytes() for file in data.iterdir()}
    trainer = half()
    contrasted: list[list[Cases]] = []
    contrast = trainer._contrast_phase
    trainer._contrast_phase = lambda name, cases, *more: (contrasted.append(cases), contrast(name, cases, *more))[1]
    first = pretrain(trainer)
    incomplete = training_cases(trainer)[:2]
    fold = Path(trainer.output_folder)
    for masks, cases in zip(("coarse_masks", "refined_masks"), contrasted, strict=True):
        assert {file.stem for file in (fold / masks).glob("*.pkl")} == set(incomplete)
        assert (fold / f"{masks}.png").is_file()
        line = f"Labelled cases with ignored voxels: 2. Pseudo-labels of {masks} fill "
        assert log(trainer).count(line) == 1
        (filled,) = cases
        assert isinstance(filled, FilledCases)
        assert filled.filled_share > 0.5
        assert sorted(filled.identifiers) == sorted(training_cases(trainer))
        for case in filled.identifiers:
            own = filled.labelled.load_case(case)[1][:]
            labels = filled.load_case(case)[1][:]
            assert np.array_equal(labels[own != IGNORED], own[own != IGNORED])
            changed = labels != own
            assert changed.any() == (case in filled.missing)
            predicted = filled.predicted.load_case(case)[1][:] if case in filled.missing else labels
            assert np.array_equal(labels[changed], predicted[changed])
    assert {file.name: file.read_bytes() for file in data.iterdir()} == before

    shutil.rmtree(folders.root / "results")
    without = half()
    without.use_unlabelled = False
    assert not same(first, pretrain(without))
    assert not (fold / "coarse_masks").exists()


def test_killed_and_continued_is_bit_identical_to_an_uninterrupted_run(
    half: MakeTrainer, folders: NNUNetFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = pretrain(half())
    shutil.rmtree(folders.root / "results")
    predict, calls = coarse_model._predict, []

    def die(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:  # two coarse masks, and the second one of two refined ones
            raise KeyboardInterrupt
        return predict(*args)

    interrupted = half()
    with monkeypatch.context() as patch:
        patch.setattr(coarse_model, "_predict", die)
        with pytest.raises(KeyboardInterrupt):
            pretrain(interrupted)
    assert same(uninterrupted, pretrain(half(resume=True)))


def test_the_share_of_ignored_voxels_divides_the_epochs(half: MakeTrainer, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.num_epochs, trainer.num_iterations_per_epoch = 1000, 250
    shares, reason = SemCLTrainer.epoch_shares(trainer, trainer.Settings.from_plan(trainer.configuration_manager, "2d"))
    few = (0.5 + 0.5) / 4 / 0.75  # two of four cases to one half, against three quarters
    assert shares == pytest.approx({"coarse": 0.25 * few, "pretraining": 0.75 * few + 0.1 * (1 - few)}, abs=6e-4)
    assert reason == "0 of 4 training cases are unlabelled, and ignored voxels of the others count as 1.0 more"
    assert divide_epochs(1000, shares)["coarse"] == 83


def test_without_an_epoch_for_a_coarse_model_they_stay_ignored(half: MakeTrainer) -> None:
    trainer = half()
    trainer.epoch_shares = lambda settings: ({"coarse": 0.0, "pretraining": 0.5}, "a test")
    trainer.initialize()
    next(trainer.pretraining_phases())
    assert "Ignored voxels stay ignored: no epoch is left for a coarse training" in log(trainer)
