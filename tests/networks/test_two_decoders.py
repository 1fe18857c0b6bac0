"""Two decoders on one encoder: the planned one unchanged, the other one different."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_semcl.networks.two_decoders import TwoDecoders


def network(
    kind: type[PlainConvUNet | ResidualEncoderUNet] = PlainConvUNet, axes: int = 2
) -> PlainConvUNet | ResidualEncoderUNet:
    torch.manual_seed(0)
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if axes == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    strides = [[1] * axes, [2] * axes, [1] + [2] * (axes - 1)]  # the last one is anisotropic
    depth = "n_blocks_per_stage" if kind is ResidualEncoderUNet else "n_conv_per_stage"
    return kind(
        input_channels=1, n_stages=3, features_per_stage=[4, 6, 8], conv_op=conv, kernel_sizes=3, strides=strides,
        num_classes=3, n_conv_per_stage_decoder=1, conv_bias=True, norm_op=norm, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True, **{depth: 1},
    )  # fmt: skip


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_the_first_output_is_the_planned_networks_and_the_second_has_its_shapes(
    kind: type[PlainConvUNet | ResidualEncoderUNet], axes: int
) -> None:
    planned = network(kind, axes)
    image = torch.randn(2, 1, *[16] * axes)
    expected = planned(image)
    first, second = TwoDecoders(planned)(image)
    assert all(torch.equal(a, b) for a, b in zip(first, expected, strict=True))
    assert [a.shape for a in second] == [a.shape for a in expected]
    assert not any(torch.allclose(a, b) for a, b in zip(first, second, strict=True))


def test_the_planned_network_keeps_its_keys_and_the_encoder_is_shared() -> None:
    planned = network()
    before = {key: value.clone() for key, value in planned.state_dict().items()}
    both = TwoDecoders(planned)
    assert all(torch.equal(planned.state_dict()[key], value) for key, value in before.items())
    second = both.second.state_dict()
    assert not any("encoder" in key for key in second)
    assert len(list(both.parameters())) == len(list(planned.parameters())) + len(list(both.second.parameters()))
    _, output = both(torch.randn(1, 1, 16, 16))
    output[0].sum().backward()
    assert all(p.grad is not None for p in planned.encoder.parameters())
    assert all(p.grad is None for p in planned.decoder.stages.parameters())


def test_no_transposed_convolution_and_random_features_in_training() -> None:
    both = TwoDecoders(network())
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in both.second.modules())
    image = torch.randn(1, 1, 16, 16)
    a, b = both(image), both(image)
    assert torch.equal(a[0][0], b[0][0])
    assert not torch.equal(a[1][0], b[1][0])
    both.eval()
    assert torch.equal(both(image)[1][0], both(image)[1][0])
