from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pytest
from conftest import MakeTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.commands.doctor import trainer_classes
from nnunet_semcl.methods.semcl import variants as semcl_variants
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.trainer import PretrainingTrainer


@pytest.mark.parametrize(("name", "epochs"), [("_5epochs", 5), ("_100epochs", 100), ("_250epochs", 250), ("", 1000)])
def test_epochs_are_those_of_all_phases(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, name: str, epochs: int
) -> None:
    from nnunet_semcl.commands.path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    trainer = make_trainer(f"SemCLTrainer{name}")
    assert sum(trainer.epochs.values()) == epochs
    trainer.initialize()
    assert trainer.num_epochs == trainer.epochs["training"]
    assert trainer.lr_scheduler.schedule.max_steps == sum(trainer.epochs.values())
    assert f"SemCLTrainer{name}__" in trainer.output_folder


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "settings", "epochs"),
    [
        (2, 12, {}, (250, 749, 1)),
        (4, 12, {}, (250, 749, 1)),
        (2, 12, {"coarse_model": "a/model"}, (0, 999, 1)),
        (2, 12, {"segmentation": False, "objective": "object"}, (250, 100, 650)),
        (8, 8, {}, (167, 533, 300)),
        (8, 8, {"coarse_model": "a/model"}, (0, 700, 300)),
        (14, 0, {}, (0, 100, 900)),
    ],
)
def test_the_fold_divides_the_epochs(
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
    labelled: int,
    unlabelled: int,
    settings: dict[str, object],
    epochs: tuple[int, int, int],
) -> None:
    trainer = make_trainer("SemCLTrainerShort")
    trainer.num_epochs, trainer.num_iterations_per_epoch = 1000, 250
    monkeypatch.setattr(trainer, "epoch_shares", partial(SemCLTrainer.epoch_shares, trainer))
    monkeypatch.setattr(trainer, "do_split", lambda: ([str(i) for i in range(labelled)], ["held out"]))
    monkeypatch.setattr(trainer, "unlabelled_images", lambda: {str(i): Path() for i in range(unlabelled)})
    trainer.configuration_manager.configuration["semcl"] = settings
    assert trainer.epochs == dict(zip(("coarse", "pretraining", "training"), epochs, strict=True))
    reason = trainer.method_settings.reasons["shares"]
    assert f"{unlabelled} of {labelled + unlabelled} training cases" in reason
    assert ("at learning rate 0, only validates" in reason) == (epochs[-1] == 1)


@pytest.mark.parametrize(
    ("epochs", "settings", "lengths"),
    [
        (749, {}, (250, 250, 249)),
        (2, {}, (1, 1)),
        (9, {"refine": False}, (9,)),
        (9, {"segmentation": False, "objective": "object"}, (9,)),
    ],
)
def test_the_rounds_of_masks_share_the_epochs_of_pretraining(
    make_trainer: MakeTrainer, epochs: int, settings: dict[str, object], lengths: tuple[int, ...]
) -> None:
    trainer = make_trainer("SemCLTrainerShort")
    trainer.configuration_manager.configuration["semcl"] = settings
    names = ("pretraining", "refinement", "refinement_2")
    assert trainer._rounds(epochs) == dict(zip(names, lengths, strict=False))


@pytest.mark.parametrize(
    ("total", "iterations", "epochs"), [(100, 250, (25, 74, 1)), (20, 250, (6, 13, 1)), (20, 50, (10, 9, 1))]
)
def test_a_short_training_gives_the_coarse_model_a_larger_share(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, total: int, iterations: int, epochs: tuple[int, ...]
) -> None:
    trainer = make_trainer("SemCLTrainerShort")
    trainer.num_epochs, trainer.num_iterations_per_epoch = total, iterations
    monkeypatch.setattr(trainer, "epoch_shares", partial(SemCLTrainer.epoch_shares, trainer))
    monkeypatch.setattr(trainer, "do_split", lambda: (["1", "2"], ["held out"]))
    monkeypatch.setattr(trainer, "unlabelled_images", lambda: {str(i): Path() for i in range(12)})
    assert trainer.epochs == dict(zip(("coarse", "pretraining", "training"), epochs, strict=True))
    reason = trainer.method_settings.reasons["shares"]
    assert ("a coarse model needs 1500 steps" in reason) == (total * iterations < 6000)


@pytest.mark.parametrize(("segmentation", "past"), [(True, 15), (False, 0)])
def test_the_learning_rate_goes_on_where_pretraining_has_segmented(
    make_trainer: MakeTrainer, segmentation: bool, past: int
) -> None:
    trainer = make_trainer()
    trainer.num_epochs = 20
    shares = {"coarse": 0.25, "pretraining": 0.5}
    objective = {} if segmentation else {"objective": "object"}
    trainer.configuration_manager.configuration["semcl"] = {"shares": shares, "segmentation": segmentation, **objective}
    trainer.initialize()
    assert trainer.num_epochs == 5
    total = past + 5
    rates = []
    for trainer.current_epoch in range(5):
        trainer.on_train_epoch_start()
        over = past + trainer.current_epoch + segmentation  # an epoch that goes on has the rate of its end
        expected = trainer.initial_lr * (1 - over / total) ** 0.9  # nnU-Net's schedule
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(expected)
    assert (rates[-1] == 0) == segmentation


def test_the_setting_shares_overrides_the_fold(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.num_epochs = 10
    trainer.configuration_manager.configuration["semcl"] = {"shares": {"coarse": 0, "pretraining": 0.4}}
    assert trainer.epochs == {"coarse": 0, "pretraining": 4, "training": 6}


def test_no_mirroring_in_either_phase(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_semcl.commands.path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    trainer = make_trainer("SemCLTrainerNoMirroring")
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] is None
    assert trainer.inference_allowed_mirroring_axes is None


@pytest.mark.parametrize("use_attention", [True, False])
def test_the_side_stem_exists_only_with_attention(make_trainer: MakeTrainer, use_attention: bool) -> None:
    trainer = make_trainer()
    trainer.use_attention = use_attention
    trainer.configuration_manager.configuration["semcl"] = {"objective": "object"}
    trainer.initialize()
    task = next(trainer.pretraining_phases()).task
    assert any("side_stem" in name for name, _ in task.named_parameters()) == use_attention


def test_every_variant_is_found_and_has_nnunets_signature() -> None:
    found = trainer_classes()
    for name, variant in vars(semcl_variants).items():
        if isinstance(variant, type) and issubclass(variant, PretrainingTrainer):
            assert name in found
    expected = list(inspect.signature(nnUNetTrainer.__init__).parameters)
    assert all(list(inspect.signature(t.__init__).parameters) == expected for t in found.values())
