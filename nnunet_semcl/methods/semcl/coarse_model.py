"""Pseudo-labels of unlabelled cases, predicted once by a coarse model: the trainer's own or one that the user names."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from tqdm import tqdm

from nnunet_semcl.data.pseudo_labels import Prediction, Trust, is_saved, save_pseudo_labels
from nnunet_semcl.distributed import barrier, rank, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.files.checkpoints import load_safely
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.pretraining.trainer import PretrainingTrainer
from nnunet_semcl.process_pool import ProcessPool

CHECKPOINT = "checkpoint_final.pth"


def own_model(trainer: PretrainingTrainer) -> nnUNetPredictor:
    """Returns a predictor with the trainer's network in its present state."""
    predictor = _predictor(trainer.device)
    predictor.manual_initialization(
        trainer.planned_network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor


def named_model(folder: Path, trainer: PretrainingTrainer) -> nnUNetPredictor:
    """Returns a predictor with a finished model of the same data set and fold, in any configuration.

    Args:
        folder: a model's folder TRAINER__PLANS__CONFIGURATION in nnUNet_results.
        trainer: defines data set, labels and fold.

    Raises:
        InputError: the fold's model is not finished, has another data set or other labels, or cannot be loaded.
    """
    where = f'"coarse_model" {folder}'
    checkpoint = folder / f"fold_{trainer.fold}" / CHECKPOINT
    needed = (folder / "plans.json", folder / "dataset.json", checkpoint)
    missing = [str(file.relative_to(folder)) for file in needed if not file.is_file()]
    if missing:
        raise InputError(
            f"{where} has no {', '.join(missing)}, so it is not a model that finished fold {trainer.fold}",
            "Name a folder TRAINER__PLANS__CONFIGURATION in nnUNet_results, or train that fold first; models of other "
            "folds have seen other training cases.",
        )
    for file, key, what, expected in (
        ("plans.json", "dataset_name", "data set", trainer.plans_manager.dataset_name),
        ("dataset.json", "labels", "labels", trainer.dataset_json["labels"]),
    ):
        content = read_json(folder / file)
        if not isinstance(content, dict) or key not in content:
            raise InputError(f"{where}: {file} has no {key}", f"Name a model with the {what} {expected}.")
        if content[key] != expected:
            raise InputError(
                f"{where} was trained with the {what} {content[key]}, not {expected}",
                f"Name a model of this data set. If only names have changed since, correct them in the model's {file}.",
            )
    fix = "Name another model, or train this one again."
    load_safely(checkpoint, torch.device("cpu"), {"network_weights", "trainer_name", "init_args"}, fix)
    predictor = _predictor(trainer.device)
    try:
        predictor.initialize_from_trained_model_folder(str(folder), (trainer.fold,), CHECKPOINT)
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
    except Exception as problem:  # anything else can be wrong: plans, trainer, network
        reason = " ".join(str(problem).split())[:200]
        raise InputError(f"nnU-Net cannot load {where} ({reason})", fix) from problem
    return predictor


def predict_pseudo_labels(
    predictor: nnUNetPredictor,
    images: dict[str, Path],
    own_images: dict[str, Path],
    trainer: PretrainingTrainer,
    folder: Path,
    trust: Trust,
) -> None:
    """Predicts each case that is not in the folder yet; a pool of processes judges and saves what is predicted.

    Args:
        predictor: the coarse model.
        images: case -> image without extension, preprocessed for the predictor's configuration.
        own_images: the same for the trainer's configuration, on whose grid pseudo-labels are saved.
        trainer: defines the grid.
        folder: receives the pseudo-labels.
        trust: what is believed of the predictions.

    Raises:
        InputError: the folder cannot be written, or a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    decoder = predictor.network.decoder
    deep_supervision, decoder.deep_supervision = decoder.deep_supervision, False
    cases = list(images)
    turns = range(0, len(cases), world_size())
    with ProcessPool(default_num_processes) as pool:
        saving: deque[Future] = deque()
        for turn in tqdm(turns, "Masks of unlabelled cases", disable=True if rank() else None):
            barrier()  # at each turn: the processes drift apart, and NCCL waits for ten minutes
            case = cases[turn + rank()] if turn + rank() < len(cases) else None
            if case and not is_saved(folder / case):
                predictions = _predict(predictor, images[case], open_case(own_images[case]).shape[1:], trainer)
                while len(saving) >= default_num_processes:  # predictions that wait are in memory
                    _finish(saving.popleft())
                saving.append(pool.submit(_save, predictions, folder / case, own_images[case], trust))
        for future in saving:
            _finish(future)
    decoder.deep_supervision = deep_supervision
    barrier()


def _save(predictions: list[Prediction], file: Path, image: Path, trust: Trust) -> None:
    first, *second = predictions
    save_pseudo_labels(first, file, image, trust, second[0].segmentation if second else None)


def _finish(future: Future) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that saves masks was killed, probably because memory ran out",
            f"Set nnUNet_def_n_proc to less than {default_num_processes}, and run the same command with --c.",
        ) from error


def _predict(
    predictor: nnUNetPredictor, image: Path, shape: tuple[int, ...], trainer: PretrainingTrainer
) -> list[Prediction]:
    """Predicts an image on the trainer's grid of this shape; with mirroring, a second time without."""
    voxels = torch.tensor(open_case(image)[:])
    predictions = []
    # Where mirrored images are seen otherwise, the model knows little.
    for mirroring in (True, False) if predictor.allowed_mirroring_axes else (False,):
        predictor.use_mirroring = mirroring
        logits = predictor.predict_sliding_window_return_logits(voxels)
        if logits.shape[1:] != shape:
            logits = predictor.configuration_manager.resampling_fn_probabilities(
                logits.float().cpu(),
                shape,
                _spacing(predictor.plans_manager, predictor.configuration_manager),
                _spacing(trainer.plans_manager, trainer.configuration_manager),
            )
        predictions.append(Prediction.from_logits(torch.as_tensor(logits), predictor.label_manager))
        del logits  # gigabytes, before the next ones
    return predictions


def _predictor(device: torch.device) -> nnUNetPredictor:
    # With mirroring, like nnU-Net: on Hippocampus it improved the masks by seven Dice points.
    return nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False)


def _spacing(plans: PlansManager, configuration: ConfigurationManager) -> list[float]:
    """Returns the spacing of preprocessed volumes; in 2D with a typical slice distance, which differs between cases."""
    spacing = list(configuration.spacing)
    return spacing if len(spacing) == 3 else [plans.original_median_spacing_after_transp[0], *spacing]
