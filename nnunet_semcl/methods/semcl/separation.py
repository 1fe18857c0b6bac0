"""How far embeddings of one class are apart from those of others, for the log."""

from __future__ import annotations

import torch


@torch.compiler.disable
def separation(embeddings: torch.Tensor, objects: torch.Tensor, queries: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the mean cosine similarity of same-object pairs minus that of different-object pairs, from -2 to 2.

    The two views of one query do not count as a pair: they are similar whatever the network does.

    Shape:
        embeddings: (N, D), of length one.
        objects: (N,).
        queries: (N,), each with one object; None if each embedding is of a query of its own.
        Returns: a scalar, NaN if there are no pairs of either kind.
    """
    same_object, object_pairs = _similarity_within(embeddings, objects)
    if queries is None:
        queries = torch.arange(len(embeddings), device=embeddings.device)
    same_query, query_pairs = _similarity_within(embeddings, queries)
    everything, pairs = _similarity_within(embeddings, torch.zeros_like(objects))
    similarity = (same_object - same_query) / (object_pairs - query_pairs)
    return similarity - (everything - same_object) / (pairs - object_pairs)


def _similarity_within(embeddings: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns sum and number of the similarities of all ordered pairs within groups.

    The sum over a group's pairs is the squared length of the sum of its embeddings.
    """
    _, group, size = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(size), embeddings.shape[1]).index_add(0, group, embeddings)
    return sums.square().sum(), size.square().sum()
