"""Each pretraining task on a small network, and a batch for it that can be split between processes."""

from __future__ import annotations

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from torch import nn

from nnunet_semcl.distributed import world_size
from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.methods.ideal.task import IDEALTask
from nnunet_semcl.methods.semcl.memory_contrast import MemoryContrast
from nnunet_semcl.methods.semcl.object_contrast import ObjectContrast
from nnunet_semcl.methods.semcl.place_contrast import PlaceContrast
from nnunet_semcl.methods.semcl.task import ContrastOfVoxels, SemCLTask
from nnunet_semcl.methods.semcl.voxel_contrast import VoxelContrast
from nnunet_semcl.pretraining.task import PretrainingTask

PATCHES, SIZE = 4, 16
TASKS = ("memory", "place", "object", "voxel", "object+voxel", "voxel+place", "segmentation", "ideal")


class FinestLevel(DC_and_CE_loss):
    """nnU-Net's loss on the finest level only."""

    def forward(self, output: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        return super().forward(output[0], target)


def build_task(name: str) -> PretrainingTask:
    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    if name == "ideal":
        return IDEALTask(network, 0, 8, 0.2, 1.0, 0.9)
    voxels: dict[str, ContrastOfVoxels] = {}
    if "voxel" in name or name == "segmentation":
        voxels["voxel"] = VoxelContrast(4, 16, 0.3)
    if name == "memory":
        voxels["memory"] = MemoryContrast(4, torch.arange(3), 16, 0.3, 8, 0.75, False)
    if "place" in name:
        voxels["place"] = PlaceContrast(8, 16, level=1)
    objects = ObjectContrast(network.encoder, 16, 0.3) if "object" in name else None
    loss = None
    if name == "segmentation":
        dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": world_size() > 1}
        loss = MarginalLoss(FinestLevel(dice, {}), None)
    return SemCLTask(network, voxels, objects, 0.3, 1.0, loss)


def whole_batch() -> dict[str, torch.Tensor]:
    rows = torch.Generator().manual_seed(1)
    voxel = torch.randperm(PATCHES * SIZE**2, generator=rows)[:90].sort().values
    place = torch.randint(0, SIZE, (30, 2), generator=rows)
    patches = torch.randn(PATCHES, 1, SIZE, SIZE, generator=rows)
    return {
        "image": torch.randn(8, 1, SIZE, SIZE, generator=rows),
        "mask": (torch.rand(8, 1, SIZE, SIZE, generator=rows) > 0.5).float(),
        "object": torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]),
        "query": torch.arange(8) // 2,
        "patch": patches,
        "target": torch.randint(0, 3, (PATCHES, 1, SIZE, SIZE), generator=rows),
        "voxel": voxel,
        "voxel_class": voxel % 3,
        "at_boundary": voxel % 2 == 0,
        "place": torch.rand(90, 3, generator=rows),
        "missing": torch.zeros(PATCHES, 3, dtype=torch.bool),
        "query_view": patches,
        "key_view": patches.flip(2),
        "location_image": torch.arange(30) * PATCHES // 30,
        "location": place,
    }


def part_of_batch(name: str, views: slice, patches: slice) -> dict[str, torch.Tensor]:
    """A task's part of the batch: views and patches, and the voxels and locations in these."""
    batch = whole_batch()
    first, last = patches.start * SIZE**2, patches.stop * SIZE**2
    voxels = (batch["voxel"] >= first) & (batch["voxel"] < last)
    locations = (batch["location_image"] >= patches.start) & (batch["location_image"] < patches.stop)
    place = batch["location"][locations]
    if name != "ideal":
        return {
            **{key: batch[key][views] for key in ("image", "mask", "object", "query")},
            **{key: batch[key][patches] for key in ("patch", "target", "missing")},
            "voxel": batch["voxel"][voxels] - first,
            "voxel_class": batch["voxel_class"][voxels],
            "at_boundary": batch["at_boundary"][voxels],
            "placed": batch["voxel"][voxels] - first,
            "place": batch["place"][voxels],
        }
    return {
        "query": batch["query_view"][patches],
        "key": batch["key_view"][patches],
        "image": batch["location_image"][locations] - patches.start,
        "voxel": place,
        "place": torch.stack((SIZE - 1 - place[:, 0], place[:, 1]), dim=1).float(),
        "position": place.float(),
        "redrawn": torch.tensor(0.0),
        "passed_over": torch.tensor(0.0),
    }
