"""SemCLTrainer: contrastive pretraining of objects and voxels, then nnU-Net's training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.distributed import own_share, split_evenly
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import BACKGROUND, Cases, Object
from nnunet_semcl.methods.semcl.attention import Attention, occurring_objects
from nnunet_semcl.methods.semcl.coarse_model import own_model
from nnunet_semcl.methods.semcl.contrast_batches import ContrastBatches
from nnunet_semcl.methods.semcl.image_labels import read_image_labels
from nnunet_semcl.methods.semcl.pseudo_label_trainer import ROUNDS, PseudoLabelTrainer
from nnunet_semcl.methods.semcl.query_batches import QueryBatches
from nnunet_semcl.methods.semcl.query_views import QueryViews
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.methods.semcl.task import SemCLTask
from nnunet_semcl.methods.semcl.voxel_batches import VoxelBatches
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.schedule import TRAINING, ContinuedSchedule

# Shares of the epochs that were measured, see docs/results.md; between them a fold gets a mean.
ALL_LABELS = {"coarse": 0.0, "pretraining": 0.1}
# Where at least the share FEW of the cases is unlabelled, pretraining gets all but the coarse training: on the few
# labelled cases alone, the network forgets what the others have taught it.
FEW, FEW_LABELS_COARSE = 0.75, 0.25
# In fewer steps a coarse model finds the largest organ and no other: a short training gives it a larger share.
COARSE_STEPS, MOST_COARSE = 1500, 0.5


class SemCLTrainer(PseudoLabelTrainer):
    """Semantic-aware contrastive pretraining (Lee et al. 2023, arXiv 2106.01596).

    The attention masks come from the labels. If the fold has unlabelled cases, or labelled ones with ignored voxels, a
    coarse training comes first and predicts what is not labelled. After a third and two thirds of the pretraining, the
    pretrained network predicts it again.

    Attributes:
        use_attention: whether the encoder sees an object's mask in addition to the image.
    """

    Settings = SemCLSettings
    phase_names = ("coarse", *ROUNDS)
    use_attention = True

    def check_input(self) -> None:
        super().check_input()
        objective = self.pretraining_settings()["objective"]
        if not self.use_attention and "object" not in objective:
            raise InputError(
                f'{type(self).__name__}: use_attention = False has no effect with "objective": "{objective}"',
                'Remove it, or set "objective" to "object" or "object+voxel".',
            )

    def check_pretraining_input(self) -> None:
        super().check_pretraining_input()
        self._image_labels()

    def pretraining_settings(self) -> dict[str, Any]:
        return {**super().pretraining_settings(), "use_attention": self.use_attention}

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        unlabelled = len(self.unlabelled_images())
        ignored = sum(self._ignored_shares.values())
        cases = len(self.do_split()[0]) + unlabelled
        few = min(1, (unlabelled + ignored) / cases / FEW)  # from 0, all labels, to 1, few labels
        wanted = COARSE_STEPS / (self.num_epochs * self.num_iterations_per_epoch)
        coarse = max(FEW_LABELS_COARSE, min(wanted, MOST_COARSE))
        # Without segmentation, the last layers learn in nnU-Net's training alone.
        pretraining = 1 - coarse if settings.segmentation else ALL_LABELS["pretraining"]
        few_labels = {"coarse": coarse, "pretraining": pretraining}
        shares = {phase: round(few * few_labels[phase] + (1 - few) * ALL_LABELS[phase], 3) for phase in ALL_LABELS}
        reason = f"{unlabelled} of {cases} training cases are unlabelled"
        if ignored:
            reason += f", and ignored voxels of the others count as {ignored:.1f} more"
        if settings.coarse_model is not None:
            shares = {"coarse": 0.0, "pretraining": shares["coarse"] + shares["pretraining"]}
            reason += ", and the coarse model is given"
        elif few and coarse > FEW_LABELS_COARSE:
            reason += f", and a coarse model needs {COARSE_STEPS} steps, but at most half of all"
        if few == 1 and settings.segmentation:
            reason += "; the epoch of training, at learning rate 0, only validates"
        return shares, reason

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's, whose learning rate goes on from where it would be by now: its start would undo what was learned.

        Where pretraining has not segmented, the last layers have learned nothing, and it starts as nnU-Net's.
        """
        if not self.pretraining_settings()["segmentation"]:
            return super().configure_optimizers()
        past = sum(self.epochs.values()) - self.epochs[TRAINING]
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
        trust = self._trust(labelled, objects)
        rounds = self._rounds(epochs)
        for (phase, length), later in zip_longest(rounds.items(), list(rounds)[1:]):
            if later and self.is_past(phase) and self._has_masks(ROUNDS[later]):
                continue
            if phase != "pretraining":
                model = own_model(self)
            else:
                if settings["coarse_model"] is None and not (self.is_past("coarse") and self._has_masks(ROUNDS[phase])):
                    yield self._supervised_phase("coarse", [labelled], held_out, self.epochs["coarse"])
                model = self._coarse_model()
            cases = self._pseudo_labelled(labelled, model, trust, ROUNDS[phase])
            yield self._contrast_phase(phase, cases, held_out, objects, length)

    def _rounds(self, epochs: int) -> dict[str, int]:
        """Divides the epochs of pretraining, at least one, among the rounds of masks: phase -> epochs, above zero."""
        settings = self.pretraining_settings()
        number = len(ROUNDS) if settings["refine"] and settings["segmentation"] else 1
        lengths = dict(zip(ROUNDS, split_evenly(epochs, number), strict=False))
        return {phase: length for phase, length in lengths.items() if length}

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

    def _contrast_batches(
        self, phase: str, cases: list[Cases], objects: list[Object], labels: LabelManager
    ) -> ContrastBatches:
        """Builds batches of queries, of patches with sampled voxels, or of both, depending on the objective."""
        settings = self.pretraining_settings()
        parts: list[QueryBatches | VoxelBatches] = []
        contrasts = settings["objective"].split("+")
        if "object" in contrasts:
            parts.append(self._query_batches(phase, cases, objects, labels))
        if contrasts != ["object"] or settings["segmentation"]:
            voxels = own_share(settings["voxels"], least=2)
            patches = self._patches(phase, cases, settings["copy_paste"], labels, voxels if "place" in contrasts else 0)
            parts.append(VoxelBatches(patches, 0 if contrasts == ["place"] else voxels, labels))
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
