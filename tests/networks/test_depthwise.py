"""The fast gradients against those that PyTorch computes for a padded field."""

import pytest
import torch
import torch.nn.functional as F

from simvp_climate.networks.depthwise import depthwise_conv2d
from simvp_climate.networks.padding import PADDING_MODES, pad


def random_tensors(kernel_size, size, dtype=torch.float64):
    torch.manual_seed(1)
    x = torch.randn(2, 3, *size, dtype=dtype).requires_grad_()
    weight = torch.randn(3, 1, kernel_size, kernel_size, dtype=dtype).requires_grad_()
    return x, weight, torch.randn(3, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (5, 1), (7, 3), (7, 2), (3, 3)])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (2, 4), (16, 5)])
def test_values_and_gradients_equal_those_of_a_plain_convolution(padding_mode, kernel_size, dilation, size):
    x, weight, bias = random_tensors(kernel_size, size)
    pad_width = dilation * (kernel_size - 1) // 2
    padded = pad(x, padding_mode, (pad_width,) * 2, (pad_width,) * 2)
    plain = F.conv2d(padded, weight, bias, dilation=dilation, groups=3)
    fast = depthwise_conv2d(x, weight, bias, dilation, padding_mode)
    torch.testing.assert_close(fast, plain)
    grad = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight, bias), grad)
    for fast_grad, plain_grad in zip(torch.autograd.grad(fast, (x, weight, bias), grad), expected, strict=True):
        torch.testing.assert_close(fast_grad, plain_grad)


def test_bfloat16_under_autocast_is_close_to_float32():
    x, weight, bias = random_tensors(7, (16, 32), torch.float32)
    plain = depthwise_conv2d(x, weight, bias, 3, "sphere")
    grad = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight, bias), grad)
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise_conv2d(x, weight, bias, 3, "sphere")
    assert output.dtype == torch.bfloat16
    for value, exact in zip(torch.autograd.grad(output, (x, weight, bias), grad.bfloat16()), expected, strict=True):
        assert value.dtype == torch.float32
        assert (value - exact).abs().max() < 0.02 * exact.abs().max()
