"""The attention mask as an extra input channel that leaves no trace once pretraining is over.

Concatenating a mask m to an image x before a convolution equals conv_x(x) + conv_m(m). So the mask gets a
convolution of its own beside the planned network's first one, and dropping it leaves that network as planned.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


class AttentionConv(nn.Module):
    """The planned first convolution plus a bias-free one for the attention mask, its side stem.

    Shape: input (B, C + 1, X, Y[, Z]), image channels first and the mask last; output as the planned convolution's.
    """

    def __init__(self, planned: _ConvNd) -> None:
        super().__init__()
        self.planned = planned
        self.side_stem = type(planned)(
            1,
            planned.out_channels,
            planned.kernel_size,
            planned.stride,
            planned.padding,
            planned.dilation,
            bias=False,
            padding_mode=planned.padding_mode,
        ).to(planned.weight.device)
        # The scale that the mask's weights would have had inside one convolution over all C + 1 channels.
        fan_in = (planned.in_channels + 1) * math.prod(planned.kernel_size)
        nn.init.normal_(self.side_stem.weight, std=math.sqrt(2 / fan_in))

    def forward(self, image_and_mask: torch.Tensor) -> torch.Tensor:
        image, mask = image_and_mask[:, :-1], image_and_mask[:, -1:]
        return self.planned(image) + self.side_stem(mask)


def add_attention_stem(network: nn.Module) -> AttentionConv:
    """Puts an AttentionConv in the place of the network's first convolution, in place.

    Raises:
        ValueError: the network has no convolution, or has an attention stem already.
    """
    for module in network.modules():
        if isinstance(module, AttentionConv):
            raise ValueError("The network has an attention stem already: call remove_attention_stem first.")
        if isinstance(module, _ConvNd):
            attention_conv = AttentionConv(module)
            _replace(network, module, attention_conv)
            return attention_conv
    raise ValueError(f"{type(network).__name__} has no convolution that an attention mask could be added to.")


def remove_attention_stem(network: nn.Module) -> None:
    """Puts the planned convolution back, in place. A network without an attention stem stays as it is."""
    for module in list(network.modules()):
        if isinstance(module, AttentionConv):
            _replace(network, module, module.planned)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    # nnU-Net's conv blocks register a convolution twice (`conv` and inside `all_modules`): replace every mention.
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is old and parent is not new:
                parent._modules[name] = new
