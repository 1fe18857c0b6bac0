"""nnU-Net's trainer with one phase in front: pretrain, drop what was added, train as always."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from nnunet_semcl.atomic_files import written_beside
from nnunet_semcl.checkpoint import load_safely, load_weights, save_atomically
from nnunet_semcl.config import MethodConfig
from nnunet_semcl.data.pseudo_labels import has_image
from nnunet_semcl.data.seeding import random_states, set_random_states
from nnunet_semcl.data.unlabelled import (
    channel_names,
    check_unlabelled,
    hidden_cases,
    unlabelled_cases,
    unlabelled_folder,
)
from nnunet_semcl.data.whole_cases import check_cases_are_whole
from nnunet_semcl.distributed import barrier, of_all, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.json_files import write_json
from nnunet_semcl.preprocessed import check_cases, check_dataset_json, resolve_configuration
from nnunet_semcl.pretraining.phase import PretrainingPhase, checkpoint_name
from nnunet_semcl.pretraining.task import PretrainingTask
from nnunet_semcl.training.interruption import alone_in, not_usable, on_sigterm

CHECKPOINT_KEY = "nnunet_semcl"  # what is ours in nnU-Net's checkpoints
PRETRAINED_NAME = "checkpoint_pretrained.pth"
FORMER_RUN = "former_run"
BATCH_SEED = 12345  # nnU-Net's for its splits: what is drawn in pretraining is the same in every run without a seed


class PretrainingTrainer(nnUNetTrainer, ABC):
    """A method's trainer says what its phases and its settings are; all else is here or nnU-Net's.

    Attributes:
        phase_names: of all phases that the method may have.
        num_pretraining_epochs, num_pretraining_iterations_per_epoch: length of the phase.
        use_unlabelled: whether unlabelled cases take part.
        seed: None, or a number with which a run repeats bit for bit (on the CPU, with nnUNet_n_proc_DA=0).
    """

    phase_names: tuple[str, ...] = ("pretraining",)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        # Before nnU-Net reads them, whose errors name neither file nor key.
        resolve_configuration(plans, configuration, f"{plans.get('plans_name')}.json")
        check_dataset_json(dataset_json, "dataset.json")
        try:
            super().__init__(plans, configuration, fold, dataset_json, device)
        except OSError as error:
            raise not_usable(error) from error
        self.num_pretraining_epochs = 100
        self.num_pretraining_iterations_per_epoch = 250
        self.use_unlabelled = True
        self.seed: int | None = None
        self.save_every = 1  # a kill costs an epoch at most; nnU-Net's default is 50
        self._states_to_restore: dict[str, Any] | None = None

    @abstractmethod
    def config(self) -> MethodConfig:
        """The method's settings, learning_rate and weight_decay among them."""

    @abstractmethod
    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        """The phases in their order; what stands between two of them runs when the former one is done."""

    def pretraining_settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        return self.config().as_dict()

    def check_input(self) -> None:
        """Tells faults of data, fold and settings by an InputError, before any long work."""
        data = Path(self.preprocessed_dataset_folder)
        check_cases(data, self.configuration_name, self.plans_manager.plans_name, self.fold)
        self.pretraining_settings()
        if self._takes_unlabelled:
            self._unlabelled_cases(self.configuration_manager)

    def initialize(self) -> None:
        self.check_input()
        self._seed_everything()
        super().initialize()

    def run_training(self) -> None:
        with self._alone():
            if not self.was_initialized:
                self.initialize()
            # A checkpoint of nnU-Net's own that --c loaded holds weights that went through pretraining already.
            if self.current_epoch == 0:
                self.pretrain()
                self._seed_everything()
            super().run_training()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._alone():
            super().perform_actual_validation(save_probabilities)

    def pretrain(self) -> None:
        """Runs the phases, takes them up where they were interrupted, or takes their result where they are done."""
        if not all(hasattr(self.planned_network, part) for part in ("encoder", "decoder")):
            raise InputError(
                "plans",
                f"the network {type(self.planned_network).__name__}",
                "one with encoder and decoder, as nnU-Net's U-Nets",
                "Train with -tr nnUNetTrainer.",
            )
        self._check_cases_are_whole()
        folder = Path(self.output_folder)
        if not self.logger.resume and self.local_rank == 0:
            self.set_former_run_aside()
        barrier()
        if (folder / PRETRAINED_NAME).is_file():
            self._load_pretrained(folder / PRETRAINED_NAME)
            return
        self._tell_settings()
        phase = None
        for phase in self.pretraining_phases():
            interrupted = phase.checkpoint.is_file()
            barrier()  # before the first process writes it
            if interrupted:
                phase.resume()
                done = phase.records[-1]["epoch"]
                self.print_to_log_file(f"{phase.name.capitalize()} goes on after epoch {done}: {phase.checkpoint}")
            phase.run()
            phase.task.remove_additions()
        if phase is None:
            return
        if not self.disable_checkpointing and self.local_rank == 0:
            self._save_pretrained(folder / PRETRAINED_NAME, phase.settings)
            for name in self.phase_names:
                (folder / checkpoint_name(name)).unlink(missing_ok=True)
        self.print_to_log_file("Pretraining done.\n")

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        if not self.was_initialized:
            self.initialize()
        needed = {"network_weights", "optimizer_state", "current_epoch", "logging"}
        content = load_safely(Path(filename_or_checkpoint), self.device, needed)
        load_weights(self.planned_network, content["network_weights"], Path(filename_or_checkpoint))
        self.load_additions(content.get(CHECKPOINT_KEY, {}), filename_or_checkpoint)
        super().load_checkpoint(filename_or_checkpoint)
        # nnU-Net writes checkpoint_latest before it looks whether its epoch was the best one.
        self._best_ema = max(content["logging"]["ema_fg_dice"])

    def set_former_run_aside(self) -> None:
        """Moves a former run's checkpoints away, so that --c finds those of one run, the present one."""
        folder = Path(self.output_folder)
        for checkpoint in folder.glob("checkpoint_*.pth"):
            (folder / FORMER_RUN).mkdir(exist_ok=True)
            os.replace(checkpoint, folder / FORMER_RUN / checkpoint.name)
            self.print_to_log_file(f"{checkpoint.name} of a former run: now in {folder / FORMER_RUN}")

    def save_checkpoint(self, filename: str) -> None:
        additions = self.checkpoint_additions()
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # writes nothing
            return
        # nnU-Net writes in place; a kill in the middle would cost the only checkpoint.
        with written_beside(Path(filename)) as beside:
            super().save_checkpoint(str(beside))
            content = torch.load(beside, map_location="cpu", weights_only=False)
            torch.save({**content, CHECKPOINT_KEY: additions}, beside)

    def checkpoint_additions(self) -> dict[str, Any]:
        """What training needs beside nnU-Net's own state when --c takes it up."""
        return {"random_states": of_all(random_states())}

    def load_additions(self, additions: dict[str, Any], file: str) -> None:
        """Takes up the additions of a checkpoint; none where it is nnU-Net's own."""
        states = additions.get("random_states", [])
        if len(states) == world_size():
            self._states_to_restore = states[self.local_rank]

    def on_train_epoch_start(self) -> None:
        # Not sooner: setting up the data loaders draws random numbers too.
        if self._states_to_restore is not None:
            set_random_states(self._states_to_restore)
            self._states_to_restore = None
        super().on_train_epoch_start()

    def build_phase(
        self,
        name: str,
        task: PretrainingTask,
        batches: Dataset,
        held_back: Dataset | None,
        epochs: int,
        settings: dict[str, Any],
    ) -> PretrainingPhase:
        """A phase over the planned network, of num_pretraining_iterations_per_epoch steps an epoch.

        Args:
            settings: plain values that the phase depends on, learning_rate and weight_decay among them.
        """
        settings = {
            "trainer": type(self).__name__,
            "epochs": epochs,
            "iterations": self.num_pretraining_iterations_per_epoch,
            **settings,
            "seed": self.batch_seed,
        }
        self.print_to_log_file(f"\n{name.capitalize()} by {type(task).__name__}:", settings, add_timestamp=False)
        return PretrainingPhase(
            name=name,
            task=task,
            batches=batches,
            held_back=held_back,
            epochs=epochs,
            iterations_per_epoch=self.num_pretraining_iterations_per_epoch,
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            folder=Path(self.output_folder),
            device=self.device,
            settings=settings,
            workers=get_allowed_n_proc_DA(),
            write_checkpoints=not self.disable_checkpointing,
            log=self.print_to_log_file,
            compile=self._do_i_compile(),
        )

    @property
    def batch_seed(self) -> int:
        return BATCH_SEED if self.seed is None else self.seed

    @property
    def planned_network(self) -> nn.Module:
        """nnU-Net's network without the wrappers of several processes and torch.compile."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def _takes_unlabelled(self) -> bool:
        # nnU-Net's previous stage predicts the data set's own cases alone.
        return self.use_unlabelled and not self.is_cascaded

    def _unlabelled_cases(self, configuration: ConfigurationManager) -> dict[str, Path]:
        """Case -> its image without extension, preprocessed for a configuration: the images that the user gave to
        `nnunet-semcl unlabelled`, and the fold's own cases with hidden labels."""
        dataset = Path(self.preprocessed_dataset_folder_base)
        given = unlabelled_folder(dataset, self.configuration_manager)
        check_unlabelled(given, self.plans_manager, self.configuration_manager, self.dataset_json)
        hidden = hidden_cases(dataset / "splits_final.json", self.fold)
        images = {case: unlabelled_folder(dataset, configuration) / case for case in unlabelled_cases(given)}
        images |= {case: dataset / configuration.data_identifier / case for case in hidden}
        missing = [case for case, image in images.items() if not has_image(image)]
        if missing:
            raise InputError(
                str(images[missing[0]]),
                "no preprocessed image",
                f"one for each of the {len(images)} unlabelled cases ({len(missing)} are missing)",
                "Preprocess them: nnUNetv2_preprocess (cases of the data set), nnunet-semcl unlabelled (others).",
            )
        return images

    def _check_cases_are_whole(self) -> None:
        channels = len(channel_names(self.dataset_json))
        labels = [int(label) for label in self.label_manager.all_labels]
        if self.label_manager.has_ignore_label:
            labels.append(self.label_manager.ignore_label)
        labelled = sorted({case for side in self.do_split() for case in side})
        images = self._unlabelled_cases(self.configuration_manager) if self._takes_unlabelled else {}
        folder = Path(self.preprocessed_dataset_folder)
        check_cases_are_whole([folder / case for case in labelled], list(images.values()), channels, labels)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        alone = alone_in(Path(self.output_folder)) if self.local_rank == 0 else nullcontext()
        with alone, on_sigterm(self._tell_how_to_go_on):
            yield

    def _tell_how_to_go_on(self) -> None:
        self.print_to_log_file(
            f"SIGTERM. The state after the last epoch is in {self.output_folder}: go on with the same command and --c"
        )

    def _tell_settings(self) -> None:
        """Into the log with the reason for each, and into the fold's folder."""
        config = self.config()
        told = {name: {"value": value, "reason": config.reasons[name]} for name, value in config.as_dict().items()}
        for name, of in told.items():
            self.print_to_log_file(f"{name}: {of['value']} ({of['reason']})", add_timestamp=False)
        if self.local_rank == 0:
            write_json(told, Path(self.output_folder, f"{config.section}_settings.json"))
        labelled = self.do_split()[0]
        unlabelled = self._unlabelled_cases(self.configuration_manager) if self._takes_unlabelled else {}
        self.print_to_log_file(f"{len(labelled)} labelled and {len(unlabelled)} unlabelled training cases")

    def _load_pretrained(self, path: Path) -> None:
        content = load_safely(path, self.device, {"network_weights"})
        load_weights(self.planned_network, content["network_weights"], path)
        self.print_to_log_file(f"Pretraining was done already: weights from {path}")

    def _save_pretrained(self, path: Path, settings: dict[str, Any]) -> None:
        save_atomically(
            {
                "network_weights": self.planned_network.state_dict(),
                "trainer_name": type(self).__name__,
                "init_args": self.my_init_kwargs,
                "pretraining": settings,
            },
            path,
        )

    def _seed_everything(self) -> None:
        if self.seed is not None:
            seed = self.seed + self.local_rank  # each process augments in its own way
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
