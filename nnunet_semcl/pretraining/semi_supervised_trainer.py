"""nnU-Net's trainer with the fold's unlabelled cases, which checks all cases before any long work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.data.unlabelled import check_unlabelled, unlabelled_folder, unlabelled_images
from nnunet_semcl.distributed import barrier
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import has_image
from nnunet_semcl.files.datasets import channel_names
from nnunet_semcl.files.intact_cases import check_cases_are_intact
from nnunet_semcl.files.training_input import check_cases
from nnunet_semcl.pretraining.interruptible_trainer import InterruptibleTrainer


class SemiSupervisedTrainer(InterruptibleTrainer):
    """Finds the images of labelled, unlabelled and held-out cases.

    Attributes:
        use_unlabelled: whether to use unlabelled cases, and in SemCL ignored voxels of labelled ones.
    """

    use_unlabelled = True
    images_alone = False  # whether the data set has no labelled case at all: then there is only pretraining

    def check_input(self) -> None:
        """Checks the fold's cases, without reading them.

        Raises:
            InputError: the fold or one of its cases is missing or invalid.
        """
        if not self.images_alone:
            data = Path(self.preprocessed_dataset_folder)
            check_cases(data, self.configuration_name, self.plans_manager.plans_name, self.fold)
        if self.is_cascaded:
            self._check_previous_stage()

    def initialize(self) -> None:
        with _format_of_unlabelled_cases() if self.images_alone else nullcontext():
            super().initialize()

    def do_split(self) -> tuple[list[str], list[str]]:
        return ([], []) if self.images_alone else super().do_split()

    def _check_previous_stage(self) -> None:
        """Checks that the previous stage of the cascade has predicted the fold's cases."""
        for case in itertools.chain(*self.do_split()):
            file = Path(cast("str", self.folder_with_segs_from_previous_stage), case)
            if not has_image(file):
                stage = self.configuration_manager.previous_stage_name
                raise InputError(
                    f"{file} is missing: the cascade needs the prediction of {stage} for each case of the fold",
                    f"Train {stage} first, with the same trainer and plans, in all folds. "
                    "Where it is trained already, add --val.",
                )

    def check_cases_are_intact(self) -> None:
        """Reads the cases that nobody has read since they were written.

        Raises:
            InputError: one of them is broken.
        """
        channels = len(channel_names(self.dataset_json))
        labels = [int(label) for label in self.label_manager.all_labels]
        if self.label_manager.has_ignore_label:
            labels.append(self.label_manager.ignore_label)
        labelled = sorted({case for side in self.do_split() for case in side})
        folder = Path(self.preprocessed_dataset_folder)
        unlabelled = list(self.unlabelled_images().values())
        check_cases_are_intact([folder / case for case in labelled], unlabelled, channels, labels)

    def unpack_cases(self) -> None:
        """Unpacks an older nnU-Net's .npz cases, as nnU-Net does later: each patch would read a whole archive."""
        if self.local_rank == 0:
            processes = max(1, get_allowed_n_proc_DA() // 2)
            self.dataset_class.unpack_dataset(
                self.preprocessed_dataset_folder, overwrite_existing=False, num_processes=processes, verify=True
            )
        barrier()

    @property
    def takes_unlabelled(self) -> bool:
        # The previous stage of a cascade predicts only the data set's own cases.
        return self.use_unlabelled and not self.is_cascaded

    def unlabelled_images(self) -> dict[str, Path]:
        """Returns case -> image file without extension, for the unlabelled cases that this training uses."""
        return self.find_unlabelled_images(self.configuration_manager) if self.takes_unlabelled else {}

    def find_unlabelled_images(self, configuration: ConfigurationManager) -> dict[str, Path]:
        """Returns case -> image file without extension, for a configuration's unlabelled cases.

        These are the images that the user gave to `nnunet-semcl unlabelled`, and the fold's cases with hidden labels.

        Raises:
            InputError: an image is missing, or was preprocessed with other plans.
        """
        dataset = Path(self.preprocessed_dataset_folder_base)
        check_unlabelled(
            unlabelled_folder(dataset, self.configuration_manager),
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
        )
        return unlabelled_images(dataset, self.fold, self.configuration_manager, configuration)

    @property
    def masks_background(self) -> bool:
        """Whether nnU-Net sets the image to 0 wherever the segmentation is -1, outside the body."""
        return any(self.configuration_manager.use_mask_for_norm)

    def training_images(self) -> dict[str, Path]:
        """Returns case -> image file without extension, for labelled and unlabelled cases. Opens no label."""
        return self._images_of(self.do_split()[0]) | self.unlabelled_images()

    def held_out_images(self) -> dict[str, Path]:
        """Returns the same for the validation cases; none in fold all, which trains on them."""
        training, validation = self.do_split()
        return self._images_of([case for case in validation if case not in set(training)])

    def _images_of(self, cases: list[str]) -> dict[str, Path]:
        return {case: Path(self.preprocessed_dataset_folder, case) for case in cases}


@contextmanager
def _format_of_unlabelled_cases() -> Iterator[None]:
    """Spares nnU-Net to infer the format of labelled cases from their files, where there are none."""
    infer = nnunet.infer_dataset_class
    nnunet.infer_dataset_class = lambda folder: nnUNetDatasetBlosc2
    try:
        yield
    finally:
        nnunet.infer_dataset_class = infer
