"""SemCLTrainer as nnU-Net runs it: built by nnU-Net's own function, on nnU-Net's own preprocessed files."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.errors import InputError
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


def stock_network(trainer: nnUNetTrainer) -> torch.nn.Module:
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        trainer.enable_deep_supervision,
    )


def pretrained_weights(trainer: SemCLTrainer) -> dict[str, torch.Tensor]:
    trainer.initialize()
    trainer.pretrain()
    return torch.load(f"{trainer.output_folder}/checkpoint_pretrained.pth", weights_only=True)["network_weights"]


@pytest.mark.parametrize("plans", ["nnUNetTinyPlans", "nnUNetTinyResEncPlans"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_the_network_is_nnunets_planned_one_and_has_changed(
    make_trainer: MakeTrainer, plans: str, configuration: str
) -> None:
    trainer = make_trainer(configuration=configuration, plans=plans)
    trainer.num_epochs = 2
    trainer.initialize()
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    trainer.pretrain()
    after = trainer.network.state_dict()
    stock = stock_network(trainer).state_dict()
    assert list(after) == list(stock)
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in stock.items()}
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    parts = {k.split(".")[1] for k in changed if k.startswith("decoder.")}
    assert parts == {"encoder", "stages", "transpconvs", "seg_layers"}
    assert any(k.startswith("encoder.") for k in changed)
    saved = torch.load(f"{trainer.output_folder}/checkpoint_pretrained.pth", weights_only=True)
    assert all(torch.equal(saved["network_weights"][k], after[k]) for k in after)
    stock_network(trainer).load_state_dict(saved["network_weights"])


def test_the_optimiser_still_holds_the_networks_parameters(make_trainer: MakeTrainer) -> None:
    """nnU-Net creates its optimiser before pretraining."""
    trainer = make_trainer()
    trainer.initialize()
    trainer.pretrain()
    assert {id(p) for p in trainer.network.parameters()} == {
        id(p) for group in trainer.optimizer.param_groups for p in group["params"]
    }


def test_validation_labels_do_not_influence_the_weights(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    first = pretrained_weights(make_trainer())
    splits = json.loads((folders.preprocessed / "splits_final.json").read_text())
    data = folders.preprocessed / "nnUNetPlans_2d"
    cases = infer_dataset_class(str(data))(str(data))
    rng = np.random.default_rng(0)
    for case in splits[0]["val"]:
        image, segmentation, _, properties = cases.load_case(case)
        image, noise = image[:], rng.integers(0, 9, segmentation.shape, dtype=np.int16)
        properties["class_locations"] = {label: np.argwhere(noise == label) for label in range(1, 9)}
        for old in data.glob(f"{case}*"):
            old.unlink()
        cases.save_case(image, noise, properties, str(data / case))
    shutil.rmtree(folders.root / "results")
    again = make_trainer()
    second = pretrained_weights(again)
    assert all(torch.equal(first[k], second[k]) for k in first)
    # The held-out cases have been read.
    with open(f"{again.output_folder}/pretraining_log.jsonl") as log:
        assert json.loads(log.readline())["held_out_voxel_separation"] is not None


def test_training_labels_do_influence_the_weights(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    """Otherwise the test above would prove nothing."""
    first = pretrained_weights(make_trainer())
    splits = json.loads((folders.preprocessed / "splits_final.json").read_text())
    data = folders.preprocessed / "nnUNetPlans_2d"
    for name in splits[0]["train"]:
        case = data / f"{name}.pkl"
        properties = pickle.loads(case.read_bytes())
        locations = properties["class_locations"]
        properties["class_locations"] = {label: voxels[:1] for label, voxels in locations.items()}
        case.write_bytes(pickle.dumps(properties))
    shutil.rmtree(folders.root / "results")
    second = pretrained_weights(make_trainer())
    assert any(not torch.equal(first[k], second[k]) for k in first)


def test_batches_contain_only_training_cases(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.configuration_manager.configuration["semcl"] = {"objective": "object+voxel"}
    trainer.initialize()
    phase = next(trainer.pretraining_phases())
    for batches, cases in zip((phase.batches, phase.held_out), trainer.do_split(), strict=True):
        queries, voxels = batches.parts
        assert set(queries.attentions[0].dataset.identifiers) == set(cases)
        assert set(voxels.patches.loader.dataset_of) == set(cases)


def test_fold_all_has_no_held_out_cases(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(fold="all")
    trainer.initialize()
    lines: list[str] = []
    trainer.print_to_log_file = lambda *args, **kwargs: lines.append(" ".join(map(str, args)))
    assert next(trainer.pretraining_phases()).held_out is None
    assert "No held-out figures: the fold trains on its validation cases" in lines


def test_an_object_that_no_labelled_case_has_is_named(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    for path in (folders.preprocessed / "nnUNetPlans_2d").glob("*.pkl"):
        properties = pickle.loads(path.read_bytes())
        properties["class_locations"][3] = properties["class_locations"][3][:0]
        path.write_bytes(pickle.dumps(properties))
    trainer = make_trainer()
    trainer.initialize()
    lines: list[str] = []
    trainer.print_to_log_file = lambda *args, **kwargs: lines.append(" ".join(map(str, args)))
    next(trainer.pretraining_phases())
    assert "Objects that no labelled case of the fold has: 3" in lines


def test_continuing_skips_pretraining_that_is_done(make_trainer: MakeTrainer) -> None:
    weights = pretrained_weights(make_trainer())
    trainer = make_trainer(resume=True)
    trainer.initialize()
    trainer.pretraining_settings = None  # no phase may be built
    trainer.pretrain()
    assert all(torch.equal(v, weights[k]) for k, v in trainer.network.state_dict().items())


def test_continuing_prefers_an_interrupted_new_run_to_an_older_result(
    make_trainer: MakeTrainer, folders: NNUNetFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained_weights(make_trainer())
    interrupted = make_trainer()
    interrupted.initialize()

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nnunet_semcl.pretraining.phase.PretrainingPhase._log_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            interrupted.pretrain()
    trainer = make_trainer(resume=True)
    trainer.initialize()
    lines: list[str] = []
    trainer.print_to_log_file = lambda *args, **kwargs: lines.append(" ".join(map(str, args)))
    trainer.pretrain()
    assert any("continues after epoch 1" in line for line in lines)
    assert (folders.fold("SemCLTrainerShort", "2d") / "previous_run_1" / "checkpoint_pretrained.pth").is_file()


def test_a_broken_checkpoint_raises_before_anything_is_overwritten(
    make_trainer: MakeTrainer, folders: NNUNetFolders
) -> None:
    pretrained_weights(make_trainer())
    path = folders.fold("SemCLTrainerShort", "2d") / "checkpoint_pretrained.pth"
    path.write_bytes(path.read_bytes()[:1000])
    trainer = make_trainer(resume=True)
    trainer.initialize()
    message = r"checkpoint_pretrained\.pth is not a readable checkpoint.*again with --c"
    with pytest.raises(InputError, match=message):
        trainer.pretrain()
    assert path.stat().st_size == 1000


def test_disable_checkpointing_writes_no_checkpoint(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    trainer = make_trainer()
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.pretrain()
    assert not list(folders.fold("SemCLTrainerShort", "2d").glob("*.pth"))


def test_disable_checkpointing_leaves_a_finished_fold_alone(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    pretrained_weights(make_trainer())
    fold = folders.fold("SemCLTrainerShort", "2d")
    before = {file: file.read_bytes() for file in fold.rglob("*.pth")}
    trainer = make_trainer()
    trainer.disable_checkpointing = True
    trainer.initialize()
    planned = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    lines: list[str] = []
    trainer.print_to_log_file = lambda *args, **kwargs: lines.append(" ".join(map(str, args)))
    trainer.pretrain()
    assert {file: file.read_bytes() for file in fold.rglob("*.pth")} == before
    assert "Pretraining done.\n" in lines  # anew, not loaded from the finished run
    assert any(not torch.equal(v, planned[k]) for k, v in trainer.network.state_dict().items())


def test_runs_before_this_one_are_all_kept(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    fold = folders.fold("SemCLTrainerShort", "2d")
    for number in (1, 2):
        trainer = make_trainer()
        (fold / "checkpoint_pretrained.pth").write_text(f"run {number}")
        trainer.set_previous_run_aside()
    kept = [(fold / f"previous_run_{number}" / "checkpoint_pretrained.pth").read_text() for number in (1, 2)]
    assert kept == ["run 1", "run 2"]


def test_data_that_were_not_preprocessed(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    with pytest.raises(InputError, match=r"nnUNetPlans_2d contains no preprocessed cases.*nnUNetv2_preprocess"):
        make_trainer().initialize()


def test_fewer_than_five_cases(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    (folders.preprocessed / "splits_final.json").unlink(missing_ok=True)
    data = folders.preprocessed / "nnUNetPlans_2d"
    for case in sorted(p.stem for p in data.glob("*.pkl"))[1:]:
        for file in data.glob(f"{case}*"):
            file.unlink()
    with pytest.raises(
        InputError,
        match=r"nnUNetPlans_2d contains 1 preprocessed case.*too few for nnU-Net's split into 5 folds.*fold all",
    ):
        make_trainer().initialize()
    trainer = make_trainer(fold="all")
    trainer.num_epochs = 2
    pretrained_weights(trainer)  # fold all works with a single case


def test_a_negative_fold(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InputError, match="fold: -1 is not 'all' or a whole number"):
        make_trainer(fold=-1).initialize()


def test_a_fold_without_foreground(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    for path in (folders.preprocessed / "nnUNetPlans_2d").glob("*.pkl"):
        properties = pickle.loads(path.read_bytes())
        properties["class_locations"] = {k: v[:0] for k, v in properties["class_locations"].items()}
        path.write_bytes(pickle.dumps(properties))
    trainer = make_trainer()
    trainer.initialize()
    with pytest.raises(InputError, match=r"nnUNetPlans_2d: no voxel of any object.*-tr nnUNetTrainer"):
        trainer.pretrain()
    assert not list(folders.fold("SemCLTrainerShort", "2d").glob("*.pth"))


def test_an_invalid_section_of_the_plans(make_trainer: MakeTrainer, folders: NNUNetFolders) -> None:
    folders.set_in_plans("2d", semcl={"queries_per_batch": 2})
    message = '"semcl" of configuration 2d, queries_per_batch: 2 is not a whole number from 4 to 65536'
    with pytest.raises(InputError, match=message):
        make_trainer().initialize()


def test_one_patch_per_process_is_a_warning(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.configuration_manager.configuration["batch_size"] = 1
    trainer.initialize()
    next(trainer.pretraining_phases())
    log = next(folders.fold("SemCLTrainerShort", "2d").glob("training_log*.txt")).read_text()
    assert "WARNING: no copy-paste: it takes two patches" in log
