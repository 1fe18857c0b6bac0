"""Trainers of benchmarks/kills.py: every phase, some seconds in all, and the same bits each time."""

from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase

phase.HELD_OUT_BATCHES = 1


class SemCLSeconds(SemCLTrainer):
    """3 epochs of coarse training, 6 of pretraining, 4 of training, so that a kill meets each of them."""

    num_epochs = 13
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        return {"coarse": 3 / 13, "pretraining": 6 / 13}, "a kill meets each phase"


class IDEALSeconds(IDEALTrainer):
    """2 epochs of pretraining, 12 of training: of its two phases training holds more."""

    num_epochs = 14
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0

    def epoch_shares(self, settings: IDEALSettings) -> tuple[dict[str, float], str]:
        return {"pretraining": 2 / 14}, "a kill meets each phase"
