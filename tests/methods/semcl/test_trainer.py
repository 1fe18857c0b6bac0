"""SemCLTrainer as nnU-Net runs it: built by nnU-Net's own function, over nnU-Net's own preprocessed files."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.errors import InputError


def stock_network(trainer) -> torch.nn.Module:
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        trainer.enable_deep_supervision,
    )


def pretrained_weights(trainer) -> dict[str, torch.Tensor]:
    trainer.initialize()
    trainer.pretrain()
    return torch.load(f"{trainer.output_folder}/checkpoint_pretrained.pth", weights_only=True)["network_weights"]


@pytest.mark.parametrize("plans", ["nnUNetTinyPlans", "nnUNetTinyResEncPlans"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_the_network_is_nnunets_planned_one_and_has_learnt(make_trainer, plans, configuration):
    trainer = make_trainer(configuration=configuration, plans=plans)
    trainer.num_pretraining_epochs = 1
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


def test_optimiser_and_network_still_belong_together(make_trainer):
    """nnU-Net made its optimiser before pretraining: it must hold the very parameters that are trained now."""
    trainer = make_trainer()
    trainer.initialize()
    trainer.pretrain()
    assert {id(p) for p in trainer.network.parameters()} == {
        id(p) for group in trainer.optimizer.param_groups for p in group["params"]
    }


def test_validation_labels_do_not_reach_the_weights(folders, make_trainer):
    first = pretrained_weights(make_trainer())
    splits = json.loads((folders.preprocessed / "splits_final.json").read_text())
    data = folders.preprocessed / "nnUNetPlans_2d"
    cases = infer_dataset_class(str(data))(str(data))
    rng = np.random.default_rng(0)
    for case in splits[0]["val"]:
        image, segmentation, _, properties = cases.load_case(case)
        image, noise = image[:], rng.integers(0, 9, segmentation.shape, dtype=np.int16)
        properties["class_locations"] = {o: np.argwhere(noise == o) for o in range(1, 9)}
        for old in data.glob(f"{case}*"):
            old.unlink()
        cases.save_case(image, noise, properties, str(data / case))
    shutil.rmtree(folders.root / "results")
    again = make_trainer()
    second = pretrained_weights(again)
    assert all(torch.equal(first[k], second[k]) for k in first)
    # The noise was there to be seen: what is logged of the held-out cases has changed.
    with open(f"{again.output_folder}/pretraining_log.jsonl") as log:
        assert json.loads(log.readline())["held_out_voxel_separation"] is not None


def test_training_labels_do_reach_the_weights(folders, make_trainer):
    """Else the test above would prove nothing."""
    first = pretrained_weights(make_trainer())
    splits = json.loads((folders.preprocessed / "splits_final.json").read_text())
    data = folders.preprocessed / "nnUNetPlans_2d"
    for name in splits[0]["train"]:
        case = data / f"{name}.pkl"
        properties = pickle.loads(case.read_bytes())
        properties["class_locations"] = {o: voxels[:1] for o, voxels in properties["class_locations"].items()}
        case.write_bytes(pickle.dumps(properties))
    shutil.rmtree(folders.root / "results")
    second = pretrained_weights(make_trainer())
    assert any(not torch.equal(first[k], second[k]) for k in first)


def test_only_training_cases_are_drawn_from(make_trainer):
    trainer = make_trainer()
    trainer.configuration_manager.configuration["semcl"] = {"objective": "both"}
    trainer.initialize()
    phase = next(trainer.pretraining_phases())
    for batches, cases in zip((phase.batches, phase.held_out), trainer.do_split(), strict=True):
        queries, voxels = batches.parts
        assert set(queries.attentions[0].dataset.identifiers) == set(cases)
        assert set(voxels.patches.loaders[0].indices) == set(cases)


def test_fold_all_has_no_held_out_cases(make_trainer):
    trainer = make_trainer(fold="all")
    trainer.initialize()
    assert next(trainer.pretraining_phases()).held_out is None


def test_continuing_skips_what_is_done(make_trainer):
    weights = pretrained_weights(make_trainer())
    trainer = make_trainer(resume=True)
    trainer.initialize()
    trainer.pretraining_settings = None  # nothing of the phase may be built
    trainer.pretrain()
    assert all(torch.equal(v, weights[k]) for k, v in trainer.network.state_dict().items())


def test_a_new_run_that_was_interrupted_goes_before_an_older_result(make_trainer, folders, monkeypatch):
    pretrained_weights(make_trainer())
    interrupted = make_trainer()
    interrupted.initialize()

    def killed(*args) -> None:
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
    assert any("goes on after epoch 1" in line for line in lines)
    assert (folders.fold("SemCLTrainerShort", "2d") / "previous_run" / "checkpoint_pretrained.pth").is_file()


def test_a_mangled_checkpoint_stops_before_anything_is_overwritten(make_trainer, folders):
    pretrained_weights(make_trainer())
    path = folders.fold("SemCLTrainerShort", "2d") / "checkpoint_pretrained.pth"
    path.write_bytes(path.read_bytes()[:1000])
    trainer = make_trainer(resume=True)
    trainer.initialize()
    with pytest.raises(InputError, match=r"checkpoint_pretrained\.pth: found an unreadable file.*start again with --c"):
        trainer.pretrain()
    assert path.stat().st_size == 1000


def test_without_checkpoints_none_is_written(make_trainer, folders):
    trainer = make_trainer()
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.pretrain()
    assert not list(folders.fold("SemCLTrainerShort", "2d").glob("*.pth"))


def test_data_that_were_not_preprocessed(make_trainer, folders):
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    with pytest.raises(InputError, match=r"nnUNetPlans_2d: found no preprocessed case.*nnUNetv2_preprocess"):
        make_trainer().initialize()


def test_fewer_than_five_cases(make_trainer, folders):
    (folders.preprocessed / "splits_final.json").unlink(missing_ok=True)
    data = folders.preprocessed / "nnUNetPlans_2d"
    for case in sorted(p.stem for p in data.glob("*.pkl"))[1:]:
        for file in data.glob(f"{case}*"):
            file.unlink()
    with pytest.raises(InputError, match=r"found 1 .*case.*at least 5 cases"):
        make_trainer().initialize()
    trainer = make_trainer(fold="all")
    trainer.num_pretraining_epochs = 1
    pretrained_weights(trainer)  # a single case is enough where the user asks for it: queries of the same case


def test_a_negative_fold(make_trainer):
    with pytest.raises(InputError, match="fold: found -1"):
        make_trainer(fold=-1).initialize()


def test_a_fold_without_foreground(make_trainer, folders):
    for path in (folders.preprocessed / "nnUNetPlans_2d").glob("*.pkl"):
        properties = pickle.loads(path.read_bytes())
        properties["class_locations"] = {k: v[:0] for k, v in properties["class_locations"].items()}
        path.write_bytes(pickle.dumps(properties))
    trainer = make_trainer()
    trainer.initialize()
    with pytest.raises(InputError, match=r"nnUNetPlans_2d: found no voxel of any object.*-tr nnUNetTrainer"):
        trainer.pretrain()
    assert not list(folders.fold("SemCLTrainerShort", "2d").glob("*.pth"))


def test_a_section_of_the_plans_that_is_wrong(make_trainer, folders):
    path = folders.preprocessed / "nnUNetTinyPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"]["semcl"] = {"queries_per_batch": 2}
    path.write_text(json.dumps(plans))
    with pytest.raises(InputError, match="queries_per_batch: found 2, expected a whole number from 4 to 65536"):
        make_trainer().initialize()
