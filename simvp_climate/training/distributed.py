"""Several processes of one run, as torchrun or SLURM's srun starts them: each trains on a part of every batch."""

import inspect
import logging
import os
import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from simvp_climate.networks.batch_norm import synchronize_batch_norms


def count() -> tuple[int, int]:
    """Return the number of processes and of machines of the run; (1, 1) unless torchrun or srun started it."""
    if TorchElasticEnvironment.detect():
        world_size = int(os.environ["WORLD_SIZE"])
        return world_size, world_size // int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    # only srun sets these: a script inside an allocation, but without srun, is one process
    world_size = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return world_size, int(os.environ.get("SLURM_STEP_NUM_NODES", 1)) if world_size > 1 else 1


def is_first_process() -> bool:
    """Return whether this process of a run writes, prints and draws: it is the only one, or has rank 0.

    `train` returns the same forecaster in every process; a script continues with `if sc.is_first_process():`.
    """
    world_size, _ = count()
    rank = "RANK" if TorchElasticEnvironment.detect() else "SLURM_PROCID"
    return world_size == 1 or int(os.environ.get(rank, 0)) == 0


def start(accelerator: str, precision: str, logger: Logger | None, strategy: str = "ddp") -> Fabric:
    """Return a launched Fabric that connects all processes of the run."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else it prints the precision
    world_size, machines = count()
    options = {"accelerator": accelerator, "precision": precision, "loggers": logger}
    if world_size == 1:
        if strategy == "fsdp":
            raise ValueError("strategy='fsdp' would be ignored by one process: start several with torchrun or srun")
        # explicit, else Fabric waits for the other tasks of a SLURM allocation
        return Fabric(devices=1, plugins=[LightningEnvironment()], **options)
    if world_size % machines:
        raise ValueError(f"{world_size} processes on {machines} machines: start the same number on each machine")
    local_size = world_size // machines
    if accelerator == "cuda" and local_size > torch.cuda.device_count():
        raise ValueError(
            f"{local_size} processes on a machine need {local_size} GPUs, and {torch.cuda.device_count()} are visible: "
            "start one for each (srun --gpus-per-node, not --gpus-per-task), or train with device='cpu'"
        )
    # torch warns of slow strides of depth-wise weights, but strides along a single channel have no effect
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # buffers are the same everywhere, and sending them between the calls of a rollout would break the gradient
    names = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # the older name
    options["strategy"] = DDPStrategy(**{buffers: False})
    if strategy == "fsdp":
        options["strategy"] = ModelParallelStrategy(_shard, data_parallel_size=world_size, tensor_parallel_size=1)
    options["plugins"] = [TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()]
    fabric = Fabric(devices=local_size, num_nodes=machines, **options)
    fabric.launch()
    return fabric


def prepare(network: nn.Module, fabric: Fabric) -> nn.Module:
    """Return the network with batch norms over the batches of all processes."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if fabric.world_size > 1:
        synchronize_batch_norms(network)
    return network


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Leave each process a part of every weight; one block at a time is whole, and the rest of the network together."""
    network.to(memory_format=torch.contiguous_format)  # FSDP takes no other
    for block in (*network.translator.blocks, *getattr(network.translator, "spectral_blocks", ())):
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def gather(state: Any, keep: bool = True) -> Any:
    """Return a nested state with whole tensors on the host in place of parts; all processes must call this.

    A process that does not `keep` them has None in their place.
    """
    if isinstance(state, dict):
        return {name: gather(value, keep) for name, value in state.items()}
    if isinstance(state, list):
        return [gather(value, keep) for value in state]
    if not isinstance(state, DTensor):
        return state
    whole = state.full_tensor()
    return whole.cpu() if keep else None


def share(fabric: Fabric, state: Any) -> Any:
    """Return the nested state of the first process in all, elsewhere with tensors on "meta" that `place_like` fills."""
    outline = fabric.broadcast(_outline(state))
    return state if fabric.is_global_zero else outline


def _outline(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _outline(value) for name, value in state.items()}
    if isinstance(state, list):
        return [_outline(value) for value in state]
    return state.to("meta") if isinstance(state, Tensor) and state.dim() else state


def place_like(value: Tensor, other: Tensor, fabric: Fabric) -> Tensor:
    """Return a tensor of the first process placed like another one of its shape: same device, parts, order in memory.

    Fused optimizers go through weights and moments in the order of memory. One tensor at a time is whole on the device:
    a state of which every process keeps a part only may not fit there. All processes must call this.
    """
    if fabric.world_size == 1:
        return torch.empty_like(other, dtype=value.dtype).copy_(value)
    whole = torch.empty(value.shape, dtype=value.dtype, device=other.device)
    if fabric.is_global_zero:
        whole.copy_(value)
    if isinstance(other, DTensor):
        return distribute_tensor(whole, other.device_mesh, other.placements)
    torch.distributed.broadcast(whole, src=0)
    return torch.empty_like(other, dtype=value.dtype).copy_(whole)


def total(fabric: Fabric, values: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if fabric.world_size == 1:
        return values
    summed = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(summed, Tensor)  # for the type checker: a tensor goes in
    return summed


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Return whether the flag is set in any process; all processes must call this."""
    return flag if fabric.world_size == 1 else bool(total(fabric, torch.tensor(float(flag), device=fabric.device)))
