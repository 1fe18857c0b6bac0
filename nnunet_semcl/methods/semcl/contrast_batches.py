"""What SemCL contrasts in one step: queries of objects, sampled voxels of training patches, or both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from nnunet_semcl.methods.semcl.query_batches import QueryBatches
from nnunet_semcl.methods.semcl.voxel_batches import VoxelBatches


class ContrastBatches(Dataset):
    """Batch number i holds the entries of each part's batch number i."""

    def __init__(self, parts: Sequence[QueryBatches | VoxelBatches]) -> None:
        self.parts = parts

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {name: entry for part in self.parts for name, entry in part[number].items()}
