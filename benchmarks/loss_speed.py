"""Time and memory of the contrastive losses, of their plain formulas and of other libraries, on any device.

    python benchmarks/loss_speed.py [-device cuda] [-n 256 4096 65536] [--json]

Prints a table, with --json an object a line: median milliseconds of forward and backward, all sides taking turns in one
process, their range, and the MiB that they add at their peak (on the CPU in another process). Plain: the formula as it
stands in the losses' documentation, with all N x N similarities at once. lightly has no SupCon, but its NT-Xent is
SupCon of classes with two members, so that row has other labels. What would not fit into memory is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.losses.supcon import SupConLoss

TEMPERATURE, RADIUS, CLASSES, IMAGES = 0.3, 10.0, 14, 4
OURS = ("SupConLoss", "DenseContrastiveLoss")
COPIES = 8  # of the N x N similarities that a plain formula holds, with its gradient
MOST_REPEATS, SECONDS = 15, 20  # of each side and N
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


def peer_ntxent() -> Loss:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(TEMPERATURE)
    return lambda embeddings, labels: loss(*embeddings.chunk(2))


SIDES: dict[str, Callable[[], Loss]] = {
    "SupConLoss": lambda: SupConLoss(TEMPERATURE),
    "plain SupCon": lambda: plain_supcon,
    "pytorch-metric-learning SupCon": peer_supcon,
    "SupConLoss, pairs": lambda: SupConLoss(TEMPERATURE),
    "lightly NT-Xent, pairs": peer_ntxent,
    "DenseContrastiveLoss": lambda: DenseContrastiveLoss(TEMPERATURE, RADIUS),
    "plain dense": lambda: plain_dense,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-n", nargs="+", type=int, default=[256, 512, 1024, 4096, 12288, 65536])
    parser.add_argument("--dim", type=int, default=128, help="length of an embedding")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.json:
        print("| N | loss | ms (range) | MiB | value |\n|---|---|---|---|---|")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # of processes that start now: what is freed leaves their memory
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for n in args.n:
            for row in measured(n, args.dim, torch.device(args.device), pool):
                print(json.dumps(row) if args.json else line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['n']} | {row['side']} | {row['failed']} | | |"
    return (
        f"| {row['n']} | {row['side']} | {row['ms']:.1f} ({row['ms_low']:.1f} to {row['ms_high']:.1f}) "
        f"| {row['mib']:.1f} | {row['loss']:.6f} |"
    )


def measured(n: int, d: int, device: torch.device, pool: Executor) -> Iterator[dict[str, Any]]:
    """A row for each side."""
    rows: dict[str, dict[str, Any]] = {side: {"n": n, "side": side} for side in SIDES}
    running: dict[str, Loss] = {}
    for side, row in rows.items():
        try:
            if side not in OURS and COPIES * 4 * n * n > _free(device):
                raise MemoryError(f"about {COPIES * 4 * n * n / 2**30:.0f} GiB are needed")
            on_gpu = device.type == "cuda"
            row["mib"] = _on_gpu(side, n, d) if on_gpu else pool.submit(_on_cpu, side, n, d).result()
            running[side] = SIDES[side]()
        except (torch.OutOfMemoryError, MemoryError, ImportError) as error:
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    inputs = {side: _inputs(side, n, d, device) for side in running}
    times: dict[str, list[float]] = {side: [] for side in running}
    turn, begun = 0, time.perf_counter()
    while turn < 2 or (turn < MOST_REPEATS and time.perf_counter() - begun < SECONDS * len(running)):
        for side, loss in running.items():
            started = time.perf_counter()
            rows[side]["loss"] = _step(loss, inputs[side], device)
            times[side].append(1000 * (time.perf_counter() - started))
        turn += 1
    for side in running:
        seen = times[side][1:]  # the first turn warms up
        rows[side] |= {"ms": statistics.median(seen), "ms_low": min(seen), "ms_high": max(seen)}
    yield from rows.values()


def _step(loss: Loss, inputs: tuple[Tensor, ...], device: torch.device) -> float:
    value = loss(*inputs)
    torch.autograd.grad(value, inputs[0])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return value.item()


def _inputs(side: str, n: int, d: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator).to(device).requires_grad_()
    if "pairs" in side:
        return embeddings, torch.arange(n // 2).repeat(2).to(device)
    if "SupCon" in side:
        return embeddings, torch.randint(CLASSES, (n,), generator=generator).to(device)
    key = torch.randn(n, d, generator=generator).to(device)
    image = (torch.arange(n) * IMAGES // n).to(device)
    return embeddings, key, image, (200 * torch.rand(n, 3, generator=generator)).to(device)


def _on_gpu(side: str, n: int, d: int) -> float:
    """MiB that a forward and backward add at their peak."""
    device = torch.device("cuda")
    loss, inputs = SIDES[side](), _inputs(side, n, d, device)
    _step(loss, inputs, device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    _step(loss, inputs, device)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _on_cpu(side: str, n: int, d: int) -> float:
    """The same on the CPU; to be called in a process that gives back what it frees."""
    torch.set_num_threads(1)
    loss, device = SIDES[side](), torch.device("cpu")
    _step(loss, _inputs(side, 256, 16, device), device)  # loads what libraries load when they are first called
    inputs = _inputs(side, n, d, device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _status("VmRSS")
    _step(loss, inputs, device)
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """A figure of this process in kB."""
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
