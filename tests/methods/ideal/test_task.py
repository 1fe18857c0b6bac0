from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.functional import linear

from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.methods.ideal.task import IDEALTask, accuracy, features_at


def network() -> PlainConvUNet:
    return PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def batch(n: int = 30) -> dict[str, torch.Tensor]:
    voxel = torch.randint(0, 16, (n, 2))
    query = torch.randn(3, 1, 16, 16)
    return {
        "query": query,
        "key": query.flip(2) + 0.01 * torch.randn(3, 1, 16, 16),
        "image": torch.arange(n) * 3 // n,
        "voxel": voxel,
        "place": torch.stack((15 - voxel[:, 0], voxel[:, 1]), dim=1).float(),
        "position": voxel.float(),
        "redrawn": torch.tensor(2.0),
        "passed_over": torch.tensor(1.0),
    }


def task(level: int = 0, momentum: float = 0.9, planned: nn.Module | None = None) -> IDEALTask:
    torch.manual_seed(0)
    return IDEALTask(planned or network(), level, 8, 0.2, 1.0, momentum)


@pytest.mark.parametrize("level", [0, 1])
def test_gradients_reach_only_the_network_and_it_is_restored(level: int) -> None:
    planned = network()
    before = {k: v.clone() for k, v in planned.state_dict().items()}
    t = task(level, planned=planned)
    t(batch())["loss"].backward()
    assert t.head.weight.grad.any()
    assert all(p.grad is None for part in (t.key_network, t.key_head) for p in part.parameters())
    reached = {name.split(".")[0] for name, p in planned.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "decoder"}
    t.remove_additions()
    assert all(torch.equal(v, before[k]) for k, v in planned.state_dict().items())
    assert len(planned(batch()["query"])) == 2
    assert not planned.decoder.stages[-1 - level]._forward_hooks


def test_the_loss_uses_the_features_at_the_locations() -> None:
    t, b = task().eval(), batch()
    loss = t(b)["loss"]
    rows = b["image"], *b["voxel"].T
    t.network(b["query"]), t.key_network(b["key"])
    query = t.features.take().permute(0, 2, 3, 1)[rows]
    key = t.key_features.take().permute(0, 2, 3, 1)[(b["image"], *b["place"].long().T)]
    query, key = (linear(x, t.head.weight, t.head.bias) for x in (query, key))
    torch.testing.assert_close(loss, DenseContrastiveLoss(0.2, 1.0)(query, key, b["image"], b["position"]))


def test_the_key_network_follows_only_in_training() -> None:
    t, b = task(momentum=0.75), batch()
    with torch.no_grad():
        for p in (*t.network.parameters(), *t.head.parameters()):
            p.add_(1)
    key = [p.clone() for part in (t.key_network, t.key_head) for p in part.parameters()]
    t.eval()(b)
    now = [p for part in (t.key_network, t.key_head) for p in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(key, now, strict=True))
    t.train()(b)
    for before, after in zip(key, now, strict=True):
        torch.testing.assert_close(after, before + 0.25)


def test_features_are_read_at_the_right_places_at_any_resolution() -> None:
    x, y = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    view = torch.stack((x, y)).repeat(3, 1, 1, 1)
    image = torch.arange(3).repeat_interleave(7)
    places = 4 + 8 * torch.rand(21, 2)
    for coarse in (view, nn.functional.avg_pool2d(view, 2), nn.functional.avg_pool2d(view, 4)):
        torch.testing.assert_close(features_at(coarse, view, image, places), places, atol=1e-4, rtol=0)


def test_accuracy() -> None:
    query = torch.eye(4)
    assert accuracy(query, 3 * query) == 1
    assert accuracy(query, query.roll(1, 0)) == 0


def test_a_few_steps_find_the_locations() -> None:
    t, b = task(momentum=0.9), batch()
    optimizer = torch.optim.AdamW([p for p in t.parameters() if p.requires_grad], 1e-2)
    before = t(b)
    for _ in range(60):
        optimizer.zero_grad()
        t(b)["loss"].backward()
        optimizer.step()
    after = t(b)
    assert after["loss"] < before["loss"] - 0.3
    assert after["accuracy"] > before["accuracy"]
    assert (after["redrawn"], after["passed_over"]) == (2, 1)
