"""SemCLTrainer at lengths that a CPU can show."""

from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainerBenchmark(SemCLTrainer):
    """1000 pretraining and 750 training steps."""

    num_pretraining_epochs, num_epochs = 4, 3
    num_val_iterations_per_epoch = 10
    seed = 0


class SemCLTrainerBenchmarkShort(SemCLTrainerBenchmark):
    """500 pretraining and 500 training steps, for 3D."""

    num_pretraining_epochs, num_epochs = 2, 2


class SemCLTrainerBenchmarkLong(SemCLTrainerBenchmark, nnUNetTrainerAdam):
    """1250 pretraining and 1000 training steps, these by AdamW: 13 organs want more of nnU-Net's SGD."""

    num_pretraining_epochs, num_epochs = 5, 4
