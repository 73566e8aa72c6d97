"""The memory that training takes, and what takes less."""

import ctypes
import math
import platform

import torch
from lightning_fabric import Fabric

from simvp_climate.data import reader
from simvp_climate.networks.memory import activation_bytes
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.task import Task
from simvp_climate.training import distributed
from simvp_climate.training.config import TrainConfig

_RECOMPUTE = "activations are computed again instead of kept: about half the memory; this run may go on with it"


def keep_memory() -> None:
    """Let the C library keep what is freed: it would ask the system for every large array anew at every step.

    Steps take 0.7 to 0.9 of the time, for a few percent more memory, which stays with the process. On glibc alone.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for setting in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            library.mallopt(setting, 2**31 - 1)


def free_memory(fabric: Fabric) -> float:
    """Return the bytes that this process can have where it trains."""
    if fabric.device.type == "cuda":
        unused = torch.cuda.memory_reserved(fabric.device) - torch.cuda.memory_allocated(fabric.device)
        return torch.cuda.mem_get_info(fabric.device)[0] + unused  # what torch holds and hands out again
    found, (world, machines) = reader.free_memory(), distributed.count()
    return math.inf if found is None else found * machines // world


def check_size(model: SimVPv2Config, task: Task, channels: tuple[reader.Channel, ...], fabric: Fabric) -> None:
    """Raise MemoryError if the weights do not fit into what is free."""
    with torch.device("meta"):
        count = sum(value.numel() for value in tensors.build_network(model, task, channels).parameters())
    # with their gradients, the two moments of Adam, and their average and the best of it
    needed, free = 6 * 4 * count, free_memory(fabric)
    if needed > free:
        raise MemoryError(
            f"the network has {count:.3g} weights, which take {needed / 2**30:.3g} GiB with all that goes with them in "
            f"training, and {free / 2**30:.3g} GiB are free: take a smaller SimVPv2Config (now {model})"
        )


def check_memory(
    network: SimVPv2, config: TrainConfig, windows: int, leads: int, grid: tuple[int, int], fabric: Fabric
) -> None:
    """Raise MemoryError, naming a batch that fits, if what a step of so many windows keeps does not fit."""
    if config.activation_checkpointing:
        return
    free = free_memory(fabric)
    window = activation_bytes(network, leads, grid) * (1 if config.precision == "32-true" else 0.5)
    if window * windows <= free:
        return
    most = int(free / (1.25 * window)) * fabric.world_size  # what comes and goes on top
    ways = [f"activation_checkpointing=True ({_RECOMPUTE})"]
    if most:
        batches = -(-windows * fabric.world_size // most)
        accumulated = config.accumulate_grad_batches * batches
        ways.insert(0, f"batch_size={most} with accumulate_grad_batches={accumulated} (steps of about as many windows)")
    if config.rollout > 1:
        ways.append(f"a shorter rollout (now {config.rollout} calls)")
    ways.append("a smaller SimVPv2Config, or a coarser grid (sc.regrid)")
    raise MemoryError(
        f"a step of batch_size={config.batch_size} ({windows} windows at a time) keeps at least "
        f"{window * windows / 2**30:.3g} GiB of activations ({window / 2**30:.3g} GiB a window), and "
        f"{free / 2**30:.3g} GiB are free. Less take: {'; '.join(ways)}"
    )


def less_memory(config: TrainConfig, error: Exception) -> str:
    """Return what takes less memory than a step that did not fit."""
    ways = []
    if config.batch_size > 1:
        half, twice = -(-config.batch_size // 2), config.accumulate_grad_batches * 2
        ways.append(
            f"batch_size={half} with accumulate_grad_batches={twice} (steps of as many windows, about half the memory)"
        )
    if not config.activation_checkpointing:
        ways.append(f"activation_checkpointing=True ({_RECOMPUTE})")
    if config.rollout > 1:
        ways.append(f"a shorter rollout (now {config.rollout} calls)")
    if config.precision == "32-true":
        ways.append("precision='bf16-mixed'")
    ways.append("a smaller SimVPv2Config")
    return f"a training step does not fit into memory ({str(error).splitlines()[0]}). Less take: {'; '.join(ways)}"
