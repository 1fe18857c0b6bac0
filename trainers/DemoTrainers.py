from nnunet_semcl.commands.demo_trainers import SemCLTrainerDemo, nnUNetTrainerDemo

__all__ = ["SemCLTrainerDemo", "nnUNetTrainerDemo"]
