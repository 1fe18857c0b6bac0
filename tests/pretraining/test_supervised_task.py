from __future__ import annotations

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.pretraining.supervised_task import SupervisedTask


def test_it_learns_with_nnunets_loss_and_deep_supervision() -> None:
    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    keys = list(network.state_dict())
    loss = DC_and_CE_loss({"batch_dice": True, "do_bg": False, "smooth": 1e-5, "ddp": False}, {})
    task = SupervisedTask(network, MarginalLoss(DeepSupervisionWrapper(loss, (2 / 3, 1 / 3)), None))
    labels = torch.randint(0, 3, (4, 1, 16, 16), dtype=torch.int16)
    batch = {
        "image": torch.randn(4, 1, 16, 16) + labels,
        "target": [labels, labels[:, :, ::2, ::2]],
        "missing": torch.zeros(4, 3, dtype=torch.bool),
    }
    output = network(batch["image"])
    expected = 2 / 3 * loss(output[0], batch["target"][0]) + 1 / 3 * loss(output[1], batch["target"][1])
    torch.testing.assert_close(task(batch)["loss"], expected)
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        optimizer.step()
    assert task(batch)["loss"].item() < expected.item() - 0.3
    task.remove_additions()
    assert list(network.state_dict()) == keys
    assert len(network(batch["image"])) == 2
