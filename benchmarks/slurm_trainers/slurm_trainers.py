"""Trainers of benchmarks/slurm_time_out.py, of about a minute on a CPU."""

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer


class nnUNetTrainerMinute(ClassAttributeTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 20, 10, 1
    save_every = 1


class SemCLTrainerMinute(SemCLTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 20, 10, 1
