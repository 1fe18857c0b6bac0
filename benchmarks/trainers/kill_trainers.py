"""Trainers of benchmarks/kills.py: every phase, some seconds in all, and the same bits each time."""

from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase

phase.HELD_OUT_BATCHES = 1


class SemCLSeconds(SemCLTrainer):
    num_coarse_epochs, num_pretraining_epochs, num_epochs = 3, 6, 4
    num_pretraining_iterations_per_epoch = num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0


class IDEALSeconds(IDEALTrainer):
    num_pretraining_epochs, num_epochs = 2, 12  # of its two phases training holds more
    num_pretraining_iterations_per_epoch = num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0
