"""What the tests' nnUNet_extTrainer points at: trainers that are over in seconds."""

from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer

phase.HELD_OUT_BATCHES = 1  # sixteen after each epoch take longer than all of these trainings


class nnUNetTrainerShort(ClassAttributeTrainer):
    num_epochs = 1
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1


class SemCLTrainerShort(SemCLTrainer, nnUNetTrainerShort):
    num_coarse_epochs, num_pretraining_epochs = 1, 2
    num_pretraining_iterations_per_epoch = 3
    seed = 7


class SemCLTrainerManyEpochs(SemCLTrainerShort):
    """Long enough in pretraining to be killed there."""

    num_pretraining_epochs = 8
    num_pretraining_iterations_per_epoch = 4


class IDEALTrainerShort(IDEALTrainer, nnUNetTrainerShort):
    num_pretraining_epochs, num_epochs = 2, 2
    num_pretraining_iterations_per_epoch = 3
    seed = 7
