"""nnU-Net's trainer with pretraining phases in front: pretrain, drop what was added, train as always."""

from __future__ import annotations

import secrets
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch.utils.data import Dataset

from nnunet_semcl.distributed import all_gather_object, barrier
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.adaptation_plan import adaptation_entry
from nnunet_semcl.files.checkpoints import load_safely, load_weights, save_atomically
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.model_folder import check_model_folder, set_checkpoints_aside
from nnunet_semcl.files.splits import read_splits
from nnunet_semcl.pretraining.phase import PretrainingPhase, checkpoint_name
from nnunet_semcl.pretraining.schedule import TRAINING, divide_epochs
from nnunet_semcl.pretraining.semi_supervised_trainer import SemiSupervisedTrainer
from nnunet_semcl.pretraining.settings import MethodSettings
from nnunet_semcl.pretraining.start_from import Start, read_start
from nnunet_semcl.pretraining.task import PretrainingTask
from nnunet_semcl.pretraining.wandb_run import wandb_run

PRETRAINED_NAME = "checkpoint_pretrained.pth"


class PretrainingTrainer(SemiSupervisedTrainer, ABC):
    """A subclass defines a method's phases and settings; this class and nnU-Net do the rest.

    Attributes:
        phase_names: names of all phases that the method may have.
        Settings: the method's settings.
        needs_labels: whether pretraining needs labelled cases.
        num_epochs: as nnU-Net's, but of all phases together; after `initialize` those of nnU-Net's training alone.
        num_iterations_per_epoch: as nnU-Net's, and in each phase.
    """

    Settings: type[MethodSettings]
    needs_labels = True
    phase_names: tuple[str, ...] = ("pretraining",)
    _pretraining_is_done = False  # whether this run continues or validates what comes after it
    _drawn_seed: int | None = None
    _start: Start | None = None

    @abstractmethod
    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        """Yields the phases in order; code between two yields runs when the first phase is done.

        Phases that `is_past` may be left out.
        """

    def epoch_shares(self, settings: Any) -> tuple[dict[str, float], str]:
        """Returns phase -> share of the epochs for this fold, with the reason; the setting `shares` overrides it.

        nnU-Net's training gets the rest.

        Args:
            settings: of the method, all but `shares`.
        """
        return {"pretraining": 0.1}, "most of the epochs are nnU-Net's"

    @cached_property
    def method_settings(self) -> MethodSettings:
        settings = self.Settings.from_plan(self.configuration_manager, self.configuration_name)
        if settings.shares is None:
            shares, reason = self._shares_of_this_run() or self.epoch_shares(settings)
            settings = replace(settings, shares=shares, reasons=settings.reasons | {"shares": reason})
        return settings

    def _shares_of_this_run(self) -> tuple[dict[str, float], str] | None:
        """The shares that a run has begun with: after pretraining, its cases may be gone or be others."""
        if not self._pretraining_is_done or not self._settings_file.is_file():
            return None
        content = read_json(self._settings_file)
        entry = content.get("shares") if isinstance(content, dict) else None
        return (entry["value"], entry["reason"]) if entry else None

    @cached_property
    def epochs(self) -> dict[str, int]:
        """The epochs of each phase, and of nnU-Net's training."""
        return divide_epochs(self.num_epochs, cast("dict[str, float]", self.method_settings.shares))

    def pretraining_settings(self) -> dict[str, Any]:
        """Returns everything that the result depends on, as plain values."""
        return self.method_settings.as_dict()

    def check_input(self) -> None:
        """Checks data, fold and settings before any long work.

        Raises:
            InputError: one of them is invalid.
        """
        super().check_input()
        self.pretraining_settings()
        if not self._pretraining_is_done:
            self.check_pretraining_input()

    def check_pretraining_input(self) -> None:
        """Checks what the phases before nnU-Net's training need, and what that training will need after them.

        Raises:
            InputError: something is missing, invalid, or cannot be written.
        """
        self.unlabelled_images()
        if self.local_rank == 0:
            check_model_folder(Path(self.output_folder_base), Path(self.preprocessed_dataset_folder_base))

    def initialize(self) -> None:
        if self.logger.resume and Path(self.output_folder, PRETRAINED_NAME).is_file():
            self._pretraining_is_done = True
        self.check_input()
        self.num_epochs = self.epochs[TRAINING]
        super().initialize()
        file = self.method_settings.start_from  # what --c continues has begun with it
        if file is not None and not self._pretraining_is_done and not self.interrupted_phases():
            self._start = read_start(Path(file), self.planned_network, self.dataset_json)
            held_out = set(self.held_out_images())  # first: nnU-Net writes splits_final.json where there is none
            splits = read_splits(Path(self.preprocessed_dataset_folder_base, "splits_final.json"))
            self._start.check_has_not_learned_from(held_out, self.plans_manager.dataset_name, splits)
            self._start.apply(self.planned_network, self.print_to_log_file)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        # nnU-Net's own checkpoints, for --c and --val, are later than any phase.
        self._pretraining_is_done = True
        super().load_checkpoint(filename_or_checkpoint)

    def run_training(self) -> None:
        with self.exclusive():
            if not self.was_initialized:
                self.initialize()
            # Otherwise --c has loaded a checkpoint of nnU-Net's training, whose weights are already pretrained.
            if self.current_epoch == 0:
                self.pretrain()
            super().run_training()

    def pretrain(self) -> None:
        """Runs the phases, continues an interrupted one, or loads the result if all are done.

        Raises:
            InputError: the planned network has no encoder and decoder, or a case or checkpoint is broken.
        """
        if not all(hasattr(self.planned_network, part) for part in ("encoder", "decoder")):
            network = type(self.planned_network).__name__
            raise InputError(
                f"{self.plans_manager.plans_name}.json: {network} is not a network with an encoder and a decoder",
                "Plan one of nnU-Net's U-Nets, or train with -tr nnUNetTrainer.",
            )
        if self._start is not None:
            self._start.check_is_in(self.planned_network)
            self._start = None  # a copy of the weights
        self.check_cases_are_intact()
        folder = Path(self.output_folder)
        anew = not self.logger.resume
        if anew and self.local_rank == 0:
            self.set_previous_run_aside()
        barrier()
        if not anew and (folder / PRETRAINED_NAME).is_file():
            self._load_pretrained(folder / PRETRAINED_NAME)
            return
        self.unpack_cases()
        self._log_settings()
        phase = None
        for phase in self.pretraining_phases():
            interrupted = not anew and phase.checkpoint.is_file()
            barrier()  # all processes look before the first one writes the file
            if interrupted:
                phase.resume()
                done = phase.records[-1]["epoch"]
                self.print_to_log_file(f"{phase.name.capitalize()} continues after epoch {done}: {phase.checkpoint}")
            with wandb_run(self.logger, phase) as phase.track:
                phase.run()
            phase.task.remove_additions()
            self.seed_everything()  # what the next phase draws does not depend on phases that --c leaves out
        if phase is None:
            return
        if not self.disable_checkpointing and self.local_rank == 0:
            self._save_pretrained(folder / PRETRAINED_NAME, phase.settings)
            for name in self.phase_names:
                (folder / checkpoint_name(name)).unlink(missing_ok=True)
        self.print_to_log_file("Pretraining done.\n")

    def is_past(self, phase: str) -> bool:
        """Whether --c continues in a later phase than this one, which then need not be built again."""
        later = self.phase_names[self.phase_names.index(phase) + 1 :]
        return any(name in later for name in self.interrupted_phases())

    def interrupted_phases(self) -> list[str]:
        """Returns the phases of which --c finds a checkpoint."""
        folder = Path(self.output_folder)
        return [name for name in self.phase_names if self.logger.resume and (folder / checkpoint_name(name)).is_file()]

    def set_previous_run_aside(self) -> None:
        """Moves a previous run's checkpoints away, so that --c finds only checkpoints of the present run.

        A run that writes no checkpoint leaves them where they are.
        """
        if self.disable_checkpointing:
            return
        number, aside = set_checkpoints_aside(Path(self.output_folder))
        if number:
            self.print_to_log_file(f"Moved {number} checkpoints of a previous run to {aside}")

    def build_phase(
        self,
        name: str,
        task: PretrainingTask,
        batches: Dataset,
        held_out: Dataset | None,
        epochs: int,
    ) -> PretrainingPhase:
        """Builds a phase with this trainer's settings, folder and number of iterations per epoch."""
        settings = {
            "trainer": type(self).__name__,
            "epochs": epochs,
            "iterations": self.num_iterations_per_epoch,
            **self.pretraining_settings(),
            "seed": self.batch_seed,
        }
        self.print_to_log_file(f"\n{name.capitalize()} by {type(task).__name__}:", settings, add_timestamp=False)
        return PretrainingPhase(
            name=name,
            task=task,
            batches=batches,
            held_out=held_out,
            epochs=epochs,
            iterations_per_epoch=self.num_iterations_per_epoch,
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
        """The trainer's seed; without one, a seed that is drawn for this run, which --c finds in the settings file."""
        if self.seed is not None:
            return self.seed
        if self._drawn_seed is None:
            found = read_json(self._settings_file) if self.logger.resume and self._settings_file.is_file() else {}
            entry = found.get("seed") if isinstance(found, dict) else None
            drawn = entry["value"] if entry else secrets.randbits(32)
            self._drawn_seed = int(all_gather_object(drawn)[0])
        return self._drawn_seed

    def phase_seed(self, phase: str) -> int:
        """Returns the seed of a phase's batches: no phase draws the patches of another one."""
        return int(np.random.SeedSequence((self.batch_seed, zlib.crc32(phase.encode()))).generate_state(1)[0])

    @property
    def _settings_file(self) -> Path:
        return Path(self.output_folder, f"{self.Settings.section}_settings.json")

    def _log_settings(self) -> None:
        """Writes each setting with its reason to the log and to the fold's folder."""
        settings = self.method_settings
        entries = {
            name: {"value": value, "reason": settings.reasons[name]} for name, value in settings.as_dict().items()
        }
        reason = "drawn for this run: set the trainer's seed to repeat it" if self.seed is None else "the trainer's"
        entries["seed"] = {"value": self.batch_seed, "reason": reason}
        for name, entry in entries.items():
            self.print_to_log_file(f"{name}: {entry['value']} ({entry['reason']})", add_timestamp=False)
        if self.local_rank == 0:
            write_json(entries, self._settings_file)
        phases = ", ".join(f"{epochs} of {name}" for name, epochs in self.epochs.items())
        self.print_to_log_file(f"{sum(self.epochs.values())} epochs in all: {phases} ({settings.reasons['shares']})")
        labelled, unlabelled = self.do_split()[0], self.unlabelled_images()
        self.print_to_log_file(f"{len(labelled)} labelled and {len(unlabelled)} unlabelled training cases")
        if self.is_cascaded:
            self.print_to_log_file("Unlabelled cases are left out: the cascade's previous stage has not predicted them")

    def _load_pretrained(self, path: Path) -> None:
        content = load_safely(path, self.device, {"network_weights"})
        load_weights(self.planned_network, content["network_weights"], path)
        self.print_to_log_file(f"Pretraining is already done: loaded its weights from {path}")

    def _save_pretrained(self, path: Path, settings: dict[str, Any]) -> None:
        network, channels = self.planned_network, cast("int", self.num_input_channels)
        content = {
            "network_weights": network.state_dict(),
            "trainer_name": type(self).__name__,
            "init_args": self.my_init_kwargs,
            "pretraining": settings,
            "used_labels": self.needs_labels,
            "citations": self.Settings.citations,
            **adaptation_entry(network, self.configuration_manager, self.configuration_name, channels),
        }
        save_atomically(content, path)
