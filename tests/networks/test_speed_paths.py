"""What is computed another way to be fast, against the plain formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from simvp_climate.networks.simvp_v2 import Conv, GroupNorm, PixelShuffleConv, SimVPv2, SimVPv2Config


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_doubling_is_a_convolution_and_a_pixel_shuffle(memory_format):
    torch.manual_seed(0)
    doubling = PixelShuffleConv(3, 2, 3, "sphere").double()
    plain = Conv(3, 8, 3, "sphere").double()
    plain.load_state_dict(doubling.state_dict())
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    expected = F.pixel_shuffle(plain(x), 2)
    found = doubling(x)
    torch.testing.assert_close(found, expected)
    by = torch.randn_like(expected)
    found = torch.autograd.grad(found, (x, *doubling.parameters()), by)
    for value, other in zip(found, torch.autograd.grad(expected, (x, *plain.parameters()), by), strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("size", [(8, 10), (32, 40)])
def test_group_norm_in_bfloat16_is_that_of_float32(size):
    torch.manual_seed(0)
    norm, plain = GroupNorm(2, 6), nn.GroupNorm(2, 6)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(3, 6, *size).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    wide = x.detach().float().requires_grad_()
    expected = plain(wide)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2**-8)
    by = torch.randn_like(expected).bfloat16()
    grads = torch.autograd.grad(found, (x, norm.weight, norm.bias), by)
    wanted = torch.autograd.grad(expected, (wide, plain.weight, plain.bias), by.float())
    torch.testing.assert_close(grads[0].float(), wanted[0], rtol=2**-7, atol=2**-8)
    for value, other in zip(grads[1:], wanted[1:], strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)


def test_a_step_of_training_is_the_same_twice_to_the_bit():
    config = SimVPv2Config(hidden_space=4, hidden_time=8, blocks=2, padding="sphere")
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        network = SimVPv2(config, history=2, channels=1).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(torch.randn(3, 2, 1, 16, 32))
        y.float().square().mean().backward()
        runs.append({name: weight.grad for name, weight in network.named_parameters()})
    for name, grad in runs[0].items():
        assert torch.equal(grad, runs[1][name]), name
