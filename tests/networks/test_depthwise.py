"""The fast gradients against those that PyTorch computes for a padded field."""

import pytest
import torch
import torch.nn.functional as F

from simvp_climate.networks.depthwise import _DepthwiseConv2d, depthwise_conv2d
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


class OnGPU(torch.Tensor):
    """A tensor on the host that says that it is on a GPU."""

    device = torch.device("cuda", 0)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_gpu_convolves_in_the_type_of_its_autocast(dtype, monkeypatch):
    x, weight, bias = random_tensors(7, (8, 12), torch.float32)
    plain = depthwise_conv2d(x, weight, bias, 3, "sphere")
    expected = torch.autograd.grad(plain, (x, weight, bias), torch.ones_like(plain))
    # that of the CPU is off
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda" and dtype is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", {"cuda": dtype}.get)
    monkeypatch.setattr(_DepthwiseConv2d, "apply", None)  # only fast on the CPU
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, device, **options: empty(*sizes, **options))
    tensors = [tensor.detach().as_subclass(OnGPU).requires_grad_() for tensor in (x, weight, bias)]
    output = depthwise_conv2d(*tensors, 3, "sphere")
    assert output.dtype == (dtype or torch.float32)
    for value, exact in zip(torch.autograd.grad(output, tensors, torch.ones_like(output)), expected, strict=True):
        assert value.dtype == torch.float32
        assert (value - exact).abs().max() < (0.02 if dtype else 1e-5) * exact.abs().max()
