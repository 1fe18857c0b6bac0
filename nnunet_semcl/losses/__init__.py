"""Losses in pure torch: they import nothing else of this package."""

from nnunet_semcl.losses.bidirectional_consistency import BidirectionalConsistencyLoss
from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.losses.memory_contrast import MemoryContrastLoss
from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.losses.supcon import SupConLoss

__all__ = [
    "BidirectionalConsistencyLoss",
    "DenseContrastiveLoss",
    "MarginalLoss",
    "MemoryContrastLoss",
    "PlaceContrastLoss",
    "SupConLoss",
]
