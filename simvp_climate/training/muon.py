"""The optimizer Muon: it makes the singular values of each step nearly equal. AdamW for weights that are no matrices.

After K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
https://kellerjordan.github.io/posts/muon/). `torch.optim.Muon` exists from PyTorch 2.9 on, for matrices only; here the
weights of a convolution are a matrix with a row for each output channel. Unlike in language models, the first and last
layers take Muon too, if they are large enough: that lowers the error (docs/ablation.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MIN_SIZE = 16  # rows and columns of a matrix; smaller ones take AdamW
RATE_FACTOR = 2.5  # learning rate of Muon, as a multiple of that of AdamW
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic iteration
_ITERATIONS = 5
_MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon with `RATE_FACTOR` times the learning rate for the matrices of a network, AdamW for the others."""

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float, *, fused: bool):
        chosen = matrices(network)
        identities = {id(weight) for weight in chosen}
        others = [weight for weight in network.parameters() if id(weight) not in identities]
        groups = [
            {"params": others, "muon": False, "rate_factor": 1.0},
            {"params": chosen, "muon": True, "rate_factor": RATE_FACTOR, "lr": RATE_FACTOR * learning_rate},
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
                self._step_matrices(group)

    def _step_matrices(self, group: dict) -> None:
        """Update the matrices, all of one shape together."""
        weights_by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                weights_by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
        for (rows, columns), weights in weights_by_shape.items():
            directions = torch.stack([self._direction(weight).flatten(1).float() for weight in weights])
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
    # An iteration is x -> p x with p = a + b g + c g g, where g = x x' becomes p g p. So all can be done on g, whose
    # rows are shorter, and their product is applied to x once.
    gram, product = x @ x.mT, None
    for iteration in range(_ITERATIONS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if iteration < _ITERATIONS - 1:
            gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.mT if is_tall else x


def matrices(network: nn.Module) -> list[Tensor]:
    """Return the weights of all dense layers and convolutions with at least `MIN_SIZE` rows and columns, each once.

    Weights of depthwise convolutions, complex weights and those that are computed from others are not among them.
    """
    parameters = {id(parameter) for parameter in network.parameters() if not parameter.is_complex()}
    chosen = {}
    for layer in network.modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            continue
        weight = layer.weight
        is_depthwise = getattr(layer, "groups", 1) > 1 and weight.shape[1] == 1
        if id(weight) in parameters and not is_depthwise and min(len(weight), weight[0].numel()) >= MIN_SIZE:
            chosen[id(weight)] = weight
    return list(chosen.values())
