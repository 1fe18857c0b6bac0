"""How much of the N x N similarities of N embeddings is in memory at once."""

from torch import Tensor

# Measured: on a CPU, fewer rows are slower and more are not faster; a GPU wants few, large tiles.
ROWS_ON_CPU = 256
SIMILARITIES_ON_GPU = 2**26  # 256 MiB
# A GPU waits for each operation to be started, and a gradient by tiles computes all of them again: few embeddings want
# few operations (H100, 512: 1.2 ms, not 2.1).
FEW = 2048


def tile_rows(embeddings: Tensor) -> int:
    """Returns the number of rows of similarities to compute at once: (N, D) -> 1 to N."""
    n = max(1, len(embeddings))
    rows = ROWS_ON_CPU if embeddings.device.type == "cpu" else SIMILARITIES_ON_GPU // n
    return min(n, max(1, rows))


def are_few(embeddings: Tensor) -> bool:
    """Whether all similarities fit into memory easily: (N, D)."""
    return len(embeddings) <= FEW
