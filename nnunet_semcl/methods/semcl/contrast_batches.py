"""SemCL's batches for one step: queries of objects, training patches with sampled voxels, or both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from nnunet_semcl.methods.semcl.query_batches import QueryBatches
from nnunet_semcl.methods.semcl.voxel_batches import VoxelBatches


class ContrastBatches(Dataset):
    """Batch number i has the entries of batch number i of every part."""

    def __init__(self, parts: Sequence[QueryBatches | VoxelBatches]) -> None:
        self.parts = parts

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        return {name: entry for part in self.parts for name, entry in part[number].items()}
