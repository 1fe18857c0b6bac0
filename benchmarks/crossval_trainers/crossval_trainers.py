"""Trainers of 3000 steps in all, for `nnunet-semcl crossval` on a CPU: export nnUNet_extTrainer=this folder."""

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer


class nnUNetTrainer_3000steps(ClassAttributeTrainer):
    num_epochs = 12
    num_val_iterations_per_epoch = 5


class SemCLTrainer_3000steps(SemCLTrainer):
    num_epochs = 12
    num_val_iterations_per_epoch = 5
    seed = 0
