import pytest
import torch
from torch import nn

from simvp_climate.training.muon import RATE_FACTOR, Muon, matrices, orthogonalize


@pytest.mark.parametrize("shape", [(40, 40), (40, 90), (90, 40)])
def test_orthogonalized_matrix_has_the_same_singular_vectors_and_values_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalize(matrix[None])[0]
    values = torch.linalg.svdvals(result)
    # Jordan's coefficients map all values that are not tiny to between about 0.7 and 1.2
    assert values.min() > 0.6 and values.max() < 1.3
    alignment = (result * (left @ right)).sum() / min(shape)
    assert 0.8 < alignment < 1.15


def test_tied_computed_and_complex_weights():
    first, second = nn.Linear(32, 32), nn.Linear(32, 32)
    second.weight = first.weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
    network = nn.ModuleList([first, second, normed, nn.Linear(32, 32, dtype=torch.complex64)])
    assert [weight is first.weight for weight in matrices(network)] == [True]
    optimizer = Muon(network, 1e-3, 0.1, fused=False)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def test_it_is_the_iteration_of_jordan():
    torch.manual_seed(0)
    matrix = torch.randn(24, 60) * torch.logspace(0, -4, 24)[:, None]
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalize(matrix[None])[0].double(), x, atol=1e-4, rtol=0)


def layers():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "first": nn.Conv2d(5, 32, 3),
            "hidden": nn.Conv2d(32, 64, 3),
            "grouped": nn.Conv2d(64, 64, 3, groups=4),
            "depthwise": nn.Conv2d(64, 64, 3, groups=64),
            "dense": nn.Linear(64, 32),
            "last": nn.Conv2d(32, 5, 1),
        }
    )


def test_muon_takes_matrices_that_mix_channels_and_are_large_enough():
    network = layers()
    chosen = {name for name in network for weight in matrices(network) if weight is network[name].weight}
    assert chosen == {"first", "hidden", "grouped", "dense"}


def test_first_step_of_muon_by_hand():
    network = layers()
    weight = network["hidden"].weight
    weight.grad, before = torch.randn_like(weight), weight.detach().clone()
    gradient = weight.grad.flatten(1)
    optimizer = Muon(network, learning_rate=1e-3, weight_decay=0.1, fused=False)
    optimizer.step()
    rate = RATE_FACTOR * 1e-3
    # the direction of the first step is that of the gradient; 64 rows and 288 columns: no factor for tall matrices
    expected = before * (1 - rate * 0.1) - rate * orthogonalize(gradient[None])[0].view_as(weight)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_other_weights_take_the_step_of_adamw():
    one, other = layers(), layers()
    for network in (one, other):
        generator = torch.Generator().manual_seed(1)
        for weight in network.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
    Muon(one, learning_rate=1e-3, weight_decay=0.1, fused=False).step()
    torch.optim.AdamW(other.parameters(), lr=1e-3, weight_decay=0.1).step()
    for name in ("depthwise", "last"):
        assert torch.equal(one[name].weight, other[name].weight)
        assert torch.equal(one[name].bias, other[name].bias)
    assert not torch.equal(one["hidden"].weight, other["hidden"].weight)


def test_saved_state_resumes_exactly():
    def steps(network, optimizer, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for weight in network.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()

    whole, part = layers(), layers()
    steps(whole, Muon(whole, 1e-3, 0.01, fused=False), range(4))
    first = Muon(part, 1e-3, 0.01, fused=False)
    steps(part, first, range(2))
    second = Muon(part, 1e-3, 0.01, fused=False)
    second.load_state_dict(first.state_dict())
    steps(part, second, range(2, 4))
    for name, weight in whole.state_dict().items():
        assert torch.equal(part.state_dict()[name], weight)


def test_several_layers_of_one_shape_get_the_steps_they_would_get_alone():
    torch.manual_seed(0)
    network = nn.ModuleList([nn.Linear(32, 40), nn.Linear(32, 40)])
    for layer in network:
        layer.weight.grad = torch.randn(40, 32)
    expected = [
        layer.weight.detach() - RATE_FACTOR * 1e-3 * (40 / 32) ** 0.5 * orthogonalize(layer.weight.grad[None])[0]
        for layer in network
    ]
    Muon(network, 1e-3, 0.0, fused=False).step()
    for layer, weight in zip(network, expected, strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight)


def test_network_without_wide_layers_trains_with_adamw_alone():
    network = nn.Conv2d(2, 2, 3)
    network.weight.grad = torch.ones_like(network.weight)
    optimizer = Muon(network, 1e-3, 0.0, fused=False)
    assert [group["muon"] for group in optimizer.param_groups] == [False]
    before = network.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(network.weight.detach(), before - 1e-3, rtol=1e-4, atol=1e-6)
