"""The tests' nnUNet_extTrainer: trainers that finish within seconds."""

import forked_pools  # noqa: F401  # changes nnU-Net's

from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer

phase.HELD_OUT_BATCHES = 1  # with sixteen, validation would take longer than training


class nnUNetTrainerShort(ClassAttributeTrainer):
    """nnU-Net's own training, one epoch of three steps."""

    num_epochs = 1
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1


class nnUNetTrainerDying(nnUNetTrainerShort):
    """Dies when its training starts."""

    def on_train_start(self) -> None:
        raise RuntimeError("as if memory had run out")


class SemCLTrainerShort(SemCLTrainer, nnUNetTrainerShort):
    """Epochs of three steps: 1 of coarse training if cases are unlabelled, 3 or 2 of pretraining, 1 of training."""

    num_epochs = 4
    seed = 7

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        coarse = 0.25 if self.unlabelled_images() else 0.0
        return {"coarse": coarse, "pretraining": 0.75 - coarse}, "a test"


class SemCLTrainerManyEpochs(SemCLTrainerShort):
    """Pretraining that is long enough to be killed."""

    num_epochs, num_iterations_per_epoch = 9, 4

    def epoch_shares(self, settings: SemCLSettings) -> tuple[dict[str, float], str]:
        return {"coarse": 0.0, "pretraining": 0.9}, "a test"


class IDEALTrainerShort(IDEALTrainer, nnUNetTrainerShort):
    """Two epochs of three steps in each phase."""

    num_epochs = 4
    seed = 7

    def epoch_shares(self, settings: IDEALSettings) -> tuple[dict[str, float], str]:
        return {"pretraining": 0.5}, "a test"
