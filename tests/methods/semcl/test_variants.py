from __future__ import annotations

import inspect

import pytest
from conftest import MakeTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.commands.doctor import trainer_classes
from nnunet_semcl.methods.semcl import variants as semcl_variants
from nnunet_semcl.pretraining.trainer import PretrainingTrainer


@pytest.mark.parametrize(
    ("name", "epochs", "coarse", "pretraining"),
    [("5epochs", 5, 1, 2), ("100epochs", 100, 5, 10), ("250epochs", 250, 10, 25), ("fewLabels", 50, 250, 700)],
)
def test_lengths(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, name: str, epochs: int, coarse: int, pretraining: int
) -> None:
    from nnunet_semcl.commands.path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    trainer = make_trainer(f"SemCLTrainer_{name}")
    assert (trainer.num_epochs, trainer.num_coarse_epochs) == (epochs, coarse)
    assert trainer.num_pretraining_epochs == pretraining
    assert trainer.num_iterations_per_epoch == trainer.num_pretraining_iterations_per_epoch == 250
    assert f"SemCLTrainer_{name}__" in trainer.output_folder


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
