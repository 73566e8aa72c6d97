"""Batch norm with statistics over the batches of all processes, as if one process had them all."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def synchronize_batch_norms(network: nn.Module) -> None:
    """Convert every batch norm of a network in place, so that its statistics are over all processes, also on CPU."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm2d


def freeze_batch_norms(network: nn.Module) -> None:
    """Keep the statistics of every batch norm of a network as they are, until the next `network.train()`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, in all of them; so every process gets the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.apply(gradient)


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over the batches of all processes, which may differ in size; all must call it equally often."""

    def forward(self, x_BDhw: Tensor) -> Tensor:
        if not self.training or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return super().forward(x_BDhw)
        with torch.autocast(x_BDhw.device.type, enabled=False):
            float_BDhw = x_BDhw.float()
            count = torch.tensor(float(x_BDhw.numel() // x_BDhw.shape[1]), device=x_BDhw.device)
            distributed.all_reduce(count)
            # first the mean, then the squared deviations: mean(x^2) - mean(x)^2 would lose digits
            mean_D = _SumOverProcesses.apply(float_BDhw.sum(dim=(0, 2, 3))) / count
            centered_BDhw = float_BDhw - mean_D[:, None, None]
            variance_D = _SumOverProcesses.apply(centered_BDhw.square().sum(dim=(0, 2, 3))) / count
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean_D, self.momentum)
                # the running variance is the unbiased one, as in torch.nn.BatchNorm2d
                self.running_var.lerp_(variance_D * count / (count - 1), self.momentum)
            scale_D = self.weight * torch.rsqrt(variance_D + self.eps)
            return (centered_BDhw * scale_D[:, None, None] + self.bias[:, None, None]).to(x_BDhw.dtype)
