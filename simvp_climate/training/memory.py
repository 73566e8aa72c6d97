"""Memory that training takes: checks before a run, and advice when a step does not fit."""

import ctypes
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from simvp_climate.data import host_memory
from simvp_climate.networks.memory import activation_bytes
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.training import distributed
from simvp_climate.training.config import TrainConfig

_CHECKPOINTING = "activation_checkpointing=True (about half the memory, more time; this run may be resumed with it)"


def reuse_freed_memory() -> None:
    """Let the C library keep freed memory instead of asking the system for every large array in every step.

    Steps take 10 to 30 % less time, and the process keeps a few percent more memory. Only glibc has these settings.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for setting in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            library.mallopt(setting, 2**31 - 1)


def free_bytes(fabric: Fabric) -> float:
    """Return the free memory of the device that this process trains on, its share where processes share a machine."""
    if fabric.device.type == "cuda":
        # torch reuses what it has reserved and not allocated
        unused = torch.cuda.memory_reserved(fabric.device) - torch.cuda.memory_allocated(fabric.device)
        return torch.cuda.mem_get_info(fabric.device)[0] + unused
    free, (world, machines) = host_memory.free_memory(), distributed.count()
    return math.inf if free is None else free * machines // world


def check_network(network: SimVPv2, fabric: Fabric) -> None:
    """Raise MemoryError if the weights of a network do not fit into the free memory; it may be on the meta device."""
    count = sum(value.numel() for value in network.parameters())
    # float32: weights, gradients, the two moments of Adam, the running average and the best of it
    needed, free = 6 * 4 * count, free_bytes(fabric)
    if needed > free:
        raise MemoryError(
            f"the network has {count:.3g} weights, which take {needed / 2**30:.3g} GiB in training, and "
            f"{free / 2**30:.3g} GiB are free: take a smaller SimVPv2Config (now {network.config})"
        )


def check_step(
    network: SimVPv2, config: TrainConfig, windows: int, leads: int, grid: tuple[int, int], fabric: Fabric
) -> None:
    """Raise MemoryError, with a batch size that fits, if the activations of a batch of `windows` do not fit."""
    if config.activation_checkpointing:
        return
    free = free_bytes(fabric)
    window = activation_bytes(network, leads, grid) * (1 if config.precision == "32-true" else 0.5)
    if window * windows <= free:
        return
    alternatives = [_CHECKPOINTING]
    # temporary arrays take about a quarter on top of the activations
    if batch_size := int(free / (1.25 * window)) * fabric.world_size:
        batches = config.accumulate_grad_batches * -(-windows * fabric.world_size // batch_size)
        alternatives.insert(0, f"batch_size={batch_size} with accumulate_grad_batches={batches} (about the same step)")
    if config.rollout > 1:
        alternatives.append(f"a shorter rollout (now {config.rollout} calls)")
    alternatives.append("a smaller SimVPv2Config, or a coarser grid (sc.regrid)")
    raise MemoryError(
        f"a step of batch_size={config.batch_size} ({windows} windows at a time) keeps at least "
        f"{window * windows / 2**30:.3g} GiB of activations ({window / 2**30:.3g} GiB a window), and "
        f"{free / 2**30:.3g} GiB are free. Take {'; or '.join(alternatives)}"
    )


@contextmanager
def explain_errors(config: TrainConfig) -> Iterator[None]:
    """Raise MemoryError, with settings that take less, where torch runs out of memory on a GPU or on a CPU."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(config, error) from error


def _out_of_memory(config: TrainConfig, error: RuntimeError) -> MemoryError:
    """Return an error that lists settings that take less memory than the step that did not fit."""
    alternatives = []
    if config.batch_size > 1:
        half, twice = -(-config.batch_size // 2), config.accumulate_grad_batches * 2
        alternatives.append(
            f"batch_size={half} with accumulate_grad_batches={twice} (the same step in about half the memory)"
        )
    if not config.activation_checkpointing:
        alternatives.append(_CHECKPOINTING)
    if config.rollout > 1:
        alternatives.append(f"a shorter rollout (now {config.rollout} calls)")
    if config.precision == "32-true":
        alternatives.append("precision='bf16-mixed'")
    alternatives.append("a smaller SimVPv2Config")
    reason = str(error).splitlines()[0]
    return MemoryError(f"a training step does not fit into memory ({reason}). Take {'; or '.join(alternatives)}")
