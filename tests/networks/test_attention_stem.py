"""The attention stem: equal to a joint convolution, and removed without a trace."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_semcl.networks.attention_stem import AttentionConv, add_attention_stem, remove_attention_stem


def network(dim: int = 2) -> PlainConvUNet:
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dim == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    return PlainConvUNet(2, 3, (4, 8, 8), conv, 3, (1, 2, 2), 1, 3, 1, conv_bias=True, norm_op=norm,
                         norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(1, 3),
    dim=st.sampled_from((2, 3)),
    stride=st.sampled_from((1, 2)),
    kernel=st.sampled_from((1, 3)),
    seed=st.integers(0, 99),
)
def test_it_equals_the_convolution_of_the_concatenated_input(
    channels: int, dim: int, stride: int, kernel: int, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d if dim == 2 else nn.Conv3d
    planned = conv(channels, 5, kernel, stride, kernel // 2)
    attention = AttentionConv(planned)
    joint = conv(channels + 1, 5, kernel, stride, kernel // 2)
    assert joint.bias is not None
    assert planned.bias is not None
    with torch.no_grad():
        joint.weight.copy_(torch.cat((planned.weight, attention.side_stem.weight), dim=1))
        joint.bias.copy_(planned.bias)
    x = torch.randn(2, channels + 1, *[6] * dim)
    torch.testing.assert_close(attention(x), joint(x))


@pytest.mark.parametrize("dim", [2, 3])
def test_adding_and_removing_restores_the_planned_network(dim: int) -> None:
    net = network(dim)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = torch.randn(1, 2, *[8] * dim)
    expected = net(x)
    stem = add_attention_stem(net.encoder)
    assert any("side_stem" in k for k in net.state_dict())
    net.encoder(torch.cat((x, torch.ones(1, 1, *[8] * dim)), dim=1))[-1].sum().backward()
    assert stem.side_stem.weight.grad is not None
    assert stem.side_stem.weight.grad.abs().sum() > 0
    remove_attention_stem(net.encoder)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    torch.testing.assert_close(net(x), expected)


def test_changes_of_the_planned_convolution_remain() -> None:
    net = network()
    planned = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    add_attention_stem(net.encoder)
    with torch.no_grad():
        planned.weight.add_(1)
    remove_attention_stem(net.encoder)
    assert next(m for m in net.modules() if isinstance(m, nn.Conv2d)) is planned


def test_a_second_stem_and_a_network_without_convolution_are_refused() -> None:
    net = network()
    add_attention_stem(net.encoder)
    with pytest.raises(ValueError, match="already"):
        add_attention_stem(net.encoder)
    with pytest.raises(ValueError, match="no convolution"):
        add_attention_stem(nn.Linear(2, 2))
