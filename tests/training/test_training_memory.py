"""Memory: what fits is known before a run, and errors list what takes less."""

import dataclasses

import pytest
import torch
from factories import assert_same_weights, quick, run, tiny_model, tiny_sphere, waves

from simvp_climate.data import host_memory
from simvp_climate.networks.shape import NetworkShape
from simvp_climate.networks.simvp_sphere import SimVPSphere
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.training.loss import Loss
from simvp_climate.training.memory import activation_bytes


def test_a_step_that_does_not_fit_is_refused_with_a_batch_size_that_fits(monkeypatch):
    config = quick(batch_size=10)
    sizes = {"hidden_space": 4, "hidden_time": 8, "blocks": 2, "mlp_ratio": 2.0, "drop_path": 0.0}
    network = SimVPv2(SimVPv2Config(**sizes, padding="periodic"), history=2, channels=2)
    window = activation_bytes(network, 2, (8, 16))
    monkeypatch.setattr(host_memory, "free_memory", lambda: int(4.2 * 1.25 * window))
    with pytest.raises(
        MemoryError,
        match=r"batch_size=10 .*batch_size=4 with accumulate_grad_batches=3 .*activation_checkpointing=True",
    ):
        run(config=config)
    few = waves(times=7)  # four windows, whatever the batch may hold
    assert run(few, config=quick(batch_size=10**4)).provenance["epochs"]
    for large in (tiny_model(hidden_time=10**5), tiny_sphere(hidden_time=10**5)):
        with pytest.raises(MemoryError, match="network has .* weights, .* are free: take a smaller"):
            run(model=large)
    for fits in (quick(batch_size=4, accumulate_grad_batches=3), quick(batch_size=10, activation_checkpointing=True)):
        assert run(config=fits).provenance["epochs"]


@pytest.mark.parametrize(
    ("model", "optimizer", "precision"),
    [
        (tiny_model(drop_path=0.3), "adamw", "32-true"),
        (tiny_model(drop_path=0.3), "adamw", "bf16-mixed"),
        (tiny_sphere(), "muon", "bf16-mixed"),
    ],
)
def test_activation_checkpointing_changes_no_bit(model, optimizer, precision):
    config = quick(epochs=2, rollout=2, optimizer=optimizer, precision=precision)
    kept = run(model=model, config=config)
    assert_same_weights(kept, run(model=model, config=dataclasses.replace(config, activation_checkpointing=True)))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def test_an_out_of_memory_error_lists_what_takes_less(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Loss, "__call__", fail)
    with pytest.raises(
        MemoryError,
        match="batch_size=4 with accumulate_grad_batches=2 .*activation_checkpointing=True .*or a shorter rollout",
    ):
        run(config=quick(rollout=2))
    with pytest.raises(MemoryError) as caught:
        run(config=quick(batch_size=1, activation_checkpointing=True, precision="bf16-mixed"))
    assert str(caught.value).endswith("Take a smaller network, or a coarser grid (sc.regrid)")


def test_other_errors_of_torch_are_not_called_out_of_memory(monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Loss, "__call__", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run()


def test_too_little_memory_is_named():
    with pytest.raises(MemoryError, match=r"memory=1000 gives 0.000954 MiB, and streaming these windows takes"):
        run(config=quick(memory=1000))


def test_activation_bytes_of_the_network_for_the_sphere_grow_with_cells_and_blocks():
    def bytes_of(grid, blocks, leads=2):
        shape = NetworkShape(2, 2, 1, 2, 2, grid)
        return activation_bytes(SimVPSphere(tiny_sphere(padding="sphere", blocks=blocks), shape), leads, grid)

    small, large = (bytes_of(grid, 6) - bytes_of(grid, 2) for grid in ((32, 64), (64, 128)))
    assert large == pytest.approx(4 * small, rel=0.1)
    # a block keeps at least value, gate, their product and the output of the second convolution, in float32
    assert small > 4 * 4 * 32 * (16 * 32) * 4
    assert bytes_of((32, 64), 2, leads=4) == pytest.approx(2 * bytes_of((32, 64), 2), rel=0.1)


def test_activation_bytes_grow_with_cells_and_calls():
    network = SimVPv2(tiny_model(padding="sphere"), history=2, channels=2, forcings=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = activation_bytes(network, 2, (8, 16))
    # a constant remains, from reordered weights: compare differences between grids
    extra = activation_bytes(network, 2, (16, 32)) - small
    # 15 instead of 3 times the small grid more; padded edges weigh less on a larger grid
    assert activation_bytes(network, 2, (32, 64)) - small == pytest.approx(5 * extra, rel=0.05)
    extra_of_two_calls = activation_bytes(network, 4, (16, 32)) - activation_bytes(network, 4, (8, 16))
    assert extra_of_two_calls == pytest.approx(2 * extra, rel=0.1)
    # the first layer alone keeps the inputs of its norm and SiLU: 4 channels, 2 states, 8 x 16 cells, 4 bytes
    assert small > 2 * 4 * 2 * 8 * 16 * 4
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) and value.device.type == "cpu"
