"""Several processes of one run, as torchrun or SLURM's srun starts them: each has a part of every batch."""

import os
import warnings

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from simvp_climate.networks.batch_norm import synchronize


def count() -> tuple[int, int]:
    """Return how many processes the run has, and how many machines; (1, 1) unless torchrun or srun started it."""
    if TorchElasticEnvironment.detect():
        world = int(os.environ["WORLD_SIZE"])
        return world, world // int(os.environ.get("LOCAL_WORLD_SIZE", world))
    # set by srun alone: within an allocation without it a script is one process
    world = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return world, int(os.environ.get("SLURM_STEP_NUM_NODES", 1)) if world > 1 else 1


def is_first_process() -> bool:
    """Say whether this is the process of a run that writes, prints and draws: the only one, or that of rank 0.

    `train` returns the same forecaster in all of them; a script goes on with `if sc.is_first_process():`.
    """
    world, _ = count()
    rank = "RANK" if TorchElasticEnvironment.detect() else "SLURM_PROCID"
    return world == 1 or int(os.environ.get(rank, 0)) == 0


def start(accelerator: str, precision: str, logger: Logger | None) -> Fabric:
    """Return a launched Fabric over all processes, which have found each other.

    Raises
    ------
    ValueError
        If the processes are not the same number on every machine, or more than its GPUs.
    """
    world, machines = count()
    if world == 1:
        # said, so that an allocation of more tasks is not waited for
        return Fabric(
            accelerator=accelerator, devices=1, precision=precision, loggers=logger, plugins=[LightningEnvironment()]
        )
    if world % machines:
        raise ValueError(f"{world} processes on {machines} machines: start the same number on each")
    local = world // machines
    if accelerator == "cuda" and local > torch.cuda.device_count():
        raise ValueError(
            f"{local} processes on a machine of which {torch.cuda.device_count()} GPUs are seen: start one for each "
            "(srun --gpus-per-node, not --gpus-per-task, which hides the others), or train with device='cpu'"
        )
    # of 7 x 7 weights of one channel, whose strides mean nothing: torch says that it may cost time, and it does not
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # what it names in its place is not public yet
    warnings.filterwarnings("ignore", message="torch.distributed.nn.functional.all_reduce is deprecated")
    environment = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=machines,
        # buffers are the same everywhere; to send them between the calls of a rollout would break the gradient
        strategy=DDPStrategy(forward_sync_buffers=False),
        precision=precision,
        loggers=logger,
        plugins=[environment],
    )
    fabric.launch()
    return fabric


def prepare(network: nn.Module, fabric: Fabric) -> nn.Module:
    """Return the network with batch norms over the batches of all processes."""
    if fabric.world_size == 1:
        return network
    if fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    synchronize(network)
    return network


def total(fabric: Fabric, values: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if fabric.world_size == 1:
        return values
    summed = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(summed, Tensor)  # as a single one is handed in
    return summed


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Say whether any process says so; all must ask."""
    if fabric.world_size == 1:
        return flag
    return bool(total(fabric, torch.tensor(float(flag), device=fabric.device)))
