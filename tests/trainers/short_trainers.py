"""The tests' nnUNet_extTrainer: trainers that finish within seconds."""

from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer

phase.HELD_OUT_BATCHES = 1  # with sixteen, validation would take longer than training


class nnUNetTrainerShort(ClassAttributeTrainer):
    """nnU-Net's own training, one epoch of three steps."""

    num_epochs = 1
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1


class SemCLTrainerShort(SemCLTrainer, nnUNetTrainerShort):
    """SemCL with epochs of three steps."""

    num_coarse_epochs, num_pretraining_epochs = 1, 2
    num_pretraining_iterations_per_epoch = 3
    seed = 7


class SemCLTrainerManyEpochs(SemCLTrainerShort):
    """Pretraining that is long enough to be killed."""

    num_pretraining_epochs = 8
    num_pretraining_iterations_per_epoch = 4


class IDEALTrainerShort(IDEALTrainer, nnUNetTrainerShort):
    """IDEAL with epochs of three steps."""

    num_pretraining_epochs, num_epochs = 2, 2
    num_pretraining_iterations_per_epoch = 3
    seed = 7
