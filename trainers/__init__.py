"""The folder for nnUNet_extTrainer: one file per trainer, with import lines only."""
