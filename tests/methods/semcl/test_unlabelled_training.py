"""A fold with hidden labels: coarse training, soft masks and contrast, killed and continued at each step."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_semcl.cli import main
from nnunet_semcl.data import pseudo_labels
from nnunet_semcl.data.pseudo_labels import (
    Prediction,
    PseudoLabelledCases,
    Trust,
    maybe_background,
    save_pseudo_labels,
)
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.methods.semcl import coarse_model
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.process_pool import ProcessPool

FOLD = 5  # fold 0 with two labelled cases


@pytest.fixture
def budget(folders: NNUNetFolders, all_confident: None) -> NNUNetFolders:
    """Two labelled and two hidden cases; every prediction counts as confident, so that hidden cases are drawn."""
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    return folders


def pretrain(trainer: SemCLTrainer) -> dict[str, torch.Tensor]:
    trainer.initialize()
    trainer.pretrain()
    return torch.load(f"{trainer.output_folder}/checkpoint_pretrained.pth", weights_only=True)["network_weights"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def masked_cases(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.b2nd") if not path.stem.endswith("_seg")}


def split(folders: NNUNetFolders) -> dict[str, list[str]]:
    return json.loads((folders.preprocessed / "splits_final.json").read_text())[FOLD]


def test_hidden_cases_are_used_and_their_labels_are_not(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    first = pretrain(make_trainer(fold=FOLD))
    fold = budget.fold("SemCLTrainerShort", "2d", fold=FOLD)
    assert masked_cases(fold / "coarse_masks") == set(split(budget)["unlabelled"])
    assert masked_cases(fold / "refined_masks") == set(split(budget)["unlabelled"])
    for phase in ("coarse", "pretraining", "refinement"):
        assert (fold / f"{phase}_log.jsonl").is_file()
        assert (fold / f"{phase}.png").is_file()
    assert not list(fold.glob("checkpoint_coarse.pth"))

    data = budget.preprocessed / "nnUNetPlans_2d"
    for case in split(budget)["unlabelled"]:
        (data / f"{case}_seg.b2nd").write_bytes(b"garbage")
        (data / f"{case}.pkl").write_bytes(b"garbage")
    shutil.rmtree(budget.root / "results")
    assert same(first, pretrain(make_trainer(fold=FOLD)))

    shutil.rmtree(budget.root / "results")
    without = make_trainer(fold=FOLD)
    without.use_unlabelled = False
    assert not same(first, pretrain(without))


def test_validation_labels_do_not_influence_the_coarse_model(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    first = pretrain(make_trainer(fold=FOLD))
    data = budget.preprocessed / "nnUNetPlans_2d"
    cases = infer_dataset_class(str(data))(str(data))
    rng = np.random.default_rng(0)
    for case in split(budget)["val"]:
        image, segmentation, _, properties = cases.load_case(case)
        image, noise = image[:], rng.integers(0, 9, segmentation.shape, dtype=np.int16)
        properties["class_locations"] = {label: np.argwhere(noise == label) for label in range(1, 9)}
        for old in data.glob(f"{case}*"):
            old.unlink()
        cases.save_case(image, noise, properties, str(data / case))
    shutil.rmtree(budget.root / "results")
    assert same(first, pretrain(make_trainer(fold=FOLD)))


def test_after_pretraining_its_cases_are_not_needed(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(fold=FOLD)
    trainer.run_training()
    epochs = trainer.epochs
    for case in split(budget)["unlabelled"]:
        for file in (budget.preprocessed / "nnUNetPlans_2d").glob(f"{case}*"):
            file.unlink()
    with pytest.raises(InputError, match="no preprocessed image"):
        make_trainer(fold=FOLD).initialize()
    continued = make_trainer(fold=FOLD, resume=True)  # as for --c and --val
    continued.load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    assert continued.epochs == epochs
    assert continued.current_epoch == epochs["training"]


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "moment", ["coarse", "coarse masks", "pretraining", "refinement", "refined masks 2", "refinement_2"]
)
def test_killed_and_continued_is_bit_identical_to_an_uninterrupted_run(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "refinement":
        budget.set_in_plans("2d", semcl={"objective": "place"})

    def with_all_phases(resume: bool = False) -> SemCLTrainer:
        trainer = make_trainer(fold=FOLD, resume=resume)
        trainer.num_epochs = 6  # three of pretraining
        return trainer

    uninterrupted = pretrain(with_all_phases())
    shutil.rmtree(budget.root / "results")
    interrupted = with_all_phases()
    interrupted.initialize()
    with monkeypatch.context() as patch:
        if "masks" in moment:
            predict, calls = coarse_model._predict, []

            def die(*args: Any) -> Any:
                calls.append(args)
                if len(calls) == (2 if moment == "coarse masks" else 6):  # the second of two cases
                    raise Killed
                return predict(*args)

            patch.setattr(coarse_model, "_predict", die)
        else:

            def die_in(phase: PretrainingPhase) -> None:
                if phase.name == moment:
                    raise Killed

            patch.setattr(PretrainingPhase, "_log_epoch", die_in)
        with pytest.raises(Killed):
            interrupted.pretrain()
    continued = with_all_phases(resume=True)
    lines = logged(continued)
    assert same(uninterrupted, pretrain(continued))
    built = [line.split()[0].lower() for line in lines if " by " in line and "Task:" in line]
    # The model of the masks that are not complete, and what follows; no phase that is past.
    phases = ["coarse", "pretraining", "refinement", "refinement_2"]
    first = {"coarse masks": "coarse", "refined masks 2": "refinement"}.get(moment, moment)
    assert built == phases[phases.index(first) :]


def logged(trainer: SemCLTrainer) -> list[str]:
    """The lines that a trainer writes from now on."""
    lines: list[str] = []
    log = trainer.print_to_log_file
    trainer.print_to_log_file = lambda *args, **kwargs: (lines.append(" ".join(map(str, args))), log(*args, **kwargs))
    return lines


def test_masks_are_saved_by_spawned_processes(
    folders: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in real trainings: everything reaches the processes, and the same pseudo-labels come out."""
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    trainer = make_trainer(fold=FOLD)
    trainer.initialize()
    images, model = trainer.unlabelled_images(), coarse_model.own_model(trainer)
    trust = trainer._trust(trainer.get_tr_and_val_datasets()[0], trainer._objects())
    written = []
    for name, pool in (("here", coarse_model.ProcessPool), ("spawned", ProcessPool)):
        monkeypatch.setattr(coarse_model, "ProcessPool", pool)
        folder = folders.root / name
        coarse_model.predict_pseudo_labels(model, images, images, trainer, folder, trust)
        written.append({file.name: blosc2.open(str(file))[:] for file in folder.glob("*.b2nd")})
        assert all(pseudo_labels.is_saved(folder / case) for case in images)
    assert written[0].keys() == written[1].keys()
    assert all(np.array_equal(written[0][name], written[1][name]) for name in written[0])


@pytest.mark.parametrize(
    ("fault", "message"), [("full", "cannot write .*: No space left"), ("killed", "a process .* was killed, probably")]
)
def test_a_process_that_cannot_save_stops_the_training(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pseudo_labels.blosc2, "asarray", fail)
    trainer = make_trainer(fold=FOLD)  # whose module changes the pool
    if fault == "killed":
        monkeypatch.setattr(coarse_model, "ProcessPool", ProcessPool)
        monkeypatch.setattr(ProcessPool, "start_method", "fork")  # so that the process knows how to fail
    with pytest.raises(InputError, match=message):
        pretrain(trainer)
    assert not list(Path(trainer.output_folder).glob("checkpoint_pretraining.pth"))


def test_a_new_run_predicts_its_own_masks(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    pretrain(make_trainer(fold=FOLD))
    masks = budget.fold("SemCLTrainerShort", "2d", fold=FOLD) / "coarse_masks"
    for mask in masks.glob("*.b2nd"):
        mask.write_bytes(b"of an older run")
    pretrain(make_trainer(fold=FOLD))
    assert all(mask.stat().st_size > 100 for mask in masks.glob("*.b2nd"))


def test_images_without_labels_are_used(folders: NNUNetFolders, make_trainer: MakeTrainer, all_confident: None) -> None:
    images = folders.raw / "imagesTs"
    assert main(["unlabelled", "-d", "999", "-i", str(images), "-c", "2d", "-np", "1"]) == 0
    trainer = make_trainer()
    pretrain(trainer)
    masks = Path(trainer.output_folder, "coarse_masks")
    assert masked_cases(masks) == {p.name.removesuffix("_0000.nii.gz") for p in images.iterdir()}


def test_images_preprocessed_with_other_plans_are_reported_at_the_start(
    folders: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    assert main(["unlabelled", "-d", "999", "-i", str(folders.raw / "imagesTs"), "-c", "2d", "-np", "1"]) == 0
    record = folders.preprocessed / "nnUNetPlans_2d_unlabelled" / "preprocessing.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"spacing": [9, 9]}))
    with pytest.raises(InputError, match="nnUNetPlans_2d_unlabelled holds cases preprocessed with another spacing"):
        make_trainer().initialize()


def test_a_coarse_model_that_finds_nothing_is_reported(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    """The coarse training is too short for confident voxels, so contrast uses the labelled cases only."""
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    trainer = make_trainer(fold=FOLD)
    lines = logged(trainer)
    pretrain(trainer)
    assert any("too few confident voxels in 2 of 2 predictions" in line for line in lines)
    left_out = ", ".join(sorted(split(folders)["unlabelled"]))
    assert f"Left out of coarse_masks, since no object was found: 2 of 2 cases ({left_out})" in lines


def test_broken_properties_of_a_labelled_case_are_still_reported(
    budget: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    """The counterpart of the garbage above: files that are opened are checked."""
    case = split(budget)["train"][0]
    (budget.preprocessed / "nnUNetPlans_2d" / f"{case}.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="no class_locations"):
        pretrain(make_trainer(fold=FOLD))


def make_regions(budget: NNUNetFolders) -> None:
    """Turns the data set's labels into two regions, one within the other."""
    file = budget.preprocessed / "dataset.json"
    labels = {"background": 0, "body": list(range(1, 9)), "kidneys": [4, 5]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels, "regions_class_order": [1, 4]}))


def save(probabilities: np.ndarray, file: Path, image: Path, trust: Trust) -> None:
    p = torch.from_numpy(probabilities)
    logits = p.logit() if trust.labels.has_regions else p.log()
    save_pseudo_labels(Prediction.from_logits(logits, trust.labels), file, image, trust)


@pytest.mark.parametrize("regions", [False, True])
def test_what_pseudo_labels_do_not_know_has_no_gradient(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, regions: bool
) -> None:
    monkeypatch.setattr("nnunet_semcl.data.lazy_segmentation.CONFIDENT", 0.9)
    if regions:
        make_regions(budget)
    trainer = make_trainer(fold=FOLD)
    trainer.initialize()
    images = trainer.unlabelled_images()
    trust = Trust(trainer._labels_with_ignore, dict.fromkeys(trainer._objects()[:1], 1))
    for case, image in images.items():
        shape = open_case(image).shape[1:]
        probabilities = np.zeros((trainer.label_manager.num_segmentation_heads, *shape), np.float32)
        probabilities[1 - regions] = 1  # label 1, or the first region
        probabilities[:, ..., : shape[-1] // 2] = 0.5  # unsure of everything
        save(probabilities, tmp_path / case, image, trust)
    cases = PseudoLabelledCases(images, tmp_path, trust)
    assert not any(cases.missing.values())
    batch = trainer._patches("pretraining", [cases], False, trainer._labels_with_ignore)[0]
    assert not batch["missing"].any()
    outputs = [torch.randn_like(output, requires_grad=True) for output in trainer.network(batch["image"])]
    trainer._segmentation_loss(trainer._labels_with_ignore)(outputs, batch["target"], batch["missing"]).backward()
    gradient, target = outputs[0].grad.abs().sum(1), batch["target"][0]
    ignored = target[:, -1].bool() if regions else target[:, 0] == trainer._labels_with_ignore.ignore_label
    assert 0.2 < ignored.float().mean() < 0.8
    assert not gradient[ignored].any()
    assert gradient[~ignored].all()


@pytest.mark.parametrize("regions", [False, True])
def test_background_may_be_an_object_that_was_not_found(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, regions: bool
) -> None:
    """Where the mask says background, the loss falls as the network says background or the missing object."""
    monkeypatch.setattr("nnunet_semcl.data.lazy_segmentation.CONFIDENT", 0.9)
    if regions:
        make_regions(budget)
    trainer = make_trainer(fold=FOLD)
    trainer.initialize()
    images = trainer.unlabelled_images()
    found, missing = trainer._objects()[:2]
    trust = Trust(trainer._labels_with_ignore, {found: 1, missing: 1})
    for case, image in images.items():
        shape = open_case(image).shape[1:]
        probabilities = np.zeros((trainer.label_manager.num_segmentation_heads, *shape), np.float32)
        if regions:
            probabilities[0, ..., : shape[-1] // 2] = 1
        else:
            probabilities[1, ..., : shape[-1] // 2] = 1
            probabilities[0, ..., shape[-1] // 2 :] = 1
        save(probabilities, tmp_path / case, image, trust)
    cases = PseudoLabelledCases(images, tmp_path, trust)
    assert all(of == [missing] for of in cases.missing.values())
    batch = trainer._patches("pretraining", [cases], False, trainer._labels_with_ignore)[0]
    heads = [0, 1] if regions else [1, 2]  # of the two objects
    assert batch["missing"].sum(0).nonzero().flatten().tolist() == [heads[1]]

    loss = trainer._segmentation_loss(trainer._labels_with_ignore)
    target = batch["target"][0]
    maybe = target[:, 2].bool() if regions else target[:, 0] == maybe_background(trainer._labels_with_ignore)
    assert 0.2 < maybe.float().mean() < 0.8
    outputs = [torch.zeros_like(output, requires_grad=True) for output in trainer.network(batch["image"])]
    loss(outputs, batch["target"], batch["missing"]).backward()
    gradient = outputs[0].grad.movedim(1, -1)[maybe]
    assert (gradient[:, heads[0]] > 0).all()  # the object that was found is not here
    assert (gradient[:, heads[1]] <= 0).all()  # the missing one may be
