"""Muon: gradient steps whose matrices have equal singular values, for the hidden layers; AdamW for all other weights.

After K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
https://kellerjordan.github.io/posts/muon/). `torch.optim.Muon` exists from PyTorch 2.9 on, for matrices only; here the
weights of a convolution are a matrix with a row for each output channel.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MIN_CHANNELS = 32  # of input and output: narrower layers, such as those at the edge of a network, take AdamW
RATE_FACTOR = 2.5  # learning rate of Muon, as a multiple of that of AdamW
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic iteration
_ITERATIONS = 5
_MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon with `RATE_FACTOR` times the learning rate for the hidden weights of a network, AdamW for the others."""

    def __init__(
        self, network: nn.Module, learning_rate: float, weight_decay: float, *, fused: bool, dtype: torch.dtype
    ):
        hidden = hidden_weights(network)
        identities = {id(weight) for weight in hidden}
        others = [weight for weight in network.parameters() if id(weight) not in identities]
        groups = [
            {"params": others, "muon": False, "rate_factor": 1.0},
            {"params": hidden, "muon": True, "rate_factor": RATE_FACTOR, "lr": RATE_FACTOR * learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=learning_rate, weight_decay=weight_decay, fused=fused)
        self.dtype = dtype  # of the matrix products

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
                self._step_hidden(group)

    def _step_hidden(self, group: dict) -> None:
        """Update the hidden weights, all of one shape together."""
        weights_by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                weights_by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
        for (rows, columns), weights in weights_by_shape.items():
            directions = torch.stack([self._direction(weight).flatten(1).to(self.dtype) for weight in weights])
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            for weight, step in zip(weights, orthogonalize(directions), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step.view(weight.shape).to(weight.dtype), alpha=-rate)

    def _direction(self, weight: Tensor) -> Tensor:
        """Return the gradient of a weight with Nesterov's momentum."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.tensor(0.0)  # AdamW reads it when it loads a state
        state["step"] += 1
        momentum = state["momentum"]
        momentum.lerp_(weight.grad, 1 - _MOMENTUM)
        return weight.grad.lerp(momentum, _MOMENTUM)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices with the singular vectors of `matrices` and singular values near one, (matrix, row, column)."""
    a, b, c = _COEFFICIENTS
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    if is_tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    for _ in range(_ITERATIONS):
        # a x + (b x x' + c (x x')^2) x
        squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def hidden_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of all dense layers and convolutions with at least `MIN_CHANNELS` inputs and outputs."""
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    dense = (layer.weight for layer in layers if getattr(layer, "groups", 1) == 1)
    return [weight for weight in dense if min(weight.shape[:2]) >= MIN_CHANNELS]
