from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_semcl.losses.marginal import MarginalLoss
from nnunet_semcl.methods.semcl.memory_contrast import MemoryContrast
from nnunet_semcl.methods.semcl.object_contrast import ObjectContrast, mask_second_views
from nnunet_semcl.methods.semcl.place_contrast import PlaceContrast
from nnunet_semcl.methods.semcl.separation import separation
from nnunet_semcl.methods.semcl.task import ContrastOfVoxels, SemCLTask
from nnunet_semcl.methods.semcl.voxel_contrast import VoxelContrast
from nnunet_semcl.networks.projection_head import attention_pool


class FinestLevel(nn.CrossEntropyLoss):
    """Stands in for nnU-Net's loss; uses only the finest level."""

    def forward(self, output: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        return super().forward(output[0], target[:, 0])


VOXELS = torch.arange(0, 4 * 16 * 16, 7)


def network() -> PlainConvUNet:
    return PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip


def semcl_task(
    planned: PlainConvUNet,
    objective: str,
    temperature: float = 0.1,
    loss: nn.Module | None = None,
    use_attention: bool = True,
) -> SemCLTask:
    voxels: dict[str, ContrastOfVoxels] = {}
    if "voxel" in objective:
        voxels["voxel"] = VoxelContrast(4, 16, temperature)
    if "memory" in objective:
        voxels["memory"] = MemoryContrast(4, torch.arange(3), 16, temperature, 8, 0.75, with_regions=False)
    if "place" in objective:
        voxels["place"] = PlaceContrast(8, 16, level=1)
    objects = None
    if "object" in objective:
        objects = ObjectContrast(planned.encoder, 16, temperature, use_attention)
    return SemCLTask(planned, voxels, objects, 0.3, 0.7, MarginalLoss(loss, None) if loss else None)


def batch() -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(8, 1, 16, 16),
        "mask": (torch.rand(8, 1, 16, 16) > 0.5).float(),
        "object": torch.tensor([0] * 4 + [1] * 4),
        "query": torch.arange(8) // 2,
        "patch": torch.randn(4, 1, 16, 16),
        "target": torch.randint(0, 3, (4, 1, 16, 16)),
        "voxel": VOXELS,
        "voxel_class": VOXELS // 512,
        "at_boundary": VOXELS % 2 == 0,
        "placed": VOXELS,
        "place": torch.rand(len(VOXELS), 3),
        "missing": torch.zeros(4, 3, dtype=torch.bool),
    }


@pytest.mark.parametrize("objective", ["memory", "place", "object", "voxel", "object+voxel", "voxel+place"])
@pytest.mark.parametrize("use_attention", [True, False])
@pytest.mark.parametrize("segmentation_loss", [None, FinestLevel()])
def test_gradients_reach_what_is_pretrained_and_the_network_is_restored(
    objective: str, use_attention: bool, segmentation_loss: nn.Module | None
) -> None:
    planned = network()
    before = {k: v.clone() for k, v in planned.state_dict().items()}
    task = semcl_task(planned, objective, 0.1, segmentation_loss, use_attention)
    with torch.no_grad():
        task(batch())  # fills the memory
    task(batch())["loss"].backward()
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)
    stem = [p for name, p in task.named_parameters() if "side_stem" in name]
    assert bool(stem) == (use_attention and "object" in objective)
    assert all(p.grad.any() for p in stem)
    reached = {name.split(".")[0] for name, p in planned.named_parameters() if p.grad is not None and p.grad.any()}
    alone = objective == "object" and segmentation_loss is None
    assert reached == ({"encoder"} if alone else {"encoder", "decoder"})
    last_layer = planned.decoder.seg_layers[-1].weight.grad
    assert (last_layer is not None and bool(last_layer.any())) == (segmentation_loss is not None)
    task.remove_additions()
    assert list(planned.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in planned.state_dict().items())
    assert len(planned(batch()["image"])) == 2  # deep supervision as it was


def test_only_the_first_view_of_a_query_shows_its_mask() -> None:
    task = semcl_task(network(), "object").eval()
    b = batch()
    seen: list[torch.Tensor] = []
    task.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task(b)
    assert len(seen) == 1
    assert torch.equal(seen[0][0::2, 1:], b["mask"][0::2])
    assert not seen[0][1::2, 1:].any()
    assert torch.equal(seen[0][:, :1], b["image"])


@pytest.mark.parametrize("objective", ["memory", "place", "voxel", "object+voxel", "voxel+place"])
def test_patches_show_no_mask(objective: str) -> None:
    task = semcl_task(network(), objective).eval()
    b = batch()
    seen: list[torch.Tensor] = []
    task.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task(b)
    assert torch.equal(seen[-1][:, :1], b["patch"])
    assert not seen[-1][:, 1:].any()  # the empty mask, if the encoder takes one


def test_the_losses_equal_those_of_an_independent_library() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    task = semcl_task(network(), "object+voxel", 0.2).eval()
    b = batch()
    features = task.encoder(torch.cat((b["image"], mask_second_views(b["mask"])), dim=1))
    figures = task(b)
    expected = losses.SupConLoss(0.2)(task.objects.head(attention_pool(features, b["mask"])), b["object"])
    torch.testing.assert_close(figures["object_loss"], expected)
    without_mask = torch.cat((b["patch"], torch.zeros_like(b["patch"])), dim=1)
    planned = task.decoder
    logits = planned(task.encoder(without_mask))[0]
    decoded = task.features["voxel"].take()  # (4, 4, 16, 16)
    with pytest.raises(RuntimeError, match="no forward pass"):  # nothing lies in memory until the next step
        task.features["voxel"].take()
    torch.testing.assert_close(planned.seg_layers[-1](decoded), logits)
    embeddings = task.voxels["voxel"].head(decoded, b["voxel"])
    by_hand = torch.nn.Sequential.forward(task.voxels["voxel"].head, decoded.permute(0, 2, 3, 1).reshape(-1, 4)[VOXELS])
    torch.testing.assert_close(embeddings, by_hand)
    torch.testing.assert_close(figures["voxel_loss"], losses.SupConLoss(0.2)(embeddings, b["voxel_class"]))
    torch.testing.assert_close(figures["loss"], 0.3 * (figures["object_loss"] + figures["voxel_loss"]))


def test_a_few_steps_separate_the_objects() -> None:
    torch.manual_seed(0)
    task = semcl_task(network(), "object")
    b = batch()
    b["image"] *= 1 + 2 * b["object"].view(-1, 1, 1, 1)
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    before = task.eval()(b)["separation"].item()
    task.train()
    for _ in range(100):
        optimizer.zero_grad()
        task(b)["loss"].backward()
        optimizer.step()
    assert before < 0.5 < task.eval()(b)["separation"].item()


def test_separation_ignores_pairs_of_views_of_one_query() -> None:
    embeddings = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [-1, 0], [-1, 0]])
    objects = torch.tensor([0, 0, 0, 0, 1, 1])
    queries = torch.tensor([0, 0, 1, 1, 2, 3])
    # same object, other query: 8 ordered pairs at 0 and 2 at 1; different objects: 8 at -1 and 8 at 0
    assert separation(embeddings, objects, queries).item() == pytest.approx(2 / 10 + 8 / 16)


def test_the_segmentation_loss_is_added_to_the_contrast() -> None:
    b, planned = batch(), network()
    alone = semcl_task(planned, "voxel")
    both = semcl_task(planned, "voxel", loss=FinestLevel())
    both.voxels = alone.voxels
    figures = both(b)
    segmentation = torch.nn.functional.cross_entropy(planned(b["patch"])[0], b["target"][:, 0])
    torch.testing.assert_close(figures["segmentation_loss"], segmentation)
    torch.testing.assert_close(figures["loss"], segmentation + alone(b)["loss"])


def test_contrasts_of_classes_and_places_add_up() -> None:
    b, planned = batch(), network()
    task = semcl_task(planned, "voxel+place")
    figures = task(b)
    torch.testing.assert_close(figures["loss"], 0.3 * figures["voxel_loss"] + 0.7 * figures["place_loss"])
    for name, weight in (("voxel", 0.3), ("place", 0.7)):
        alone = semcl_task(planned, name)
        alone.voxels[name] = task.voxels[name]
        torch.testing.assert_close(alone(b)["loss"], weight * figures[f"{name}_loss"])


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ("voxel", {"voxel_loss": 0.25}),
        ("place", {"place_loss": 0.5}),
        ("voxel+place", {"voxel_loss": 0.25, "place_loss": 0.5}),
        ("memory", {"memory_loss": 0.25}),
        ("object", {"object_loss": 0.25}),
        ("object+voxel", {"object_loss": 0.25, "voxel_loss": 0.25}),
    ],
)
def test_settings_choose_the_contrasts_and_their_weights(objective: str, weights: dict[str, float]) -> None:
    settings = {"objective": objective, "contrast_weight": 0.25, "place_weight": 0.5, "embedding_dim": 8}
    settings |= {"temperature": 0.2, "memory": 4, "sure": 0.7, "segmentation": False, "use_attention": True}
    labels = LabelManager({"background": 0, "a": 1, "b": 2}, None)
    task = SemCLTask.from_settings(network(), settings, labels, None)
    task(batch())  # fills the memory
    figures = task(batch())
    assert {name for name in figures if name.endswith("_loss")} == set(weights)
    assert all(figures[name] > 0 for name in weights)
    torch.testing.assert_close(figures["loss"], sum(weight * figures[name] for name, weight in weights.items()))


def test_separation_equals_the_mean_over_all_pairs() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
    queries = torch.arange(40) // 2
    objects = queries % 3
    similarity = embeddings @ embeddings.T
    same, other = objects[:, None] == objects, queries[:, None] != queries
    expected = similarity[same & other].mean() - similarity[~same].mean()
    torch.testing.assert_close(separation(embeddings, objects, queries), expected)
    each = similarity[same & ~torch.eye(40, dtype=torch.bool)].mean() - similarity[~same].mean()
    torch.testing.assert_close(separation(embeddings, objects), each)
    alone = separation(embeddings[:2], objects[:2], queries[:2])
    assert alone.isnan()
