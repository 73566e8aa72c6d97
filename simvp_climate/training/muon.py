"""Muon: gradient steps whose matrices have equal singular values, for the hidden layers; AdamW for all other weights.

After K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
https://kellerjordan.github.io/posts/muon/). `torch.optim.Muon` exists from PyTorch 2.9 on, for matrices only; here the
weights of a convolution are a matrix with a row for each output channel.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MIN_CHANNELS = 32  # of input and output: narrower layers, such as those at the edge of a network, take AdamW
RATE_FACTOR = 5.0  # learning rate of Muon, as a multiple of that of AdamW
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic iteration
_ITERATIONS = 5
_MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon with `RATE_FACTOR` times the learning rate for the hidden weights of a network, AdamW for the others."""

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float, fused: bool):
        hidden = hidden_weights(network)
        identities = {id(weight) for weight in hidden}
        others = [weight for weight in network.parameters() if id(weight) not in identities]
        groups = [
            {"params": others, "muon": False, "rate_factor": 1.0},
            {"params": hidden, "muon": True, "rate_factor": RATE_FACTOR, "lr": RATE_FACTOR * learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=learning_rate, weight_decay=weight_decay, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:  # type: ignore[override]
        """Update all weights once."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            if self.param_groups:
                super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._update(weight, group)

    def _update(self, weight: Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.tensor(0.0)  # AdamW reads it when it loads a state
        state["step"] += 1
        momentum = state["momentum"]
        momentum.lerp_(weight.grad, 1 - _MOMENTUM)
        direction = weight.grad.lerp(momentum, _MOMENTUM)  # Nesterov's momentum
        step = orthogonalize(direction.flatten(1)).view_as(direction)
        rows, columns = len(weight), weight[0].numel()
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step.to(weight.dtype), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of `matrix` and singular values near one, (rows, columns), bfloat16."""
    a, b, c = _COEFFICIENTS
    x = (matrix / (matrix.norm() + 1e-7)).bfloat16()
    if is_tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(_ITERATIONS):
        squared = x @ x.T
        x = a * x + (b * squared + c * squared @ squared) @ x
    return x.T if is_tall else x


def hidden_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of all dense layers and convolutions with at least `MIN_CHANNELS` inputs and outputs."""
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    dense = (layer.weight for layer in layers if getattr(layer, "groups", 1) == 1)
    return [weight for weight in dense if min(weight.shape[:2]) >= MIN_CHANNELS]
