"""SemCLTrainer: contrastive pretraining of objects and voxels, then nnU-Net's training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.data.components import examined_cases, sizes_and_single_components
from nnunet_semcl.data.filled_cases import FilledCases, ignored_shares
from nnunet_semcl.data.pseudo_labels import PseudoLabelledCases, Trust, is_saved, least_voxels, maybe_background
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.distributed import own_share, rank
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.mask_picture import draw_masks
from nnunet_semcl.files.cases import BACKGROUND, Cases, Object, check_images
from nnunet_semcl.files.datasets import label_values
from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.methods.semcl.attention import Attention, occurring_objects
from nnunet_semcl.methods.semcl.coarse_model import named_model, own_model, predict_pseudo_labels
from nnunet_semcl.methods.semcl.contrast_batches import ContrastBatches
from nnunet_semcl.methods.semcl.image_labels import read_image_labels
from nnunet_semcl.methods.semcl.query_batches import QueryBatches
from nnunet_semcl.methods.semcl.query_views import QueryViews
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.methods.semcl.task import SemCLTask
from nnunet_semcl.methods.semcl.voxel_batches import VoxelBatches
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.schedule import TRAINING, ContinuedSchedule
from nnunet_semcl.pretraining.supervised_task import SupervisedTask
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

# Shares of the epochs that were measured, see docs/results.md; between them a fold gets a mean.
FEW_LABELS = {"coarse": 0.25, "pretraining": 0.7}  # where at least the share FEW of the cases is unlabelled
ALL_LABELS = {"coarse": 0.0, "pretraining": 0.1}
FEW = 0.75
# In fewer steps a coarse model finds the largest organ and no other: a short training gives it a larger share.
COARSE_STEPS, MOST_COARSE = 1500, 0.5
COARSE_MASKS, REFINED_MASKS = "coarse_masks", "refined_masks"
WITHOUT_CHECKPOINTS = "without_checkpoints"


class SemCLTrainer(PretrainingTrainer):
    """Semantic-aware contrastive pretraining (Lee et al. 2023, arXiv 2106.01596).

    The attention masks come from the labels. If the fold has unlabelled cases, or labelled ones with ignored voxels, a
    coarse training comes first and predicts what is not labelled. After half of the pretraining, the pretrained network
    predicts it again.

    Attributes:
        use_attention: whether the encoder sees an object's mask in addition to the image.
    """

    Settings = SemCLSettings
    batch_size: int
    label_manager: LabelManager
    phase_names = ("coarse", "pretraining", "refinement")
    use_attention = True

    def check_input(self) -> None:
        super().check_input()
        objective = self.pretraining_settings()["objective"]
        if not self.use_attention and objective not in ("object", "both"):
            raise InputError(
                f'{type(self).__name__}: use_attention = False has no effect with "objective": "{objective}"',
                'Remove it, or set "objective" to "object" or "both".',
            )

    def check_pretraining_input(self) -> None:
        super().check_pretraining_input()
        self._image_labels()
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
        for masks in (COARSE_MASKS, REFINED_MASKS):
            shutil.rmtree(self._masks_folder / masks, ignore_errors=True)

    @property
    def _masks_folder(self) -> Path:
        """Where masks go: those of a run without checkpoints do not replace another run's."""
        fold = Path(self.output_folder)
        return fold / WITHOUT_CHECKPOINTS if self.disable_checkpointing else fold

    def pretraining_settings(self) -> dict[str, Any]:
        return {**super().pretraining_settings(), "use_attention": self.use_attention}

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        unlabelled = len(self.unlabelled_images())
        ignored = sum(self._ignored_shares.values())
        cases = len(self.do_split()[0]) + unlabelled
        few = min(1, (unlabelled + ignored) / cases / FEW)  # from 0, all labels, to 1, few labels
        wanted = COARSE_STEPS / (self.num_epochs * self.num_iterations_per_epoch)
        more = max(0.0, min(wanted, MOST_COARSE) - FEW_LABELS["coarse"])
        few_labels = {"coarse": FEW_LABELS["coarse"] + more, "pretraining": FEW_LABELS["pretraining"] - more}
        shares = {phase: round(few * few_labels[phase] + (1 - few) * ALL_LABELS[phase], 3) for phase in FEW_LABELS}
        reason = f"{unlabelled} of {cases} training cases are unlabelled"
        if ignored:
            reason += f", and ignored voxels of the others count as {ignored:.1f} more"
        if settings.coarse_model is not None:
            shares = {"coarse": 0.0, "pretraining": shares["coarse"] + shares["pretraining"]}
            reason += ", and the coarse model is given"
        elif few and more:
            reason += f", and a coarse model needs {COARSE_STEPS} steps, but at most half of all"
        return shares, reason

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's, whose learning rate goes on from where it would be by now: its start would undo what was learned.

        Where pretraining has not segmented, the last layers have learned nothing, and it starts as nnU-Net's.
        """
        segmented = self.pretraining_settings()["segmentation"]
        past = sum(self.epochs.values()) - self.epochs[TRAINING] if segmented else 0
        training, self.num_epochs = self.num_epochs, past + self.epochs[TRAINING]
        try:
            optimizer, schedule = super().configure_optimizers()
        finally:
            self.num_epochs = training
        return optimizer, ContinuedSchedule(schedule, past)

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        labelled, validation = self.get_tr_and_val_datasets()
        settings = self.pretraining_settings()
        objects = occurring_objects(labelled, self._objects())
        seen = set(labelled.identifiers) & set(validation.identifiers)  # fold all
        held_out = validation if not seen and Attention(validation, objects).centres else None
        if held_out is None:
            reason = "the fold trains on its validation cases" if seen else "no validation case has an object"
            self.print_to_log_file(f"No held-out figures: {reason}")
        absent = [obj for obj in self._objects() if obj not in objects]
        if absent:
            self.print_to_log_file(f"Objects that no labelled case of the fold has: {', '.join(map(str, absent))}")
        epochs = self.epochs["pretraining"]
        if not epochs:
            return
        if not self._images_to_predict(self.configuration_manager):
            if self._ignored_shares:
                self.print_to_log_file("Ignored voxels stay ignored: no epoch is left for a coarse training")
            yield self._contrast_phase("pretraining", [labelled], held_out, objects, epochs)
            return
        refinement = epochs // 2 if settings["refine"] and settings["segmentation"] else 0
        trust = self._trust(labelled, objects)
        if not (self.is_past("pretraining") and self._has_masks(REFINED_MASKS)):
            if settings["coarse_model"] is None and not (self.is_past("coarse") and self._has_masks(COARSE_MASKS)):
                yield self._supervised_phase("coarse", [labelled], held_out, self.epochs["coarse"])
            cases = self._pseudo_labelled(labelled, self._coarse_model(), trust, COARSE_MASKS)
            yield self._contrast_phase("pretraining", cases, held_out, objects, epochs - refinement)
        if refinement:
            cases = self._pseudo_labelled(labelled, own_model(self), trust, REFINED_MASKS)
            yield self._contrast_phase("refinement", cases, held_out, objects, refinement)

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

    def _contrast_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, objects: list[Object], epochs: int
    ) -> PretrainingPhase:
        labels = self._labels_of(cases)
        settings = self.pretraining_settings()
        loss = self._segmentation_loss(labels) if settings["segmentation"] else None
        task = SemCLTask.from_settings(self.planned_network, settings, self.label_manager, loss)
        batches = self._contrast_batches(name, cases, objects, labels)
        held_out_batches = self._contrast_batches(name, [held_out], objects, labels) if held_out else None
        return self.build_phase(name, task, batches, held_out_batches, epochs)

    def _supervised_phase(
        self, name: str, cases: list[Cases], held_out: Cases | None, epochs: int, copy_paste: bool = False
    ) -> PretrainingPhase:
        """Builds a phase with nnU-Net's own loss and batches, but the optimiser of the pretraining phases."""
        labels = self._labels_of(cases)
        task = SupervisedTask(self.planned_network, self._segmentation_loss(labels))
        batches = self._patches(name, cases, copy_paste, labels)
        held_out_batches = self._patches(name, [held_out], copy_paste, labels) if held_out else None
        return self.build_phase(name, task, batches, held_out_batches, epochs)

    def _patches(self, phase: str, cases: list[Cases], copy_paste: bool, labels: LabelManager) -> TrainingBatches:
        if copy_paste and self.batch_size < 2:
            self.print_to_log_file("WARNING: no copy-paste: it takes two patches, and each process has only one")
        return TrainingBatches(self, cases, self.phase_seed(phase), copy_paste, labels=labels)

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

    def _contrast_batches(
        self, phase: str, cases: list[Cases], objects: list[Object], labels: LabelManager
    ) -> ContrastBatches:
        """Builds batches of queries, of patches with sampled voxels, or of both, depending on the objective."""
        settings = self.pretraining_settings()
        parts: list[QueryBatches | VoxelBatches] = []
        if settings["objective"] in ("object", "both"):
            parts.append(self._query_batches(phase, cases, objects, labels))
        if settings["objective"] != "object" or settings["segmentation"]:
            patches = self._patches(phase, cases, settings["copy_paste"], labels)
            voxels = own_share(settings["voxels"], least=2)
            parts.append(VoxelBatches(patches, voxels, labels))
        return ContrastBatches(parts)

    def _query_batches(
        self, phase: str, cases: list[Cases], objects: list[Object], labels: LabelManager
    ) -> QueryBatches:
        settings = self.pretraining_settings()
        contrasted = objects if len(objects) > 1 else [*objects, BACKGROUND]  # contrast needs two
        rotation, dummy_2d, _, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return QueryBatches(
            [Attention(dataset, contrasted, labels.ignore_label) for dataset in cases],
            QueryViews(settings["query_size"], rotation, mirror_axes, dummy_2d),
            own_share(settings["queries_per_batch"], least=2),
            self.phase_seed(phase),
            self._image_labels(),
            self.label_manager.foreground_labels if self.is_cascaded else (),
        )

    def _image_labels(self) -> dict[str, str]:
        raw = nnUNet_raw.get()
        if not raw:
            return {}
        data = self.preprocessed_dataset_folder
        cases = set(infer_dataset_class(data).get_identifiers(data))
        cases |= self.find_unlabelled_images(self.configuration_manager).keys()
        return read_image_labels(Path(raw, self.plans_manager.dataset_name), cases)

    def _objects(self) -> list[Object]:
        labels = self.label_manager
        return list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
