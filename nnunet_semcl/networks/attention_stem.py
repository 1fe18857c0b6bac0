"""The attention mask as an extra input channel that is removed after pretraining.

A convolution over an image x and a mask m, concatenated, equals conv_x(x) + conv_m(m). So the mask gets its own
convolution, parallel to the first one of the planned network; removing it restores the planned network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


class AttentionConv(nn.Module):
    """The planned first convolution plus the side stem, a bias-free convolution of the attention mask.

    Args:
        planned: the network's first convolution, over C channels.

    Shape: (B, C + 1, X, Y[, Z]), image channels first and the mask last -> output of the planned convolution.

    >>> from nnunet_semcl.networks import AttentionConv
    >>> conv = AttentionConv(nn.Conv2d(3, 8, kernel_size=3, padding=1))
    >>> image, mask = torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    >>> conv(torch.cat((image, mask), dim=1)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, planned: _ConvNd) -> None:
        super().__init__()
        self.planned = planned
        convolution: Callable[..., _ConvNd] = type(planned)
        self.side_stem = convolution(
            1,
            planned.out_channels,
            planned.kernel_size,
            planned.stride,
            planned.padding,
            planned.dilation,
            bias=False,
            padding_mode=planned.padding_mode,
        ).to(planned.weight.device)
        # The scale of the mask's weights in a single convolution over all C + 1 channels.
        fan_in = (planned.in_channels + 1) * math.prod(planned.kernel_size)
        nn.init.normal_(self.side_stem.weight, std=math.sqrt(2 / fan_in))

    def forward(self, image_and_mask: torch.Tensor) -> torch.Tensor:
        image, mask = image_and_mask[:, :-1], image_and_mask[:, -1:]
        return self.planned(image) + self.side_stem(mask)


def add_attention_stem(network: nn.Module) -> AttentionConv:
    """Replaces the network's first convolution by an AttentionConv, in place.

    Returns:
        The AttentionConv.

    Raises:
        ValueError: the network has no convolution, or already has an attention stem.
    """
    for module in network.modules():
        if isinstance(module, AttentionConv):
            raise ValueError("The network already has an attention stem: call remove_attention_stem first.")
        if isinstance(module, _ConvNd):
            attention_conv = AttentionConv(module)
            _replace(network, module, attention_conv)
            return attention_conv
    raise ValueError(f"{type(network).__name__} has no convolution to which an attention mask could be added.")


def remove_attention_stem(network: nn.Module) -> None:
    """Puts the planned convolution back, in place. A network without an attention stem stays as it is."""
    for module in list(network.modules()):
        if isinstance(module, AttentionConv):
            _replace(network, module, module.planned)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    # nnU-Net's blocks register a convolution twice, as `conv` and in `all_modules`: replace both.
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is old and parent is not new:
                parent._modules[name] = new
