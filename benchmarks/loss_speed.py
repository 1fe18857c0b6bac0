"""Time and memory of the contrastive losses and of what they are measured against, on any device.

    python benchmarks/loss_speed.py -device cuda [-n 256 4096 65536]

Prints a JSON object a line: median milliseconds of forward and backward, their range, and the MiB that they add at
their peak (CUDA only; on the CPU benchmarks/supcon_loss.py measures memory). Plain: the formula as it stands in the
losses' documentation, with all N x N similarities at once.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.losses.supcon import SupConLoss

TEMPERATURE, RADIUS, CLASSES, IMAGES = 0.3, 10.0, 14, 4
Loss = Callable[..., Tensor]


def plain_supcon(embeddings: Tensor, labels: Tensor) -> Tensor:
    z = F.normalize(embeddings)
    similarity = (z @ z.T / TEMPERATURE).fill_diagonal_(-math.inf)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels[None]).fill_diagonal_(False)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def plain_dense(query: Tensor, key: Tensor, image: Tensor, position: Tensor) -> Tensor:
    similarity = F.normalize(query) @ F.normalize(key).T / TEMPERATURE
    near = (torch.cdist(position, position) <= RADIUS) & (image[:, None] == image[None])
    similarity = similarity.masked_fill(near.fill_diagonal_(False), -math.inf)
    return F.cross_entropy(similarity, torch.arange(len(query), device=query.device))


def peer_supcon() -> Loss:
    from pytorch_metric_learning.losses import SupConLoss as PeerLoss

    return PeerLoss(TEMPERATURE)


SIDES: dict[str, Callable[[], Loss]] = {
    "SupConLoss": lambda: SupConLoss(TEMPERATURE),
    "plain SupCon": lambda: plain_supcon,
    "pytorch-metric-learning SupCon": peer_supcon,
    "DenseContrastiveLoss": lambda: DenseContrastiveLoss(TEMPERATURE, RADIUS),
    "plain dense": lambda: plain_dense,
}


def measure(side: str, n: int, d: int, device: torch.device, repeats: int = 7) -> dict[str, float | str]:
    """Median milliseconds of forward and backward, their range, MiB added at their peak (CUDA only), and the loss."""
    inputs = _inputs(side, n, d, device)
    try:
        loss = SIDES[side]()
        for _ in range(2):
            value = loss(*inputs)
            torch.autograd.grad(value, inputs[0])
        _wait(device)
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            torch.autograd.grad(loss(*inputs), inputs[0])
            _wait(device)
            times.append(1000 * (time.perf_counter() - started))
        memory = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    except (torch.OutOfMemoryError, ImportError) as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
    figures = {"ms": statistics.median(times), "ms_spread": max(times) - min(times), "mib": memory / 2**20}
    return {**figures, "loss": value.item()}


def _inputs(side: str, n: int, d: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator).to(device).requires_grad_()
    if "upCon" in side:
        return embeddings, torch.randint(CLASSES, (n,), generator=generator).to(device)
    key = torch.randn(n, d, generator=generator).to(device)
    image = (torch.arange(n) * IMAGES // n).to(device)
    return embeddings, key, image, (200 * torch.rand(n, 3, generator=generator)).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-n", nargs="+", type=int, default=[256, 512, 1024, 4096, 12288])
    parser.add_argument("--dim", type=int, default=128, help="length of an embedding")
    args = parser.parse_args()
    for n in args.n:
        for side in SIDES:
            figures = measure(side, n, args.dim, torch.device(args.device))
            print(json.dumps({"n": n, "side": side, **figures}), flush=True)


if __name__ == "__main__":
    main()
