"""IDEAL with nnU-Net's own command: both phases, an interruption in either, and prediction by stock nnU-Net."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders

from nnunet_semcl.cli import main
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely
from nnunet_semcl.methods.ideal import variants as ideal_variants
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.pretraining.phase import PretrainingPhase

FOLD = 5  # fold 0 with two labelled cases
COMMAND = f"nnUNetv2_train 999 2d {FOLD} -tr IDEALTrainerShort -p nnUNetTinyPlans -device cpu"


@pytest.fixture
def budget(folders: NNUNetFolders) -> NNUNetFolders:
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    return folders


def final(folder: Path) -> dict:
    return torch.load(folder / "checkpoint_final.pth", weights_only=False)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_both_phases_open_no_hidden_label_and_stock_nnunet_predicts(
    budget: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    data = budget.preprocessed / "nnUNetPlans_2d"
    hidden = json.loads((budget.preprocessed / "splits_final.json").read_text())[FOLD]["unlabelled"]
    for case in hidden:
        (data / f"{case}_seg.b2nd").write_bytes(b"garbage")
        (data / f"{case}.pkl").write_bytes(b"garbage")
    done = budget.run(COMMAND)
    assert done.returncode == 0, done.stdout
    fold = budget.fold("IDEALTrainerShort", "2d", fold=FOLD)
    log = next(fold.glob("training_log*.txt")).read_text()
    assert "2 labelled and 2 unlabelled training cases" in log
    assert "Pretraining done." in log
    weights = [float(w) for w in re.findall(r"Consistency weight: ([\d.]+)", log)]
    assert len(weights) == 2
    assert weights[0] < weights[1] == 1
    assert json.loads((fold / "ideal_settings.json").read_text())["level"]["value"] == 0

    checkpoint = final(fold)
    stock = make_trainer("nnUNetTrainerShort")
    stock.initialize()
    shapes = {key: value.shape for key, value in stock.network.state_dict().items()}
    assert {key: value.shape for key, value in checkpoint["network_weights"].items()} == shapes
    assert checkpoint["nnunet_semcl"]["second_decoder"].keys().isdisjoint(k for k in shapes if "encoder" in k)

    # Prediction needs no class of ours: the export leaves out the second decoder and the optimiser's state.
    model = budget.root / "model"
    options = ["-d", "999", "-c", "2d", "-tr", "IDEALTrainerShort", "-p", "nnUNetTinyPlans", "-f", str(FOLD)]
    assert main(["export", *options, "-o", str(model)]) == 0
    exported = torch.load(model / f"fold_{FOLD}" / "checkpoint_final.pth", weights_only=True)
    assert same(exported["network_weights"], checkpoint["network_weights"])
    assert exported.keys().isdisjoint(("nnunet_semcl", "optimizer_state"))
    del budget.environment["nnUNet_extTrainer"]
    output = budget.root / "out"
    command = f"nnUNetv2_predict_from_modelfolder -m {model} -f {FOLD} -device cpu -npp 1 -nps 1"
    predicted = budget.run(f"{command} -i {budget.raw / 'imagesTs'} -o {output}")
    assert predicted.returncode == 0, predicted.stdout
    assert len(list(output.glob("*.nii.gz"))) == 1, predicted.stdout


@pytest.mark.parametrize("phase", ["pretraining", "training"])
def test_continuing_with_c_in_either_phase_gives_the_same_weights(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(IDEALTrainer, "plot_network_architecture", lambda self: None)

    def trained(trainer: IDEALTrainer) -> tuple[dict, dict]:
        trainer.run_training()
        content = final(budget.fold("IDEALTrainerShort", "2d", fold=FOLD))
        return content["network_weights"], content["nnunet_semcl"]["second_decoder"]

    class Killed(Exception):
        pass

    interrupted = make_trainer("IDEALTrainerShort", fold=FOLD)
    if phase == "pretraining":
        build = interrupted.build_phase

        def build_and_stop(*args: object) -> PretrainingPhase:
            built = build(*args)
            train = built._train
            built._train = lambda batches, epoch: stop() if epoch == 2 else train(batches, epoch)
            return built

        interrupted.build_phase = build_and_stop
    else:
        start = interrupted.on_train_epoch_start
        interrupted.on_train_epoch_start = lambda: stop() if interrupted.current_epoch == 1 else start()

    def stop() -> None:
        raise Killed

    with pytest.raises(Killed):
        interrupted.run_training()
    resumed = make_trainer("IDEALTrainerShort", fold=FOLD, resume=True)
    latest = budget.fold("IDEALTrainerShort", "2d", fold=FOLD) / "checkpoint_latest.pth"
    if phase == "training":
        assert latest.is_file()
        resumed.load_checkpoint(str(latest))
        assert resumed.current_epoch == 1
        saved = load_safely(latest, torch.device("cpu"), {"nnunet_semcl"})["nnunet_semcl"]["second_decoder"]
        assert same(saved, resumed.two_decoders.second.state_dict())
    after = trained(resumed)
    shutil.rmtree(budget.root / "results")
    assert all(same(a, b) for a, b in zip(after, trained(make_trainer("IDEALTrainerShort", fold=FOLD)), strict=True))


def test_without_unlabelled_cases_training_is_nnunets_own(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("IDEALTrainerShort")
    trainer.initialize()
    trainer.on_train_start()
    assert trainer.two_decoders is None
    assert "second_decoder" not in trainer.checkpoint_additions()
    assert trainer.batch_size == trainer.configuration_manager.batch_size
    assert "nnU-Net's own" in next(folders.fold("IDEALTrainerShort", "2d").glob("training_log*.txt")).read_text()
    trainer.on_train_end()


def test_both_decoders_learn_and_the_batch_is_halved(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("IDEALTrainerShort", fold=FOLD)
    trainer.initialize()
    assert trainer.batch_size == trainer.configuration_manager.batch_size // 2
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.consistency_loss.weight = 1.0
    network, loss = trainer.network, trainer.loss
    parts = [trainer.network.encoder, trainer.network.decoder, trainer.two_decoders.second]
    before = [[p.detach().clone() for p in part.stages.parameters()] for part in parts]
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.network is network
    assert trainer.loss is loss
    for part, old in zip(parts, before, strict=True):
        assert all(not torch.equal(a, b) for a, b in zip(part.stages.parameters(), old, strict=True) if a.ndim > 1)

    with torch.no_grad():
        next(trainer.network.parameters()).fill_(torch.nan)
    with pytest.raises(RuntimeError, match=r"the loss is nan.*is kept"):
        trainer.train_step(next(trainer.dataloader_train))


def test_pseudo_labels_are_both_decoders_predictions_without_dropout(
    budget: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer("IDEALTrainerShort", fold=FOLD)
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    plain = next(trainer.unlabelled_batches)["plain"]
    labels = trainer._pseudo_labels(plain)
    assert trainer.two_decoders.training
    assert not any(tensor.requires_grad for tensor in labels)
    # Repeatable, so without dropout; and the first decoder is the planned network's.
    assert all(torch.equal(a, b) for a, b in zip(labels, trainer._pseudo_labels(plain), strict=True))
    assert torch.equal(labels[0], trainer.planned_network(plain)[0].argmax(1, keepdim=True))
    trainer.on_train_end()


@pytest.mark.parametrize("copy_paste", [True, False])
def test_the_second_half_of_a_step_is_unlabelled_with_boxes_of_the_first(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, copy_paste: bool
) -> None:
    trainer = make_trainer("IDEALTrainerShort", fold=FOLD)
    trainer.configuration_manager.configuration["ideal"] = {"copy_paste": copy_paste}
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batch, unlabelled = next(trainer.dataloader_train), next(trainer.unlabelled_batches)
    unlabelled["image"] = batch["data"] + 1000  # shows where each voxel comes from
    monkeypatch.setattr(trainer, "unlabelled_batches", iter([unlabelled]))
    seen = []
    trainer.two_decoders_forward.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    loss = trainer.consistency_loss
    loss.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["pseudo_labels"]), with_kwargs=True)
    expected = trainer._pseudo_labels(unlabelled["plain"])
    trainer.train_step(batch)
    image, pseudo_labels = seen[-2:]  # the earlier entries are from the plain view
    half = len(batch["data"])
    assert torch.equal(image[:half], batch["data"])
    pasted = (image[half:] != unlabelled["image"]).any(1, keepdim=True)
    assert pasted.any() == copy_paste
    assert torch.equal(image[half:][pasted], batch["data"][pasted])
    for labels, own in zip(pseudo_labels, expected, strict=True):
        assert torch.equal(labels[~pasted], own.to(labels.dtype)[~pasted])
        assert torch.equal(labels[pasted], batch["target"][0].to(labels.dtype)[pasted])
    trainer.on_train_end()


def test_a_fold_with_only_unlabelled_cases_is_refused(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    file = budget.preprocessed / "splits_final.json"
    splits = json.loads(file.read_text())
    splits[FOLD]["unlabelled"] += splits[FOLD]["train"]
    splits[FOLD]["train"] = []
    file.write_text(json.dumps(splits))
    with pytest.raises(InputError, match=r"splits_final\.json.*train"):
        make_trainer("IDEALTrainerShort", fold=FOLD).initialize()


def test_a_checkpoint_without_the_second_decoder_is_refused(budget: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("IDEALTrainerShort", fold=FOLD)
    trainer.initialize()
    message = r"checkpoint_latest\.pth has no second decoder, but the fold has unlabelled cases.*without --c"
    with pytest.raises(InputError, match=message):
        trainer.load_additions({}, "checkpoint_latest.pth")


@pytest.mark.parametrize(("ignore", "channels"), [(False, 2), (True, 3)])
def test_hard_labels_of_regions(ignore: bool, channels: int) -> None:
    trainer = IDEALTrainer.__new__(IDEALTrainer)
    trainer.label_manager = type("Labels", (), {"has_regions": True, "has_ignore_label": ignore})
    output = torch.tensor([[[[1.0, -1.0]], [[2.0, 3.0]]]])
    hard = trainer._hard_labels(output)
    assert hard.shape == (1, channels, 1, 2)
    assert hard[0, :2].int().tolist() == [[[1, 0]], [[1, 1]]]
    assert not hard[:, 2:].any()


@pytest.mark.parametrize(
    ("name", "epochs", "pretraining"), [("5epochs", 5, 1), ("100epochs", 100, 10), ("noPretraining", 1000, 0)]
)
def test_variants(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, name: str, epochs: int, pretraining: int
) -> None:
    from nnunet_semcl.commands.path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    trainer = make_trainer(f"IDEALTrainer_{name}")
    assert isinstance(trainer, getattr(ideal_variants, f"IDEALTrainer_{name}"))
    assert trainer.epochs == {"pretraining": pretraining, "training": epochs - pretraining}


def test_ablations_skip_one_phase(
    budget: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_semcl.commands.path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    without_contrast = make_trainer("IDEALTrainer_noPretraining", fold=FOLD)
    without_contrast.initialize()
    without_contrast.pretrain()
    fold = budget.fold("IDEALTrainer_noPretraining", "2d", fold=FOLD)
    assert without_contrast.two_decoders is not None
    assert not list(fold.glob("checkpoint*"))
    without_consistency = make_trainer("IDEALTrainer_noConsistency", fold=FOLD)
    without_consistency.initialize()
    assert without_consistency.two_decoders is None
    phases = list(without_consistency.pretraining_phases())
    assert [phase.name for phase in phases] == ["pretraining"]
    assert len(phases[0].batches.images) == 4


@pytest.mark.parametrize("plan_batch", [2, 3, 4, 12])
def test_a_third_of_the_labelled_patches_is_forced_whatever_the_plans_batch(
    budget: NNUNetFolders, make_trainer: MakeTrainer, plan_batch: int
) -> None:
    """Half of a small batch is one patch, of which nnU-Net's last third would be none."""
    trainer = make_trainer("IDEALTrainerShort", fold=FOLD)
    trainer.configuration_manager.configuration["batch_size"] = plan_batch
    trainer.initialize()
    trainer.on_train_start()
    for augmenter in (trainer.dataloader_train, trainer.dataloader_val):
        loader = augmenter.data_loader
        assert loader.batch_size == max(1, plan_batch // 2)
        draws = [loader.get_do_oversample(i % loader.batch_size) for i in range(4000)]
        assert 0.30 < np.mean(draws) < 0.36
    trainer.on_train_end()
