from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.methods.semcl.coarse_task import CoarseTask
from nnunet_semcl.methods.semcl.place_contrast import TEMPERATURE, WIDTH, PlaceContrast


class AllLevels(nn.CrossEntropyLoss):
    """Stands in for nnU-Net's loss under deep supervision."""

    def forward(self, output: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
        pairs = zip(output, target, strict=True)
        return torch.stack([super(AllLevels, self).forward(o, t[:, 0]) for o, t in pairs]).sum()


def network(axes: int = 2) -> PlainConvUNet:
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    strides = ([1] * axes, [2] * axes, [2] * (axes - 1) + [1], [2] * axes)
    return PlainConvUNet(1, 4, (4, 6, 8, 10), convolution, 3, strides, 1, 3, 1, conv_bias=True, deep_supervision=True)


def batch(labelled: list[bool]) -> dict[str, torch.Tensor]:
    placed = torch.randperm(len(labelled) * 256)[:100]
    return {
        "image": torch.randn(len(labelled), 1, 16, 16),
        "target": [torch.randint(0, 3, (len(labelled), 1, *size)) for size in ((16, 16), (8, 8), (4, 8))],
        "missing": torch.zeros(len(labelled), 3, dtype=torch.bool),
        "labelled": torch.tensor(labelled),
        "placed": placed,
        "place": torch.rand(100, 3),
    }


def coarse_task(planned: PlainConvUNet, weight: float = 0.3) -> CoarseTask:
    return CoarseTask(planned, MarginalLoss(AllLevels(), None), PlaceContrast(planned.decoder, 16), weight)


def test_the_loss_is_the_segmentation_of_labelled_patches_and_the_contrast_of_all() -> None:
    planned = network()
    task, of = coarse_task(planned), batch([True, True, False, False])
    figures = task(of)
    output = planned(of["image"])
    labelled = AllLevels()([level[:2] for level in output], [level[:2] for level in of["target"]])
    torch.testing.assert_close(figures["segmentation_loss"], labelled)

    seen: list[torch.Tensor] = []
    hook = planned.decoder.stages[-3].register_forward_hook(lambda *args: seen.append(args[2]))
    planned(of["image"])
    hook.remove()
    patch, row, column = of["placed"] // 256, of["placed"] % 256 // 16 // 4, of["placed"] % 16 // 2
    embeddings = normalize(nn.Sequential.forward(task.places.head, seen[0][patch, :, row, column]))
    contrast = PlaceContrastLoss(TEMPERATURE, WIDTH)(embeddings, of["place"], patch)
    torch.testing.assert_close(figures["place_loss"], contrast)
    torch.testing.assert_close(figures["loss"], labelled + 0.3 * contrast)


def test_what_an_unlabelled_patch_has_for_a_target_changes_nothing() -> None:
    task, of = coarse_task(network()), batch([True, False, True, False])
    other = {**of, "target": [level.clone() for level in of["target"]]}
    for level in other["target"]:
        level[1::2] = 2 - level[1::2]
    assert task(of)["loss"] == task(other)["loss"]


def test_gradients_reach_the_network_and_the_head_and_the_network_is_restored() -> None:
    planned = network()
    keys, hooks = set(planned.state_dict()), [len(stage._forward_hooks) for stage in planned.decoder.stages]
    task = coarse_task(planned)
    task(batch([True, False, True, False]))["loss"].backward()
    assert all(p.grad is not None for p in task.parameters())
    task.remove_additions()
    assert set(planned.state_dict()) == keys
    assert [len(stage._forward_hooks) for stage in planned.decoder.stages] == hooks


@pytest.mark.parametrize("axes", [2, 3])
def test_a_few_steps_bring_near_places_together(axes: int) -> None:
    """Images of one brightness ramp with noise: a voxel's brightness tells its place."""
    torch.manual_seed(0)
    planned = network(axes)
    places = PlaceContrast(planned.decoder, 16)
    optimizer = torch.optim.Adam([*planned.parameters(), *places.parameters()], 1e-2)
    size = (16,) * axes
    ramp = torch.linspace(-1, 1, 16).view(-1, *[1] * (axes - 1)).expand(size)
    for _ in range(30):
        image = ramp + 0.05 * torch.randn(4, 1, *size)
        planned(image)
        placed = torch.randperm(image[:, 0].numel())[:200]
        row = torch.unravel_index(placed, (4, *size))[1]
        batch = {"image": image, "placed": placed, "place": row[:, None] / 16}
        optimizer.zero_grad()
        places(batch).backward()
        optimizer.step()
    planned(image)
    trained = places(batch)
    planned(image)
    assert trained < places({**batch, "place": batch["place"].flip(0)}) - 0.3
