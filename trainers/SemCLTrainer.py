from nnunet_semcl.training.semcl_trainer import SemCLTrainer
from nnunet_semcl.training.semcl_variants import (
    SemCLTrainer_5epochs,
    SemCLTrainer_100epochs,
    SemCLTrainer_250epochs,
    SemCLTrainer_fewLabels,
    SemCLTrainer_noAttention,
    SemCLTrainer_NoMirroring,
    SemCLTrainer_noUnlabelled,
)

__all__ = [
    "SemCLTrainer",
    "SemCLTrainer_5epochs",
    "SemCLTrainer_100epochs",
    "SemCLTrainer_250epochs",
    "SemCLTrainer_NoMirroring",
    "SemCLTrainer_fewLabels",
    "SemCLTrainer_noAttention",
    "SemCLTrainer_noUnlabelled",
]
