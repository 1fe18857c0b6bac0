"""A coarse model that the user names: any configuration of the same data set and fold."""

from __future__ import annotations

import json
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders

from nnunet_semcl.cli import main
from nnunet_semcl.errors import InputError
from nnunet_semcl.methods.semcl import pseudo_label_trainer
from nnunet_semcl.methods.semcl.coarse_model import named_model

FOLD = 5


@pytest.fixture
def model(make_trainer: MakeTrainer) -> Path:
    """The folder of a finished 3d_fullres model of the fold; untrained, which is sufficient here."""
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    trainer = make_trainer("nnUNetTrainerShort", "3d_fullres", FOLD)
    trainer.initialize()
    folder = Path(trainer.output_folder_base)
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    return folder


def name_it(folders: NNUNetFolders, model: Path) -> None:
    folders.set_in_plans("2d", semcl={"coarse_model": str(model)})


def test_its_predictions_are_the_masks_in_another_configuration(
    folders: NNUNetFolders, make_trainer: MakeTrainer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = pseudo_label_trainer.sizes_and_single_components
    # No component is dropped.
    monkeypatch.setattr(pseudo_label_trainer, "sizes_and_single_components", lambda *of: (look(*of)[0], []))
    name_it(folders, model)
    trainer = make_trainer(fold=FOLD)
    trainer.initialize()
    trainer.pretrain()
    fold = Path(trainer.output_folder)
    assert not (fold / "coarse_log.jsonl").exists()  # no coarse training of our own
    masks = sorted(path for path in (fold / "coarse_masks").glob("*.b2nd") if not path.stem.endswith("_seg"))
    assert len(masks) == 2
    for mask in masks:
        confidence = blosc2.open(str(mask))[:]
        image = blosc2.open(str(folders.preprocessed / "nnUNetPlans_2d" / mask.name))
        assert confidence.shape == (1, *image.shape[1:])
        assert confidence.min() >= 255 // 9  # the largest of nine probabilities

    # If both grids are the same, the masks are nnU-Net's own prediction.
    predictor = named_model(model, trainer)
    volume = blosc2.open(str(folders.preprocessed / "nnUNetPlans_3d_fullres" / masks[0].name))[:]
    predictor.network.decoder.deep_supervision = False
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(volume)).float()
    expected = logits.softmax(0).numpy()
    assert expected.shape[1:] == confidence.shape[1:]
    np.testing.assert_allclose(blosc2.open(str(masks[0]))[0] / 255, expected.max(0), atol=0.02)
    labels = blosc2.open(str(masks[0].with_name(f"{masks[0].stem}_seg.b2nd")))[0]
    sure = np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[-2] > 0.01
    assert (labels == expected.argmax(0))[sure].all()


def test_an_unsuitable_model_is_reported_at_the_start(
    folders: NNUNetFolders, make_trainer: MakeTrainer, model: Path
) -> None:
    name_it(folders, folders.root / "nowhere")
    message = r"nowhere has no plans\.json, dataset\.json, fold_5/checkpoint_final\.pth.* finished fold 5\. Name"
    with pytest.raises(InputError, match=message):
        make_trainer(fold=FOLD).initialize()
    name_it(folders, model)
    dataset = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps(dataset | {"labels": {"background": 0, "other": 1}}))
    with pytest.raises(InputError, match=r"was trained with the labels .*'other': 1.*Name a model of this data set"):
        make_trainer(fold=FOLD).initialize()
    plans = json.loads((model / "plans.json").read_text())
    (model / "plans.json").write_text(json.dumps(plans | {"dataset_name": "Dataset001_Other"}))
    with pytest.raises(InputError, match="was trained with the data set Dataset001_Other, not Dataset999_Phantom"):
        make_trainer(fold=FOLD).initialize()


def test_cases_that_its_configuration_lacks_are_named(
    folders: NNUNetFolders, make_trainer: MakeTrainer, model: Path
) -> None:
    name_it(folders, model)
    case = json.loads((folders.preprocessed / "splits_final.json").read_text())[FOLD]["unlabelled"][0]
    (folders.preprocessed / "nnUNetPlans_3d_fullres" / f"{case}.b2nd").unlink()
    message = (
        rf"3d_fullres/{case}: no preprocessed image \(1 of 2 unlabelled cases.*nnUNetv2_preprocess -d 999 .*3d_fullres"
    )
    with pytest.raises(InputError, match=message):
        make_trainer(fold=FOLD).initialize()
