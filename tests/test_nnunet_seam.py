"""The parts of nnU-Net that this plugin relies on: if a new version changes one, the failing test names it."""

from __future__ import annotations

import inspect
import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run import run_training
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semcl.commands.path import trainer_path
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer
from nnunet_semcl.pretraining.interruptible_trainer import InterruptibleTrainer
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

OVERRIDDEN = {
    "__init__",
    "_set_batch_size_and_oversample",
    "configure_optimizers",
    "initialize",
    "load_checkpoint",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_start",
    "perform_actual_validation",
    "run_training",
    "save_checkpoint",
    "train_step",
}
STOCK_KEYS = {
    "network_weights",
    "optimizer_state",
    "grad_scaler_state",
    "logging",
    "_best_ema",
    "current_epoch",
    "init_args",
    "trainer_name",
    "inference_allowed_mirroring_axes",
}


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_hooks_that_we_override_exist_in_nnunet() -> None:
    """If nnU-Net renamed a hook, ours would silently no longer be called."""
    ours = {
        name: function
        for trainer in (ClassAttributeTrainer, InterruptibleTrainer, PretrainingTrainer, SemCLTrainer, IDEALTrainer)
        for name, function in vars(trainer).items()
        if inspect.isfunction(function) and hasattr(nnUNetTrainer, name)
    }
    assert ours.keys() == OVERRIDDEN
    for name, function in ours.items():
        assert parameters(function) == parameters(getattr(nnUNetTrainer, name)), name


def test_nnunet_calls_its_hooks_in_the_order_that_pretraining_needs() -> None:
    source = inspect.getsource(nnUNetTrainer.run_training)
    calls = ["self.on_train_start()", "self.on_epoch_start()", "self.on_train_epoch_start()", "self.train_step(next("]
    positions = [source.index(call) for call in calls]
    assert positions == sorted(positions)
    step = inspect.getsource(nnUNetTrainer.train_step)  # IDEAL swaps both while it runs
    assert "self.network(" in step
    assert "self.loss(" in step
    assert "batch['data']" in step
    end = inspect.getsource(nnUNetTrainer.on_epoch_end)
    assert end.index("checkpoint_latest.pth") < end.index("self.current_epoch += 1")


def test_c_looks_for_three_checkpoints_and_val_does_not_train() -> None:
    source = inspect.getsource(run_training.maybe_load_checkpoint)
    assert all(f"checkpoint_{name}.pth" in source for name in ("final", "latest", "best"))
    lines = " ".join(inspect.getsource(run_training).split())
    assert "if not only_run_validation: nnunet_trainer.run_training()" in lines


@pytest.mark.parametrize("name", ["SemCLTrainer", "IDEALTrainer"])
def test_trainers_are_found_in_a_folder_of_import_lines(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path(None))
    found = recursive_find_trainer_class_by_name(name)
    assert found is recursive_find_trainer_class_by_name(name)
    assert pickle.loads(pickle.dumps(found)) is found


def test_signatures() -> None:
    assert parameters(nnUNetTrainer) == ["plans", "configuration", "fold", "dataset_json", "device"]
    assert parameters(nnUNetTrainer.get_training_transforms) == [
        "patch_size",
        "rotation_for_DA",
        "deep_supervision_scales",
        "mirror_axes",
        "do_dummy_2d_data_aug",
        "use_mask_for_norm",
        "is_cascaded",
        "foreground_labels",
        "regions",
        "ignore_label",
    ]
    assert {"transforms", "probabilistic_oversampling"} <= set(parameters(nnUNetDataLoader))
    assert parameters(nnUNetPredictor.manual_initialization) == [
        "self",
        "network",
        "plans_manager",
        "configuration_manager",
        "parameters",
        "dataset_json",
        "trainer_name",
        "inference_allowed_mirroring_axes",
    ]


def test_trainer_network_and_checkpoint(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("nnUNetTrainerShort")
    trainer.initialize()
    assert trainer.logger.resume is False
    assert trainer.current_epoch == 0
    assert trainer.grad_scaler is None
    assert len(trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()) == 4
    decoder = trainer.network.decoder
    assert decoder.encoder is trainer.network.encoder
    assert decoder.deep_supervision is True
    assert len(decoder.stages) == len(decoder.transpconvs) == len(decoder.seg_layers)
    trainer.save_checkpoint(str(folders.root / "checkpoint.pth"))
    assert torch.load(folders.root / "checkpoint.pth", weights_only=False).keys() == STOCK_KEYS


def test_splits_may_hold_further_keys_and_folds(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    file = folders.preprocessed / "splits_final.json"
    make_trainer("nnUNetTrainerShort").do_split()  # writes the file if it is missing
    fold = json.loads(file.read_text())[0]
    file.write_text(json.dumps([fold] * 6 + [{**fold, "train": fold["train"][:1], "unlabelled": fold["train"][1:]}]))
    assert make_trainer("nnUNetTrainerShort", fold=6).do_split() == (fold["train"][:1], fold["val"])


def test_preprocessed_cases(folders: NNUNetFolders) -> None:
    data = folders.preprocessed / "nnUNetPlans_2d"
    case = sorted(Path(data).glob("*.pkl"))[0].stem
    image, segmentation, previous, properties = infer_dataset_class(str(data))(str(data)).load_case(case)
    assert image.ndim == segmentation.ndim == 4
    assert segmentation.shape == (1, *image.shape[1:])
    assert previous is None
    label, locations = next((k, v) for k, v in properties["class_locations"].items() if len(v))
    assert locations.shape[1] == 4
    assert (segmentation[:][tuple(locations.T)] == label).all()
