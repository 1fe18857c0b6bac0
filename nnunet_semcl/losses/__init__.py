"""Losses in pure torch: they import nothing else of this package."""

from nnunet_semcl.losses.bidirectional_consistency import BidirectionalConsistencyLoss
from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.losses.supcon import SupConLoss

__all__ = ["BidirectionalConsistencyLoss", "DenseContrastiveLoss", "SupConLoss"]
