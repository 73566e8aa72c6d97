"""Train a forecaster: resolve the settings, read the data, fit the network, return the forecaster.

Shape suffixes: C channel, T lead, H latitude.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import xarray as xr
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from torch import nn

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.shape import NetworkBuilder, NetworkShape
from simvp_climate.processing import tensors
from simvp_climate.processing.task import Task
from simvp_climate.processing.tensors import ModelConfig
from simvp_climate.training import checkpoint, datasets, distributed, memory, signals, transfer
from simvp_climate.training.config import WEIGHT_DECAY, TrainConfig
from simvp_climate.training.loop import TrainingLoop
from simvp_climate.training.loss import Loss

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def train(
    task: Task, dataset: xr.Dataset | Sequence[xr.Dataset], *, valid: xr.Dataset | Sequence[xr.Dataset] | None,
    model: ModelConfig | NetworkBuilder | None = None, config: TrainConfig | None = None,
    directory: str | os.PathLike | None = None, start_from: Forecaster | str | os.PathLike | None = None,
    logger: Logger | None = None, device: str = "auto",
) -> Forecaster:  # fmt: skip
    """Train a network on a dataset and return the forecaster.

    The loss is the area-weighted squared error, each channel and lead in units of its typical change, unless `config`
    changes it (`TrainConfig(loss="crps")` trains an ensemble). Runs in one process, or in all that torchrun or SLURM's
    srun started (one per GPU, or on CPUs): each trains on a part of every batch, batch norms see the whole batch, and
    all return the same forecaster. Only the first process saves; code that writes or draws afterwards belongs under `if
    sc.is_first_process():`.

    Parameters
    ----------
    task
        What to forecast.
    dataset
        The training years, in any lat-lon convention; or a list of series (ensemble members, climate models), or a
        Dataset with a member dimension. No window crosses a gap in time or from one series to the next. Normalization
        statistics come from these data alone. Cells that never have a value (sea surface temperature on land) are
        masked.
    valid
        The validation period, on which the best epoch is selected; none of its times may lie within a training window.
        Required. Pass None to keep the weights of the last epoch. In both cases the weights are their running
        average (`TrainConfig.ema_decay`).
    model
        Size and type of the network: a `SimVPSphereConfig` (by default `SimVPSphereConfig()`, or that of `start_from`)
        or a `SimVPv2Config`. For a network of another kind: a function that gets a `NetworkShape` and returns a
        `torch.nn.Module` with random weights. The module maps normalized states (batch, history, channels, latitude,
        longitude), and only if there are forcings those of the
        same states (batch, history, forcings, latitude, longitude) as second argument, to the next `history` states
        (batch, history, output_channels, latitude, longitude), normalized, first the shared channels. `train` sets the
        sizes of the `NetworkShape` as attributes. To predict changes, register a buffer `change_scale_TC` of the shape
        (history, shared_channels), which training fills with the typical normalized change, and add the product with it
        to the last input state. With an attribute `activation_checkpointing`, the module follows
        `TrainConfig.activation_checkpointing`.
    config
        How to train; by default `TrainConfig()`.
    directory
        Where to save the state of the run: after every epoch, every `TrainConfig.save_minutes`, and when it is
        stopped. Called again with the same arguments, the run resumes from the saved state and ends as if it had not
        been stopped (to the last bit on a CPU with the same number of threads); with other arguments it raises. One
        process at a time. `training_curve.csv` there has a row for each epoch, `forecaster.safetensors` is the result.
    start_from
        A forecaster to fine-tune, or the path of its file: the run starts with its network and weights. For the same
        task, grid and units it also keeps the statistics, mask and static fields. The task may have other variables,
        levels or forcings, and the data another grid: `TrainConfig.statistics` then chooses the statistics. Inputs and
        outputs are matched by name and level: shared ones keep their weights, a printed sentence lists the new ones,
        whose weights are random.
    logger
        Any logger of Lightning Fabric (`lightning_fabric.loggers`): receives the columns of the training curve after
        every epoch, and `running_loss` every 50 steps. A resumed run may log the steps after the saved state twice.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", "mps".

    Returns
    -------
    Forecaster
        Ready to call, on the device it was trained on. `provenance["epochs"]` is the training curve: for each epoch
        `epoch` (from 1), `loss` (mean over the training windows), `learning_rate` (of the last step), and with `valid`
        the mean loss `valid_loss` and the area-weighted root mean squared errors at the first and the last lead of the
        task, over all validation windows, in the units of the variable (`valid_rmse_z500_6h`,
        `valid_rmse_geopotential_500_24h`). With `loss="crps"` there are more, see `Forecaster.training_curve`.

    Raises
    ------
    ValueError
        Before training: if the data do not fit the task, a value is missing inside a window, a field is constant,
        training and validation overlap or differ in grid or units, or the directory holds another run. During
        training: if the store changes.
    FileExistsError, RuntimeError
        If the directory has results but no training state; if another process trains there.
    MemoryError
        If a step or the windows (even streamed) do not fit into the free memory; the message names settings that do.
    OSError
        If the data cannot be read, or the state cannot be written; the previous state is intact.
    FloatingPointError
        If the loss is not finite or explodes: exceeds 1000 times the median of the last 100 batches with the same
        number of leads, after the warm-up. The message names the windows; the saved state is the last good one.
    SystemExit, KeyboardInterrupt
        After SIGTERM or SIGUSR1, which schedulers send, with status 75 (EX_TEMPFAIL, "try again later"); after Ctrl-C.
        The step is finished and the state saved first, unless Ctrl-C comes twice.
    """
    config = config or TrainConfig()
    if isinstance(start_from, str | os.PathLike):
        builder = model if callable(model) else None
        start_from = Forecaster.load(start_from, device, compile=False, network=builder)
    arguments = {"task": task, "model": model, "config": config, "start_from": start_from, "logger": logger}
    _check_arguments({**arguments, "valid": valid, "directory": directory}, config)
    model = transfer.match_noise(transfer.choose_model(model, start_from), config.loss)
    leads = config.leads(task)
    accelerator = tensors.choose_device(device)
    requested, config = config, _resolve_defaults(config, accelerator, start_from)
    fabric = distributed.start(accelerator, config.precision, logger, config.strategy)
    _check_processes(config, fabric)
    if config.progress and requested.precision == "auto" and accelerator == "cpu" and config.precision == "bf16-mixed":
        fabric.print("training in bfloat16, which this CPU has; for float32 set TrainConfig(precision='32-true')")
    # only the first process saves
    with checkpoint.lock(directory if fabric.is_global_zero else None) as run_directory, signals.watch() as stop:
        setup, training, validation = datasets.open_data(task, leads, dataset, valid)
        model = transfer.choose_padding(model, start_from, setup)
        if start_from is not None:
            config = transfer.choose_statistics(start_from, setup, config)
        shape = tensors.network_shape(task, setup.roles, (setup.latitude.size, setup.longitude.size))
        planned = _plan_network(model, shape, config, fabric)
        if start_from is not None and tensors.is_custom(planned):
            transfer.check_custom(planned, start_from, setup)
        memory.check_network(planned, config, fabric)
        del planned  # of another kind, it has weights
        inherited = start_from if config.statistics == "inherit" else None
        statics = datasets.read_statics(setup, dataset, inherited)
        plans = fabric.broadcast(checkpoint.load_plans(run_directory))
        splits, normalizer = datasets.read_splits(setup, training, validation, config, plans, inherited, fabric)

        with _seeded(config, fabric):
            mean_field = tensors.normalized_mean_field(splits[0].statistics, normalizer, setup.roles)
            network = tensors.build_network(model, shape, normalizer, mean_field)
            settings = tensors.describe_network(network)
            provenance = checkpoint.describe_run(task, settings, config, normalizer, splits, fabric)
            if start_from is not None:
                provenance["start_from"] = transfer.start_network(network, start_from, setup.roles, config, fabric)
            grid = setup.latitude, setup.longitude
            run = checkpoint.identify(run_directory, provenance, requested, splits, [*grid, statics])
            forcings = tensors.Forcings(task, *grid, statics, setup.weights, fabric.device)
            loss = Loss(config, setup, normalizer, forcings, fabric.device)
            with memory.explain_errors(config):
                loop = TrainingLoop(fabric, network, config, loss, splits, run, stop)
                provenance["epochs"] = loop.fit()
            if 0 < loop.crps_start < loop.total_steps:
                provenance["crps_after"] = loop.crps_start / loop.steps_per_epoch  # epochs
            if config.strategy == "fsdp":
                planned = _plan_network(model, shape, config, fabric)  # the parts of `network` stay in the processes
                network = planned.to_empty(device=fabric.device).to(memory_format=torch.channels_last)
                network.load_state_dict(distributed.gather(loop.state.selected))
        climatology = splits[0].climatology()
        forecaster = Forecaster(task, network.eval(), normalizer, *grid, statics, provenance, climatology)
        checkpoint.save_forecaster(run, forecaster)
        return forecaster


def _check_arguments(arguments: dict, config: TrainConfig) -> None:
    """Raise ValueError for arguments of the wrong type, and for settings that would be ignored."""
    for name, expected, example in (
        ("task", Task, "Task(...)"),
        ("model", ModelConfig | Callable | None, "SimVPSphereConfig(...), or a function that builds a network"),
        ("config", TrainConfig, "TrainConfig(...)"),
        ("start_from", Forecaster | None, "Forecaster, or the path of its file"),
        ("logger", Logger | None, "logger of lightning_fabric.loggers"),
    ):
        if not isinstance(arguments[name], expected):
            raise ValueError(f"{name} is a {type(arguments[name]).__name__}: give a {example}")
    if config.strategy == "fsdp" and not isinstance(arguments["model"], ModelConfig | None):
        raise ValueError(
            "strategy='fsdp' divides only networks of this package: take strategy='ddp', or a config as model"
        )
    if config.patience is not None and arguments["valid"] is None:
        raise ValueError(f"patience={config.patience} counts epochs without a better validation loss: give valid")
    needs = {"validation_windows": "valid", "select": "valid", "save_minutes": "directory", "statistics": "start_from"}
    for name, needed in needs.items():
        value = getattr(config, name)
        if arguments[needed] is None and value != getattr(TrainConfig, name):
            raise ValueError(f"{name}={value!r} would be ignored without {needed}: give {needed}, or leave {name} out")


def _check_processes(config: TrainConfig, fabric: Fabric) -> None:
    """Raise ValueError if the processes cannot share the batches, or chose different settings."""
    if config.batch_size % fabric.world_size:
        rule = f"must be a multiple of {fabric.world_size}, the number of processes that share each batch"
        raise ValueError(f"batch_size={config.batch_size} {rule}")
    chosen = {"precision": config.precision, "compile": config.compile}
    if chosen != (first := fabric.broadcast(chosen)):
        message = f"'auto' is {chosen} in process {fabric.global_rank} and {first} in the first one"
        raise ValueError(f"{message}: set precision and compile in TrainConfig, or start all on machines of one kind")


def _plan_network(
    model: ModelConfig | NetworkBuilder, shape: NetworkShape, config: TrainConfig, fabric: Fabric
) -> nn.Module:
    """Return the network before the data are read: without weights in memory, or, of another kind, one to try."""
    if isinstance(model, ModelConfig):
        with torch.device("meta"):  # allocates nothing
            return tensors.build_network(model, shape)
    # the code of a user may not work on the meta device
    with _seeded(config, fabric):
        network = tensors.build_network(model, shape)
    if config.activation_checkpointing and not hasattr(network, "activation_checkpointing"):
        message = f"activation_checkpointing=True would be ignored by {type(network).__name__}, which has no attribute"
        raise ValueError(f"{message} of that name: leave it out")
    return network


@contextmanager
def _seeded(config: TrainConfig, fabric: Fabric) -> Iterator[None]:
    """Seed the random numbers of torch, and leave those of the caller as they were."""
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        yield


def _resolve_defaults(config: TrainConfig, accelerator: str, start_from: Forecaster | None) -> TrainConfig:
    """Return the settings with values in place of "auto" and of None."""
    config = _resolve_precision(config, accelerator)
    compile = config.strategy == "ddp" and tensors.choose_compile(config.compile, accelerator)
    decay = WEIGHT_DECAY[config.optimizer] if config.weight_decay is None else config.weight_decay
    share = config.crps_share
    if config.loss == "crps" and share is None:
        share = 0.5 if start_from is None else 1.0
    return dataclasses.replace(config, compile=compile, weight_decay=decay, crps_share=share)


def _resolve_precision(config: TrainConfig, accelerator: str) -> TrainConfig:
    """Return the settings with the precision that "auto" stands for on this device."""
    if config.precision == "16-mixed" and accelerator != "cuda":
        raise ValueError(f"precision='16-mixed' needs a CUDA GPU, the device is {accelerator!r}: take 'bf16-mixed'")
    if config.precision != "auto":
        return config
    # older GPUs emulate bfloat16, slowly
    on_cuda = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    bfloat16 = on_cuda or (accelerator == "cpu" and _cpu_has_bfloat16())
    return dataclasses.replace(config, precision="bf16-mixed" if bfloat16 else "32-true")


def _cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 numbers in hardware; without, float32 is faster."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return not _BFLOAT16_FLAGS.isdisjoint(flags)
