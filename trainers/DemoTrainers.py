from nnunet_semcl.training.demo_trainers import SemCLTrainerDemo, nnUNetTrainerDemo

__all__ = ["SemCLTrainerDemo", "nnUNetTrainerDemo"]
