"""What nnUNet_extTrainer points at: one file per trainer, import lines only."""
