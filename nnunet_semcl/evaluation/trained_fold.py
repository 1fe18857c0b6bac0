"""A trained fold to look into: its cases, and its network in each state that the training has saved."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely, load_weights
from nnunet_semcl.files.datasets import channel_names, find_dataset, id_of, read_dataset_json
from nnunet_semcl.files.intact_cases import check_cases_are_intact
from nnunet_semcl.files.plans import read_plans
from nnunet_semcl.files.preprocessed import preprocessed_cases
from nnunet_semcl.files.splits import read_splits
from nnunet_semcl.files.trainer_classes import find_trainer
from nnunet_semcl.files.training_input import check_training_input

COARSE, PRETRAINED, FINAL = (f"checkpoint_{name}.pth" for name in ("coarse", "pretrained", "final"))


@dataclass(frozen=True)
class TrainedFold:
    """A fold in nnUNet_results, with what its cases were preprocessed with. Nothing is written in its folder.

    Attributes:
        folder: fold_X in the model's folder.
        dataset: the data set's folder in nnUNet_preprocessed.
        number: of the fold, or "all".
        trainer: class that trained it.
        configuration_name: of the model.
        plans, dataset_json: of the data set.
        device: on which networks compute.
    """

    folder: Path
    dataset: Path
    number: int | str
    trainer: type[nnUNetTrainer]
    configuration_name: str
    plans: PlansManager
    dataset_json: dict
    device: torch.device

    @cached_property
    def configuration(self) -> ConfigurationManager:
        return self.plans.get_configuration(self.configuration_name)

    @cached_property
    def labels(self) -> LabelManager:
        return self.plans.get_label_manager(self.dataset_json)

    @property
    def data(self) -> Path:
        """Folder of the preprocessed cases."""
        return self.dataset / self.configuration.data_identifier

    @cached_property
    def cases(self) -> tuple[list[str], list[str]]:
        """The labelled training cases and the held-out ones. Fold all trains on all cases and holds none out.

        Raises:
            InputError: splits_final.json does not have the fold.
        """
        if isinstance(self.number, str):
            return sorted(preprocessed_cases(self.data)), []
        file = self.dataset / "splits_final.json"
        splits = read_splits(file)
        if self.number >= len(splits):
            raise InputError(
                f"{file} has no fold {self.number}, so that its cases are not known",
                f"Name one of its {len(splits)} folds with -f." if splits else "Train the fold first.",
            )
        fold = splits[self.number]
        return sorted(fold["train"]), sorted(set(fold["val"]) - set(fold["train"]))

    def check_cases(self, labelled: list[str], unlabelled: list[Path]) -> None:
        """Reads the cases that nobody has read since they were written.

        Raises:
            InputError: one of them is broken.
        """
        values = [int(label) for label in self.labels.all_labels]
        if self.labels.has_ignore_label:
            values.append(self.labels.ignore_label)
        files = [self.data / case for case in labelled]
        check_cases_are_intact(files, unlabelled, len(channel_names(self.dataset_json)), values)

    def saved_states(self) -> dict[str, Path | None]:
        """State -> its checkpoint, in the order of a training; None for the network as the trainer initialises it.

        Raises:
            InputError: the training has saved none of them.
        """
        names = {"coarse": COARSE, "pretrained": PRETRAINED, "trained": FINAL}
        saved: dict[str, Path | None] = {s: self.folder / n for s, n in names.items() if (self.folder / n).is_file()}
        if not saved:
            raise self._not_trained(f"{PRETRAINED} and {FINAL}")
        return {"initial": None, **saved}

    def predictor(self, checkpoint: Path | None) -> nnUNetPredictor:
        """Returns nnU-Net's predictor with the network in a state.

        Args:
            checkpoint: of any phase of ours that trains the planned network alone, or of nnU-Net's training; None for
                the network as the trainer initialises it: with its seed, or without one with seed 0.

        Raises:
            InputError: the checkpoint does not exist, cannot be read, or is of another network; the network has no
                encoder and decoder.
        """
        if checkpoint is not None and not checkpoint.is_file():
            raise self._not_trained(checkpoint.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(getattr(self.trainer, "seed", None) or 0)
            network = self._build_network()
        if not hasattr(network, "decoder"):
            raise InputError(
                f"{self.plans.plans_name}.json: {type(network).__name__} is not a network with encoder and decoder",
                "Look into a model with one of nnU-Net's U-Nets.",
            )
        mirroring = None if checkpoint is None else self._load(network, checkpoint)
        on_gpu = self.device.type == "cuda"
        with redirect_stdout(io.StringIO()):  # nnU-Net says that it sets what is set already
            predictor = nnUNetPredictor(device=self.device, perform_everything_on_device=on_gpu, allow_tqdm=False)
        predictor.manual_initialization(
            network.to(self.device).eval(),
            self.plans,
            self.configuration,
            None,
            self.dataset_json,
            self.trainer.__name__,
            mirroring,
        )
        return predictor

    def _build_network(self) -> nn.Module:
        return self.trainer.build_network_architecture(
            self.plans,
            self.configuration,
            determine_num_input_channels(self.plans, self.configuration, self.dataset_json),
            self.labels.num_segmentation_heads,
            enable_deep_supervision=False,
        )

    def _load(self, network: nn.Module, checkpoint: Path) -> tuple[int, ...] | None:
        """Loads the weights, and returns the axes by which predictions are mirrored, if the checkpoint knows them."""
        key = "task" if checkpoint.name == COARSE else "network_weights"
        content = load_safely(checkpoint, torch.device("cpu"), {key}, "Train this fold again, or name another one.")
        weights = content[key]
        if key == "task":  # of a phase, whose task owns the network
            weights = {name.removeprefix("network."): value for name, value in weights.items()}
        load_weights(network, weights, checkpoint)
        return content.get("inference_allowed_mirroring_axes")

    def _not_trained(self, checkpoint: str) -> InputError:
        found = ", ".join(sorted(file.name for file in self.folder.glob("checkpoint_*.pth"))) or "no checkpoint"
        trainer, plans = self.trainer.__name__, self.plans.plans_name
        return InputError(
            f"{self.folder} has no {checkpoint} ({found if self.folder.is_dir() else 'the folder does not exist'})",
            f"Train the fold: nnUNetv2_train {id_of(self.dataset)} {self.configuration_name} {self.number} "
            f"-tr {trainer} -p {plans} --c",
        )


def find_fold(
    dataset_name_or_id: str, configuration: str, trainer: str, plans_identifier: str, fold: str, device: str
) -> TrainedFold:
    """Finds a trained fold.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed and nnUNet_results.
        configuration, trainer, plans_identifier: of the model.
        fold: a number, or "all".
        device: cuda, cpu or mps.

    Raises:
        InputError: one of them does not exist, or the configuration is the second stage of a cascade.
    """
    for name, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if device == name and not backend.is_available():
            raise InputError(f"-device {device}: PyTorch finds no such device", "Add -device cpu.")
    dataset = find_dataset(dataset_name_or_id)
    check_training_input(dataset.name, configuration, plans_identifier, fold)
    plans = PlansManager(read_plans(dataset / f"{plans_identifier}.json", any_version=True))
    found = TrainedFold(
        find_dataset(dataset.name, "nnUNet_results")
        / f"{trainer}__{plans_identifier}__{configuration}"
        / f"fold_{fold}",
        dataset,
        fold if fold == "all" else int(fold),
        find_trainer(trainer),
        configuration,
        plans,
        read_dataset_json(dataset),
        torch.device(device),
    )
    if found.configuration.previous_stage_name:
        raise InputError(
            f"{configuration} is the second stage of a cascade, whose network also sees the first stage's masks",
            f"Look into the first one: -c {found.configuration.previous_stage_name}",
        )
    return found
