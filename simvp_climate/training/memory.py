"""Memory that training takes: checks before a run, and advice when a step does not fit.

Shape suffixes: B batch, T time, C channel, F forcing, H latitude, W longitude.
"""

import copy
import ctypes
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from simvp_climate.data import host_memory
from simvp_climate.networks.rollout import rollout
from simvp_climate.processing.tensors import is_custom
from simvp_climate.training import distributed
from simvp_climate.training.config import TrainConfig


def reuse_freed_memory() -> None:
    """Let glibc keep freed memory for reuse: steps take 10 to 30 % less time, with a few percent more memory."""
    if platform.libc_ver()[0] == "glibc":
        for setting in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            ctypes.CDLL(None).mallopt(setting, 2**31 - 1)


def free_bytes(fabric: Fabric) -> float:
    """Return the free memory in bytes: of the GPU, or the share of this process in the memory of the machine."""
    if fabric.device.type == "cuda":
        # torch reuses what it has reserved and not allocated
        unused = torch.cuda.memory_reserved(fabric.device) - torch.cuda.memory_allocated(fabric.device)
        return torch.cuda.mem_get_info(fabric.device)[0] + unused
    free, (world, machines) = host_memory.free_memory(), distributed.count()
    return math.inf if free is None else free * machines // world


def check_network(network: nn.Module, config: TrainConfig, fabric: Fabric) -> None:
    """Raise MemoryError if the weights of a network do not fit into the free memory; it may be on the meta device."""
    count = sum(value.numel() for value in network.parameters())
    # float32: weights, gradients, two moments (Adam; Muon has one), the running average and the best of it
    needed, free = 6 * 4 * count, free_bytes(fabric)
    if config.strategy == "fsdp":
        needed //= fabric.world_size
    if needed > free:
        sizes = f"take {needed / 2**30:.3g} GiB in training, and {free / 2**30:.3g} GiB are free"
        fix = "take a smaller network"
        if not is_custom(network):
            fix = f"take a smaller network (now {network.config})"
        if config.strategy == "ddp":
            fix += ", or share the weights between several processes: TrainConfig(strategy='fsdp')"
        raise MemoryError(f"the network has {count:.3g} weights, which {sizes}: {fix}")


def activation_bytes(network: nn.Module, leads: int, grid: tuple[int, int]) -> int:
    """Return the bytes per window that a float32 training step keeps for the backward pass of a rollout to `leads`.

    Temporary memory adds about a quarter, see docs/speed.md. Activation checkpointing is not taken into account.
    """
    batch = 2  # batch norm in training needs more than one value per channel, even on a grid of one cell
    meta_network = copy.deepcopy(network).to("meta").train()
    meta_network.activation_checkpointing = False
    # torch has one object for one storage; kept alive, so that no other gets its identity
    weights, activations = {}, {}
    for value in (*meta_network.parameters(), *meta_network.buffers()):
        weights[id(value.untyped_storage())] = value.untyped_storage()

    def record(saved: Tensor) -> None:
        storage = saved.untyped_storage()
        if id(storage) not in weights:
            activations[id(storage)] = storage

    x_BTCHW = torch.zeros(batch, network.history, network.channels, *grid, device="meta")
    times = math.ceil(leads / network.history) * network.history  # of all calls
    f_BTFHW = torch.zeros(batch, times, network.forcings, *grid, device="meta") if network.forcings else None
    with torch.autograd.graph.saved_tensors_hooks(record, lambda unused: unused):
        rollout(meta_network, x_BTCHW, leads, f_BTFHW).square().mean()
    return sum(storage.nbytes() for storage in activations.values()) // batch


def check_step(
    network: nn.Module, config: TrainConfig, windows: int, leads: int, grid: tuple[int, int], fabric: Fabric
) -> None:
    """Raise MemoryError, with a batch size that fits, if the activations of a batch of `windows` do not fit."""
    if config.activation_checkpointing:
        return
    free = free_bytes(fabric)
    try:
        window = activation_bytes(network, leads, grid) * (1 if config.precision == "32-true" else 0.5)
        window *= config.members if config.loss == "crps" else 1
    except Exception:
        if is_custom(network):  # it may have operations that the meta device lacks: then nothing is known beforehand
            return
        raise
    if window * windows <= free:
        return
    batch = ""
    # temporary arrays take about a quarter on top of the activations
    if batch_size := int(free / (1.25 * window)) * fabric.world_size:
        batches = config.accumulate_grad_batches * -(-windows * fabric.world_size // batch_size)
        batch = f"batch_size={batch_size} with accumulate_grad_batches={batches} (about the same step)"
    raise MemoryError(
        f"a step of batch_size={config.batch_size} ({windows} windows at a time) keeps at least "
        f"{window * windows / 2**30:.3g} GiB of activations ({window / 2**30:.3g} GiB a window), and "
        f"{free / 2**30:.3g} GiB are free. Take {_alternatives(config, batch)}"
    )


@contextmanager
def explain_errors(config: TrainConfig) -> Iterator[None]:
    """Raise MemoryError, with settings that take less, where torch runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        half, twice = -(-config.batch_size // 2), config.accumulate_grad_batches * 2
        batch = f"batch_size={half} with accumulate_grad_batches={twice} (the same step in about half the memory)"
        alternatives, reason = _alternatives(config, batch if config.batch_size > 1 else ""), str(error).splitlines()[0]
        raise MemoryError(f"a training step does not fit into memory ({reason}). Take {alternatives}") from error


def _alternatives(config: TrainConfig, batch: str) -> str:
    """Return settings that take less memory than a step that does not fit, beginning with those of the batch."""
    checkpointing = "activation_checkpointing=True (about half the memory, more time; this run may be resumed with it)"
    alternatives = {
        batch: bool(batch),
        checkpointing: not config.activation_checkpointing,
        f"a shorter rollout (now {config.rollout} calls)": config.rollout > 1,
        f"fewer members (now {config.members})": config.loss == "crps" and config.members > 2,
        "precision='bf16-mixed'": config.precision == "32-true",
        "a smaller network, or a coarser grid (sc.regrid)": True,
    }
    return "; or ".join(text for text, applies in alternatives.items() if applies)
