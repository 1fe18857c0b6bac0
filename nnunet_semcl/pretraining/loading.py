"""Batches that worker processes make ahead, in order; a batch that does not come is not waited for in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from nnunet_semcl.distributed import rank, world_size

LOOK_EVERY = 10  # seconds: whether a worker has died is only seen when a wait for a batch ends
PATIENCE = 600  # seconds without a batch, after which the log says so; after as many again the run ends


def load_batches(
    batches: Dataset, steps: Iterable[int], workers: int, device: torch.device, log: Callable[[str], None]
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields a batch for each step; each process of a training gets batches of its own.

    Args:
        batches: item i is batch number i.
        steps: their numbers; they may be without end.
        workers: number of processes that make batches; with 0 this process does it.
        device: where the batches will go.
        log: writes a line to nnU-Net's log file.

    Raises:
        RuntimeError: a worker died, or no batch came in twice PATIENCE.
    """
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=(step * world_size() + rank() for step in steps),
            num_workers=workers,
            pin_memory=device.type == "cuda",
            timeout=LOOK_EVERY if workers else 0,
            generator=torch.Generator(),  # the global one would depend on how often a run was continued
        )
    )
    waited = 0
    while True:
        try:
            batch = next(loader)
        except StopIteration:
            return
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            waited += LOOK_EVERY
            if waited >= 2 * PATIENCE:
                raise RuntimeError(
                    f"no batch came in {waited} s: the workers hang. Look at `nnunet-semcl doctor`, set a smaller "
                    "nnUNet_n_proc_DA, and continue with --c."
                ) from error
            if waited == PATIENCE:
                log(f"WARNING: no batch for {waited} s. Do the workers lack shared memory? See `nnunet-semcl doctor`.")
            continue
        waited = 0
        yield batch
