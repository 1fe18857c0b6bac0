"""Contrastive pretraining inside nnU-Net v2."""
