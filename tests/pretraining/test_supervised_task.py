import pytest
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from torch import nn

from nnunet_semcl.data.attention import UNKNOWN
from nnunet_semcl.pretraining.supervised_task import SupervisedTask

DICE = {"batch_dice": True, "do_bg": False, "smooth": 1e-5, "ddp": False}


def network(heads: int) -> PlainConvUNet:
    return PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, heads, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def batch() -> dict[str, torch.Tensor]:
    segmentation = torch.randint(UNKNOWN, 3, (4, 1, 16, 16), dtype=torch.int16)
    return {"image": torch.randn(4, 1, 16, 16) + segmentation, "segmentation": segmentation}


def test_it_learns_and_gives_the_network_back():
    torch.manual_seed(0)
    planned = network(3)
    task = SupervisedTask(planned, DC_and_CE_loss(DICE, {}), None, None)
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    b = batch()
    first = task(b)["loss"].item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = task(b)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < first - 0.3
    task.remove_additions()
    assert len(planned(b["image"])) == 2


def test_what_is_unknown_is_background_or_ignored():
    segmentation = batch()["segmentation"]
    assert torch.equal(SupervisedTask(network(3), nn.Module(), None, None).target(segmentation), segmentation.clamp(0))
    ignoring = SupervisedTask(network(3), nn.Module(), None, 3).target(segmentation)
    assert torch.equal(ignoring == 3, segmentation == UNKNOWN)
    assert torch.equal(ignoring[segmentation >= 0], segmentation[segmentation >= 0])


@pytest.mark.parametrize("ignore_label", (None, 3))
def test_regions_are_those_of_nnunets_own_transform(ignore_label):
    regions = [(1, 2), 2]
    loss = DC_and_BCE_loss({}, DICE, use_ignore_label=ignore_label is not None)
    task = SupervisedTask(network(2), loss, regions, ignore_label)
    b = batch()
    labels = b["segmentation"].clone()
    labels[labels == UNKNOWN] = ignore_label or 0
    transform = ConvertSegmentationToRegionsTransform(regions + ([3] if ignore_label else []), channel_in_seg=0)
    expected = torch.stack([transform(segmentation=case)["segmentation"] for case in labels])
    torch.testing.assert_close(task.target(b["segmentation"]), expected.float())
    assert task(b)["loss"].isfinite()
