"""Outputs with and without deep supervision."""

import torch

from nnunet_semcl.losses.deep_supervision import levels_of


def test_a_list_of_levels_with_and_without_deep_supervision() -> None:
    fine, coarse = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)
    assert levels_of((fine, coarse)) == levels_of([fine, coarse]) == [fine, coarse]
    assert levels_of(fine)[0] is fine
    assert len(levels_of(fine)) == 1
