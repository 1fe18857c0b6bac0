"""Trainers of benchmarks/kills.py: every phase, some seconds in all, and the same bits each time."""

from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining import phase

phase.HELD_OUT_BATCHES = 1


class SemCLSeconds(SemCLTrainer):
    num_epochs = 13
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0


class IDEALSeconds(IDEALTrainer):
    num_epochs = 14  # of its two phases training holds more
    num_iterations_per_epoch = 3
    num_val_iterations_per_epoch = 1
    seed = 0
