"""The tiled loss against the plain formula and pytorch-metric-learning, and its properties."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss as PeerLoss
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_semcl.losses import supcon, tiles
from nnunet_semcl.losses.supcon import SupConLoss

INTEGERS = [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.uint64, torch.int64]


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Iterator[None]:
    """Several tiles, the last one incomplete, at the sizes used here; one thread is fastest on such small tiles."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "ROWS_ON_CPU", 7)
        yield
    torch.set_num_threads(threads)


def plain_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Khosla et al. 2020, eq. 2, with all pairs in memory."""
    z = F.normalize(embeddings)
    itself = torch.eye(len(z), dtype=torch.bool)
    similarity = z @ z.T / temperature  # (N, N)
    log_p = similarity - similarity.masked_fill(itself, -math.inf).logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    anchors = positive.any(dim=1)
    return -((log_p * positive).sum(dim=1)[anchors] / positive.sum(dim=1)[anchors]).mean()


def value_and_gradient(loss: Callable[[Tensor], Tensor], embeddings: Tensor) -> tuple[Tensor, Tensor]:
    embeddings = embeddings.detach().requires_grad_()
    value = loss(embeddings)
    (gradient,) = torch.autograd.grad(value, embeddings)
    return value.detach(), gradient


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def random_batch(seed: int, n: int, d: int, classes: int) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d) in float64, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(classes, (n,), generator=generator)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """Embeddings, labels with at least one pair of positives, temperature."""
    seed = draw(st.integers(0, 2**32))
    n = draw(st.integers(2, 30))
    embeddings, labels = random_batch(seed, n, draw(st.integers(2, 6)), draw(st.integers(1, n)))
    labels[0] = labels[-1]
    return embeddings, labels, draw(st.sampled_from([0.01, 0.07, 0.1, 1.0, 10.0]))


# --- the formula ---


@pytest.fixture(params=["tiles", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute it; a CPU by itself takes tiles."""
    if request.param == "plain":
        monkeypatch.setattr(supcon, "_plain_is_faster", lambda embeddings: True)
    return request.param


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("tile_rows", [1, 7, 50, 53, 64])
def test_value_and_gradient_equal_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, tile_rows: int, temperature: float
) -> None:
    monkeypatch.setattr(tiles, "ROWS_ON_CPU", tile_rows)
    embeddings, labels = random_batch(seed=0, n=53, d=8, classes=20)
    loss = SupConLoss(temperature)
    value, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    expected, expected_gradient = value_and_gradient(lambda x: plain_loss(x, labels, temperature), embeddings)
    assert value.dtype == gradient.dtype == torch.float64
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert relative_difference(gradient, expected_gradient) < 1e-11


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_float32_is_close_to_the_formula_in_float64(path: str, temperature: float) -> None:
    embeddings, labels = random_batch(seed=1, n=200, d=32, classes=9)
    loss = SupConLoss(temperature)
    value, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings.float())
    exact, exact_gradient = value_and_gradient(
        lambda x: plain_loss(x, labels, temperature), embeddings.float().double()
    )
    assert value.dtype == gradient.dtype == torch.float32
    assert relative_difference(value, exact) < 1e-6
    assert relative_difference(gradient, exact_gradient) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_agrees_with_pytorch_metric_learning(path: str, dtype: torch.dtype, tolerance: float) -> None:
    # Its reducer leaves out losses of exactly zero, thus samples without positives, as SupConLoss does.
    embeddings, labels = random_batch(seed=2, n=201, d=16, classes=120)
    assert (labels.bincount() == 1).any()
    ours, peer = SupConLoss(0.1), PeerLoss(0.1)
    value, gradient = value_and_gradient(lambda x: ours(x, labels), embeddings.to(dtype))
    expected, expected_gradient = value_and_gradient(lambda x: peer(x, labels), embeddings.to(dtype))
    assert relative_difference(value, expected) < tolerance
    assert relative_difference(gradient, expected_gradient) < tolerance


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 3, 3, 1], [5] * 9, [0, 1, 2, 3, 4, 5, 6, 7, 0]])
def test_gradcheck(path: str, labels: list[int]) -> None:
    embeddings, _ = random_batch(seed=3, n=9, d=3, classes=1)
    loss = SupConLoss(0.3)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor(labels)), embeddings.requires_grad_())


def test_a_sample_without_positives_is_a_negative_but_no_anchor(path: str) -> None:
    # Worked by hand with t = 1: orthogonal anchors, and a third sample parallel to the first one.
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    value, gradient = value_and_gradient(lambda x: SupConLoss(1.0)(x, torch.tensor([4, 4, 9])), embeddings)
    first, second = math.log(1 + math.e), math.log(1 + 1)
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-14)
    assert gradient[2].norm() > 0.1  # it is pushed away


# --- properties ---


@given(batches(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_order_of_samples_does_not_matter(batch: tuple[Tensor, Tensor, float], random: Random) -> None:
    embeddings, labels, temperature = batch
    order = torch.tensor(random.sample(range(len(labels)), len(labels)))
    loss = SupConLoss(temperature)
    value, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    moved, moved_gradient = value_and_gradient(lambda x: loss(x, labels[order]), embeddings[order])
    torch.testing.assert_close(moved, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved_gradient, gradient[order], rtol=1e-8, atol=1e-8)


@given(batches(), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=30, max_size=30, unique=True))
@settings(max_examples=25, deadline=None)
def test_names_of_classes_do_not_matter(batch: tuple[Tensor, Tensor, float], names: list[int]) -> None:
    embeddings, labels, temperature = batch
    loss = SupConLoss(temperature)
    torch.testing.assert_close(
        loss(embeddings, torch.tensor(names)[labels]), loss(embeddings, labels), rtol=1e-10, atol=1e-10
    )


@given(batches(), st.lists(st.floats(1e-3, 1e3), min_size=30, max_size=30))
@settings(max_examples=25, deadline=None)
def test_scale_of_each_embedding_does_not_matter(batch: tuple[Tensor, Tensor, float], scales: list[float]) -> None:
    embeddings, labels, temperature = batch
    scale = torch.tensor(scales[: len(labels)], dtype=torch.float64)[:, None]
    loss = SupConLoss(temperature)
    value, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    torch.testing.assert_close(loss(embeddings * scale, labels), value, rtol=1e-9, atol=1e-9)
    # So the gradient is orthogonal to the embedding.
    along = F.cosine_similarity(gradient, embeddings, dim=1) * (gradient.norm(dim=1) > 1e-6)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-6)


@given(batches())
@settings(max_examples=25, deadline=None)
def test_rotation_does_not_matter(batch: tuple[Tensor, Tensor, float]) -> None:
    embeddings, labels, temperature = batch
    rotation, _ = torch.linalg.qr(random_batch(7, embeddings.shape[1], embeddings.shape[1], 1)[0])
    loss = SupConLoss(temperature)
    torch.testing.assert_close(loss(embeddings @ rotation, labels), loss(embeddings, labels), rtol=1e-9, atol=1e-9)


@given(batches())
@settings(max_examples=25, deadline=None)
def test_is_not_negative_and_rises_with_one_more_negative(batch: tuple[Tensor, Tensor, float]) -> None:
    embeddings, labels, temperature = batch
    loss = SupConLoss(temperature)
    value = loss(embeddings, labels)
    # A copy of the first anchor, so that it counts at any temperature.
    more = loss(torch.cat([embeddings, embeddings[:1]]), torch.cat([labels, labels.max()[None] + 1]))
    assert value >= -1e-10
    assert more > value


# --- extremes ---


def test_identical_embeddings_in_float32_at_low_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "ROWS_ON_CPU", 256)
    # Sums of many equal values lose digits if added sequentially.
    n = 3000
    embeddings = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).repeat(n, 1)
    value, gradient = value_and_gradient(lambda x: SupConLoss(0.01)(x, torch.zeros(n, dtype=torch.int64)), embeddings)
    assert value.item() == pytest.approx(math.log(n - 1), rel=1e-5)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]], ids=["with", "against"])
def test_opposite_embeddings_in_float32_at_low_temperature(path: str, labels: list[int]) -> None:
    embeddings = torch.tensor([[3.0, 4.0]] * 3 + [[-3.0, -4.0]] * 3)
    exact = plain_loss(embeddings.double(), torch.tensor(labels), 0.01)
    value, gradient = value_and_gradient(lambda x: SupConLoss(0.01)(x, torch.tensor(labels)), embeddings)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 15])
def test_without_anchors_a_differentiable_zero(path: str, n: int, dtype: torch.dtype) -> None:
    embeddings = torch.randn(n, 4).to(dtype)
    value, gradient = value_and_gradient(lambda x: SupConLoss(0.1)(x, torch.arange(n)), embeddings)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(embeddings))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(path: str, dtype: torch.dtype) -> None:
    embeddings, labels = random_batch(seed=4, n=40, d=8, classes=5)
    embeddings = embeddings.to(dtype)
    loss = SupConLoss(0.05)
    value, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    expected, expected_gradient = value_and_gradient(lambda x: loss(x, labels), embeddings.float())
    assert value.dtype == torch.float32
    assert value == expected
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_loss_in_float32(path: str, dtype: torch.dtype) -> None:
    embeddings, labels = random_batch(seed=5, n=40, d=8, classes=5)
    embeddings = embeddings.to(dtype)
    loss = SupConLoss(0.05)
    expected, expected_gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(x, labels)

    value, gradient = value_and_gradient(under_autocast, embeddings)
    assert value.dtype == torch.float32
    assert value == expected
    assert torch.equal(gradient, expected_gradient)


# --- cost ---


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns, also in backward."""

    elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("classes", [3, 200])
def test_no_tensor_outgrows_a_tile(classes: int) -> None:
    n, d = 400, 6
    embeddings, labels = random_batch(seed=6, n=n, d=d, classes=classes)
    with LargestTensor() as plain:
        value_and_gradient(lambda x: plain_loss(x, labels, 0.1), embeddings)
    with LargestTensor() as tiled:
        value_and_gradient(lambda x: SupConLoss(0.1)(x, labels), embeddings)
    assert plain.elements == n * n
    assert tiled.elements == n * tiles.ROWS_ON_CPU


def test_no_tile_is_kept_for_backward() -> None:
    n, d = 400, 6
    embeddings, labels = random_batch(seed=6, n=n, d=d, classes=10)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        SupConLoss(0.1)(embeddings.requires_grad_(), labels)
    assert max(kept) == n * d


# --- use ---


def test_gradient_scales_with_the_gradient_of_the_loss() -> None:
    embeddings, labels = random_batch(seed=8, n=20, d=4, classes=3)
    loss = SupConLoss()
    _, gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    _, scaled = value_and_gradient(lambda x: 1024 * loss(x, labels), embeddings)
    assert relative_difference(scaled, 1024 * gradient) < 1e-14


def test_the_value_is_the_same_without_gradients() -> None:
    embeddings, labels = random_batch(seed=9, n=20, d=4, classes=3)
    expected = SupConLoss()(embeddings.clone().requires_grad_(), labels)
    assert not SupConLoss()(embeddings, labels).requires_grad
    with torch.no_grad():
        value = SupConLoss()(embeddings.requires_grad_(), labels)
    assert not value.requires_grad
    assert value == expected


def test_is_bit_identical_when_repeated_and_keeps_its_inputs() -> None:
    embeddings, labels = random_batch(seed=10, n=100, d=8, classes=6)
    before = embeddings.clone(), labels.clone()
    loss = SupConLoss()
    first, first_gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    second, second_gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    assert first == second
    assert torch.equal(first_gradient, second_gradient)
    assert torch.equal(embeddings, before[0])
    assert torch.equal(labels, before[1])


def test_gradient_of_the_gradient_is_refused() -> None:
    embeddings, labels = random_batch(seed=11, n=10, d=4, classes=3)
    embeddings.requires_grad_()
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(factor * SupConLoss()(embeddings, labels), embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_runs_uncompiled_inside_a_compiled_module() -> None:
    compiled_operations: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        compiled_operations.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4, dtype=torch.float64)
            self.loss = SupConLoss(0.1)

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return 2 * self.loss(self.linear(x), labels)

    model = Model()
    compiled = torch.compile(model, backend=backend)
    for n in (20, 33):  # the number of samples may change
        x, labels = random_batch(seed=n, n=n, d=8, classes=4)
        expected, expected_gradient = value_and_gradient(partial(model, labels=labels), x)
        value, gradient = value_and_gradient(partial(compiled, labels=labels), x)
        assert relative_difference(value, expected) < 1e-12
        assert relative_difference(gradient, expected_gradient) < 1e-12
    assert any("linear" in operation for operation in compiled_operations)
    assert not any("normalize" in operation for operation in compiled_operations)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    embeddings, labels = random_batch(seed=12, n=100, d=8, classes=30)
    loss = SupConLoss()
    expected, expected_gradient = value_and_gradient(lambda x: loss(x, labels), embeddings)
    value, gradient = value_and_gradient(lambda x: loss(x, labels.cuda()), embeddings.cuda())
    assert value.is_cuda
    assert relative_difference(value.cpu(), expected) < 1e-10
    assert relative_difference(gradient.cpu(), expected_gradient) < 1e-10


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_any_integer_type(path: str, dtype: torch.dtype) -> None:
    embeddings, labels = random_batch(seed=13, n=20, d=4, classes=6)
    assert SupConLoss()(embeddings, labels.to(dtype)) == SupConLoss()(embeddings, labels)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"embeddings must be \(N, D\), not \(4,\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64), r"embeddings must be \(N, D\), not \(2, 3, 4\)"),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64), r"labels must be \(4,\).*, not \(5,\)"),
        (torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64), r"labels must be \(4,\).*, not \(4, 1\)"),
        (torch.zeros(4, 3), torch.zeros(4), r"labels must be integers, not torch\.float32"),
    ],
)
def test_wrong_inputs_are_refused(embeddings: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupConLoss()(embeddings, labels)


@pytest.mark.parametrize("temperature", [0, -0.1, math.inf, math.nan])
def test_wrong_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above zero and finite"):
        SupConLoss(temperature)


def test_the_gradient_is_bit_identical_when_repeated() -> None:
    """Also on busy cores, where the order of the threads varies."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (1024,), generator=generator)
    embeddings = torch.randn(1024, 256, generator=generator, requires_grad=True)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(torch.get_num_threads())]
    try:
        gradients = [torch.autograd.grad(SupConLoss(0.3)(embeddings, labels), embeddings)[0] for _ in range(40)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert all(torch.equal(gradients[0], g) for g in gradients[1:])
