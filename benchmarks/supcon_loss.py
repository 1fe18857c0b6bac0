"""SupConLoss against pytorch-metric-learning's: time, memory and agreement on one CPU thread.

    python benchmarks/supcon_loss.py [-n 12288] [-d 128] [--repeats 3] [-o FILE]

Time is the median of forward + backward, both sides taking turns in one process. Memory is what one forward +
backward adds to the resident set at its peak, each side in a fresh process of its own, after a small warm-up has
loaded library code. Aimed at: at least 3 times faster, at most 1/15 of the memory. Linux only (reads /proc).
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytorch_metric_learning
import torch
from pytorch_metric_learning.losses import SupConLoss as PeerLoss
from torch import Tensor

from nnunet_semcl.losses.supcon import SupConLoss

TEMPERATURE = 0.1
CLASSES = 14  # BTCV: 13 organs and background
SIDES: dict[str, Callable[[], torch.nn.Module]] = {
    "ours": lambda: SupConLoss(TEMPERATURE),
    "pytorch-metric-learning": lambda: PeerLoss(TEMPERATURE),
}


def make_inputs(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d) that want a gradient, and labels (n,), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator).requires_grad_()
    return embeddings, torch.randint(CLASSES, (n,), generator=generator)


def forward_backward(side: str, embeddings: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Loss and gradient (n, d)."""
    loss = SIDES[side]()(embeddings, labels)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return loss.item(), gradient


def warm_up(side: str) -> None:
    torch.set_num_threads(1)
    forward_backward(side, *make_inputs(256, 16))


def extra_memory(side: str, n: int, d: int) -> float:
    """MiB that one forward + backward adds at its peak; to be called in a fresh process."""
    warm_up(side)
    inputs = make_inputs(n, d)
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = resident_pages * resource.getpagesize() / 2**20
    forward_backward(side, *inputs)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before


def extra_memory_in_fresh_process(side: str, n: int, d: int) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(extra_memory, side, n, d).result()


def measure_time(n: int, d: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, tuple[float, Tensor]]]:
    """Seconds of every repeat, and loss and gradient, by side."""
    inputs = make_inputs(n, d)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    results: dict[str, tuple[float, Tensor]] = {}
    for side in SIDES:
        warm_up(side)
    for _ in range(repeats):
        for side in SIDES:
            start = time.perf_counter()
            results[side] = forward_backward(side, *inputs)
            seconds[side].append(time.perf_counter() - start)
    return seconds, results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-n", type=int, default=12288, help="number of embeddings")
    parser.add_argument("-d", type=int, default=128, help="length of an embedding")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each side")
    parser.add_argument("-o", type=Path, metavar="FILE", help="also write the figures there as JSON")
    args = parser.parse_args()

    # Memory first: a child's peak begins at its parent's size, which must not hold the timed runs yet.
    memory = {side: extra_memory_in_fresh_process(side, args.n, args.d) for side in SIDES}
    seconds, results = measure_time(args.n, args.d, args.repeats)
    median = {side: statistics.median(seconds[side]) for side in SIDES}

    ours, peer = SIDES
    (our_loss, our_gradient), (peer_loss, peer_gradient) = results[ours], results[peer]
    faster = median[peer] / median[ours]
    leaner = memory[peer] / memory[ours]
    loss_difference = abs(our_loss - peer_loss) / abs(peer_loss)
    gradient_difference = ((our_gradient - peer_gradient).norm() / peer_gradient.norm()).item()

    print(f"N = {args.n}, D = {args.d}, float32, {CLASSES} classes, temperature {TEMPERATURE}, one CPU thread")
    print(f"torch {torch.__version__}, pytorch-metric-learning {pytorch_metric_learning.__version__}\n")
    print(f"{'':24}{'median s':>10}{'min s':>10}{'max s':>10}{'extra MiB':>11}{'loss':>12}")
    for side in SIDES:
        times = f"{median[side]:10.2f}{min(seconds[side]):10.2f}{max(seconds[side]):10.2f}"
        print(f"{side:24}{times}{memory[side]:11.1f}{results[side][0]:12.6f}")
    print(f"\n{faster:.1f} times faster, 1/{leaner:.1f} of the extra memory")
    print(f"relative difference: loss {loss_difference:.1e}, gradient {gradient_difference:.1e}")

    if args.o:
        figures = {
            "n": args.n,
            "d": args.d,
            "torch": torch.__version__,
            "pytorch_metric_learning": pytorch_metric_learning.__version__,
            "seconds": seconds,
            "median_seconds": median,
            "extra_memory_mib": memory,
            "times_faster": faster,
            "times_less_memory": leaner,
            "loss_relative_difference": loss_difference,
            "gradient_relative_difference": gradient_difference,
        }
        beside = args.o.with_name(args.o.name + ".part")
        beside.write_text(json.dumps(figures, indent=2) + "\n")
        os.replace(beside, args.o)


if __name__ == "__main__":
    main()
