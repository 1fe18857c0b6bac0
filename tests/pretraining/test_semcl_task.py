import pytest
import torch
from torch import nn

from nnunet_semcl.pretraining.semcl_task import SemCLTask, separation


class Encoder(nn.Module):
    output_channels = (4, 8)

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        first = self.stages[0](x)
        return [first, self.stages[1](first)]


def batch() -> dict[str, torch.Tensor]:
    mask = (torch.rand(8, 1, 16, 16) > 0.5).float()
    return {
        "image": torch.randn(8, 1, 16, 16),
        "mask": mask,
        "object": torch.tensor([0] * 4 + [1] * 4),
        "query": torch.arange(8) // 2,
    }


@pytest.mark.parametrize("use_attention", (True, False))
def test_gradients_reach_everything_and_the_network_comes_back(use_attention):
    encoder = Encoder()
    keys = list(encoder.state_dict())
    task = SemCLTask(encoder, 16, 0.1, use_attention)
    figures = task(batch())
    figures["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    assert any("side_stem" in name for name, _ in task.named_parameters()) == use_attention
    task.remove_additions()
    assert list(encoder.state_dict()) == keys


def test_embeddings_have_length_one_and_depend_on_the_mask():
    task = SemCLTask(Encoder(), 16, 0.1)
    one, other = batch(), batch()
    embeddings = task.embed(one["image"], one["mask"])
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(8))
    assert not torch.allclose(embeddings, task.embed(one["image"], other["mask"]))
    blind = SemCLTask(Encoder(), 16, 0.1, use_attention=False)
    torch.testing.assert_close(blind.embed(one["image"], one["mask"]), blind.embed(one["image"], other["mask"]))


def test_the_loss_is_the_supervised_contrast_of_the_embeddings():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    task = SemCLTask(Encoder(), 16, 0.2)
    b = batch()
    expected = losses.SupConLoss(0.2)(task.embed(b["image"], b["mask"]), b["object"])
    torch.testing.assert_close(task(b)["loss"], expected)


def test_a_few_steps_pull_objects_apart():
    torch.manual_seed(0)
    task = SemCLTask(Encoder(), 16, 0.1)
    b = batch()
    b["image"] += b["object"].view(-1, 1, 1, 1) * 0.3
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    before = task(b)["separation"].item()
    for _ in range(100):
        optimizer.zero_grad()
        task(b)["loss"].backward()
        optimizer.step()
    assert before < 0.5 < task(b)["separation"].item()


def test_separation_leaves_out_views_of_one_query():
    embeddings = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [-1, 0], [-1, 0]])
    objects = torch.tensor([0, 0, 0, 0, 1, 1])
    queries = torch.tensor([0, 0, 1, 1, 2, 3])
    # same object, other query: 8 ordered pairs at 0 and 2 at 1; different objects: 8 at -1 and 8 at 0
    assert separation(embeddings, objects, queries).item() == pytest.approx(2 / 10 + 8 / 16)
