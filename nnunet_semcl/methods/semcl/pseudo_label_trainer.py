"""SemCLTrainer's pseudo-labels: which cases get them, from which model, and the loss of what they know."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import cast

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.data.components import examined_cases, sizes_and_single_components
from nnunet_semcl.data.filled_cases import FilledCases, ignored_shares
from nnunet_semcl.data.pseudo_labels import PseudoLabelledCases, Trust, is_saved, least_voxels, maybe_background
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.distributed import rank
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.mask_picture import draw_masks
from nnunet_semcl.files.cases import Cases, Object, check_images
from nnunet_semcl.files.datasets import label_values
from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.methods.semcl.coarse_model import named_model, own_model, predict_pseudo_labels
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.supervised_task import SupervisedTask
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

# Each of these phases learns from masks of its own: of the coarse model, then of the network after the phase before it.
ROUNDS = {"pretraining": "coarse_masks", "refinement": "refined_masks", "refinement_2": "refined_masks_2"}
WITHOUT_CHECKPOINTS = "without_checkpoints"


class PseudoLabelTrainer(PretrainingTrainer):
    """Predicts unlabelled cases and ignored voxels of labelled ones, and trains on what the predictions know.

    A subclass says in which phases.
    """

    batch_size: int
    label_manager: LabelManager

    def check_pretraining_input(self) -> None:
        super().check_pretraining_input()
        coarse_model = self.pretraining_settings()["coarse_model"]
        coarse_training = coarse_model is None and self.unlabelled_images() and self.epochs["pretraining"]
        if coarse_training and not self.epochs["coarse"]:
            raise InputError(
                f'"semcl" of configuration {self.configuration_name}, shares: no epoch is left for the coarse '
                "training, but masks of unlabelled cases need a coarse model",
                'Raise "coarse", or set coarse_model.',
            )
        if coarse_model is not None and self._images_to_predict(self.configuration_manager):
            self._images_to_predict(named_model(Path(coarse_model), self).configuration_manager)

    def set_previous_run_aside(self) -> None:
        super().set_previous_run_aside()
        for masks in ROUNDS.values():
            shutil.rmtree(self._masks_folder / masks, ignore_errors=True)

    @property
    def _masks_folder(self) -> Path:
        """Where masks go: those of a run without checkpoints do not replace another run's."""
        fold = Path(self.output_folder)
        return fold / WITHOUT_CHECKPOINTS if self.disable_checkpointing else fold

    def _trust(self, labelled: Cases, objects: list[Object]) -> Trust:
        """What is believed of masks, as far as the labelled cases tell."""
        # Not all foreground as one object: where some are missing, it falls into pieces.
        sizes, single_component = sizes_and_single_components(labelled, self._objects())
        names = ", ".join(map(str, single_component)) or "none"
        examined = f"{len(examined_cases(labelled))} of {len(labelled.identifiers)} labelled cases"
        self.print_to_log_file(
            f"Objects with a single component in {examined}, so that masks keep only the largest one: {names}"
        )
        least = {obj: least_voxels(sizes[obj]) for obj in objects}
        return Trust(self._labels_with_ignore, least, single_component, self.masks_background)

    def _has_masks(self, folder_name: str) -> bool:
        predicted = self._images_to_predict(self.configuration_manager)
        return all(is_saved(self._masks_folder / folder_name / case) for case in predicted)

    def _supervised_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, epochs: int, copy_paste: bool = False
    ) -> PretrainingPhase:
        """Builds a phase with nnU-Net's own loss and batches, but the optimiser of the pretraining phases."""
        labels = self._labels_of(cases)
        task = SupervisedTask(self.planned_network, self._segmentation_loss(labels))
        batches = self._patches(name, cases, copy_paste, labels)
        held_out_batches = self._patches(name, [held_out], copy_paste, labels) if held_out else None
        return self.build_phase(name, task, batches, held_out_batches, epochs)

    def _patches(
        self, phase: str, cases: list[Cases], copy_paste: bool, labels: LabelManager, places: int = 0
    ) -> TrainingBatches:
        if copy_paste and self.batch_size < 2:
            self.print_to_log_file("WARNING: no copy-paste: it takes two patches, and each process has only one")
        return TrainingBatches(self, cases, self.phase_seed(phase), copy_paste, places=places, labels=labels)

    def _labels_of(self, cases: list[Cases]) -> LabelManager:
        """The labels of a phase's cases, of which all but the first have pseudo-labels."""
        return self._labels_with_ignore if len(cases) > 1 else self.label_manager

    @cached_property
    def _labels_with_ignore(self) -> LabelManager:
        """The labels with an ignore label for what pseudo-labels do not know: the data set's own if there is one."""
        labels = self.label_manager
        if labels.has_ignore_label or not self.unlabelled_images():
            return labels
        return LabelManager(
            {**labels.label_dict, "ignore": int(max(labels.all_labels)) + 1}, labels.regions_class_order
        )

    def _segmentation_loss(self, labels: LabelManager) -> MarginalLoss:
        """Returns nnU-Net's own loss, for the data set's labels or for what pseudo-labels know."""
        own, self.label_manager = self.label_manager, labels
        try:
            loss = self._build_loss()
        finally:
            self.label_manager = own
        maybe = maybe_background(labels) if labels.has_ignore_label else None
        return MarginalLoss(loss, maybe, len(labels.foreground_regions) if labels.has_regions else 0)

    def _coarse_model(self) -> nnUNetPredictor:
        """Returns the model that the user names, or the trainer's network after the coarse training."""
        named = self.pretraining_settings()["coarse_model"]
        return own_model(self) if named is None else named_model(Path(named), self)

    @cached_property
    def _ignored_shares(self) -> dict[str, float]:
        """Labelled training case -> share of its voxels that are ignored, for the cases that hold any."""
        ignore_label = self.label_manager.ignore_label
        if ignore_label is None or not self.takes_unlabelled:
            return {}
        return ignored_shares(self._images_of(self.do_split()[0]), ignore_label)

    def _images_to_predict(self, configuration: ConfigurationManager) -> dict[str, Path]:
        """Case -> image, of unlabelled cases and of labelled ones with ignored voxels; empty without a coarse model."""
        if not (self.takes_unlabelled and (self.epochs["coarse"] or self.pretraining_settings()["coarse_model"])):
            return {}
        folder = Path(self.preprocessed_dataset_folder_base, configuration.data_identifier)
        incomplete = {case: folder / case for case in self._ignored_shares}
        check_images(incomplete, "labelled")
        return self.find_unlabelled_images(configuration) | incomplete

    def _pseudo_labelled(self, labelled: Cases, model: nnUNetPredictor, trust: Trust, folder_name: str) -> list[Cases]:
        """Returns the labelled cases, with a model's labels at ignored voxels, and unlabelled ones with its masks.

        The latter are left out if the model finds no object in any of them.
        """
        folder = self._masks_folder / folder_name
        images = self._images_to_predict(self.configuration_manager)
        seen_by_model = self._images_to_predict(model.configuration_manager)
        predict_pseudo_labels(model, seen_by_model, images, self, folder, trust)
        unlabelled = PseudoLabelledCases(self.unlabelled_images(), folder, trust)
        incomplete = PseudoLabelledCases({case: images[case] for case in self._ignored_shares}, folder, trust)
        ignore_label = cast("int", self._labels_with_ignore.ignore_label)
        for line in unlabelled.report() if unlabelled.images else ():
            self.print_to_log_file(line)
        if incomplete.images:
            labelled = filled = FilledCases(labelled, incomplete, ignore_label)
            self.print_to_log_file(
                f"Labelled cases with ignored voxels: {len(incomplete.images)}. Pseudo-labels of {folder_name} fill "
                f"{filled.filled_share:.0%} of these voxels"
            )
        shown = unlabelled if unlabelled.identifiers else incomplete
        if shown.identifiers and rank() == 0:
            draw_masks(shown, label_values(self.label_manager), ignore_label, folder.with_name(f"{folder_name}.png"))
        return [labelled, *([unlabelled] if unlabelled.identifiers else [])]

    def _objects(self) -> list[Object]:
        labels = self.label_manager
        return list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
