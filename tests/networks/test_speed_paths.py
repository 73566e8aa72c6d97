"""Layers that are reordered for speed against the plain formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from simvp_climate.networks.layers import GroupNorm, PaddedConv, PixelShuffleConv
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pixel_shuffle_conv_equals_a_convolution_and_a_pixel_shuffle(memory_format):
    torch.manual_seed(0)
    fast = PixelShuffleConv(3, 2, 3, "sphere").double()
    plain = PaddedConv(3, 8, 3, "sphere").double()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    expected = F.pixel_shuffle(plain(x), 2)
    output = fast(x)
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(expected)
    fast_grads = torch.autograd.grad(output, (x, *fast.parameters()), grad)
    plain_grads = torch.autograd.grad(expected, (x, *plain.parameters()), grad)
    for fast_grad, plain_grad in zip(fast_grads, plain_grads, strict=True):
        torch.testing.assert_close(fast_grad, plain_grad)


@pytest.mark.parametrize("size", [(8, 10), (32, 40)])
def test_group_norm_in_bfloat16_is_close_to_float32(size):
    torch.manual_seed(0)
    norm, plain = GroupNorm(2, 6), nn.GroupNorm(2, 6)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(3, 6, *size).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    x_float32 = x.detach().float().requires_grad_()
    expected = plain(x_float32)
    output = norm(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=2**-8)
    grad = torch.randn_like(expected).bfloat16()
    grads = torch.autograd.grad(output, (x, norm.weight, norm.bias), grad)
    expected_grads = torch.autograd.grad(expected, (x_float32, plain.weight, plain.bias), grad.float())
    torch.testing.assert_close(grads[0].float(), expected_grads[0], rtol=2**-7, atol=2**-8)
    for value, exact in zip(grads[1:], expected_grads[1:], strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-5)


def test_a_training_step_is_reproducible_to_the_bit():
    config = SimVPv2Config(hidden_space=4, hidden_time=8, blocks=2, padding="sphere")
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        network = SimVPv2(config, history=2, channels=1).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(torch.randn(3, 2, 1, 16, 32))
        y.float().square().mean().backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    for name, grad in gradients[0].items():
        assert torch.equal(grad, gradients[1][name]), name
