"""Soft masks of unlabelled cases, predicted once by a coarse model."""

from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunet_semcl.data.coarse_attention import open_case, save_soft_masks


def predict_soft_masks(trainer: nnUNetTrainer, images: dict[str, Path], folder: Path) -> None:
    """Predicts with the trainer's network, as nnU-Net would, each case that has no file in the folder yet."""
    folder.mkdir(exist_ok=True)
    # Without mirroring: a coarse mask is worth one look at a case, not eight.
    predictor = nnUNetPredictor(
        use_mirroring=False,
        device=trainer.device,
        perform_everything_on_device=trainer.device.type == "cuda",
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    trainer.set_deep_supervision_enabled(False)
    for case, image in tqdm(images.items(), "Coarse attention", disable=None):
        if not (folder / f"{case}.b2nd").is_file():
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(open_case(image)[:]))
            save_soft_masks(trainer.label_manager.apply_inference_nonlin(logits.float().cpu()).numpy(), folder / case)
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
