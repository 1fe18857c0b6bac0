"""SemCLTrainer at lengths that a CPU can show."""

from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainerBenchmark(SemCLTrainer):
    """1750 steps."""

    num_epochs = 7
    num_val_iterations_per_epoch = 10
    seed = 0


class SemCLTrainerBenchmarkShort(SemCLTrainerBenchmark):
    """1000 steps, for 3D."""

    num_epochs = 4


class SemCLTrainerBenchmarkLong(SemCLTrainerBenchmark, nnUNetTrainerAdam):
    """2250 steps, nnU-Net's by AdamW: 13 organs want more of nnU-Net's SGD."""

    num_epochs = 9
