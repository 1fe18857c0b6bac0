"""Predicts logits with a model folder, using nnU-Net only. Imports nothing of the plugin, so it runs without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels


def save_logits(model: str, checkpoint: str, folds: list[str], image: list[str], output: str) -> None:
    """Predicts with each fold separately, with mirroring, and writes the logits to output/fold_X.npy.

    Args:
        model: folder with plans.json, dataset.json and fold_X/CHECKPOINT.
        checkpoint: file name of the checkpoint in each fold's folder.
        folds: numbers, or "all".
        image: files of one case, one per channel. If empty, one patch of noise is predicted instead.
        output: new folder for the logits.

    Shape:
        Each array is (heads, X, Y, Z) at the preprocessed spacing, in nnU-Net's half precision.
    """
    Path(output).mkdir()
    # on the CPU, the same operations give the same bits in every process
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    for fold in folds:
        predictor.initialize_from_trained_model_folder(model, [fold], checkpoint)
        data = _preprocessed(image, predictor) if image else _noise(predictor)
        np.save(Path(output, f"fold_{fold}.npy"), predictor.predict_logits_from_preprocessed_data(data).numpy())


def _preprocessed(image: list[str], predictor: nnUNetPredictor) -> torch.Tensor:
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    data, _, _ = preprocessor.run_case(
        image, None, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    return torch.from_numpy(data)  # (channels, X, Y, Z)


def _noise(predictor: nnUNetPredictor) -> torch.Tensor:
    """(channels, X, Y, Z), one slice for a 2D network. A cascade also gets the channels of its previous stage."""
    patch = predictor.configuration_manager.patch_size
    channels = determine_num_input_channels(
        predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    shape = (channels, *[1] * (3 - len(patch)), *patch)
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


if __name__ == "__main__":
    save_logits(**json.loads(sys.argv[1]))
