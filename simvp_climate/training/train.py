"""Training: resolve the settings, read the data, fit the network, return the forecaster.

Shape suffixes: C channel, H latitude.
"""

import dataclasses
import os
from collections.abc import Sequence

import safetensors
import torch
import xarray as xr
from lightning_fabric.loggers import Logger

from simvp_climate.data import reader
from simvp_climate.data.grid import closes_longitude, latitude_weights, reaches_poles
from simvp_climate.forecasting.forecaster import Forecaster, choose_device
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer, check_transforms, check_units, check_varies, transforms_of
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, datasets, distributed, loop, memory, signals, transfer
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.loss import Loss
from simvp_climate.training.provenance import describe_run


def train(
    task: Task,
    dataset: xr.Dataset | Sequence[xr.Dataset],
    *,
    valid: xr.Dataset | Sequence[xr.Dataset] | None,
    model: SimVPv2Config | None = None,
    config: TrainConfig | None = None,
    directory: str | os.PathLike | None = None,
    start_from: Forecaster | None = None,
    logger: Logger | None = None,
    device: str = "auto",
) -> Forecaster:
    """Train a SimVPv2 on a dataset and return the forecaster.

    In one process, or in all those that torchrun or SLURM's srun started (one for each GPU, or on CPUs): each has a
    part of every batch, batch norms see the whole one, and all return the same forecaster. What writes or draws after
    it stands under `if sc.is_first_process():`. Only the first process saves.

    The loss is the area-weighted squared error, each channel and lead in units of its typical change, unless
    `config` says otherwise.

    Parameters
    ----------
    task
        What to forecast.
    dataset
        The training years, in any lat-lon convention; or a list of series (ensemble members, climate
        models), or with a dimension of members. No window crosses a gap in time or from one series to the next.
        Normalization comes from here alone. Cells that never have a value (sea surface temperature on land) are
        masked by themselves.
    valid
        The validation period, of which no time may lie within a training window: the weights of the best epoch
        on it are kept. `None` must be said: then those of the last epoch are kept. In both cases the weights are
        their running average, see `TrainConfig.average`.
    model
        Size and kind of the network; by default `SimVPv2Config()`, or that of `start_from`.
    config
        How to train; by default `TrainConfig()`.
    directory
        Where to keep the state of the run: after every epoch, every `TrainConfig.save_minutes`, and when it is
        stopped. Called again with the same arguments, a run that was stopped or killed at any moment goes on where the
        state was saved, and ends as if it had not been (on a CPU with the same threads to the last bit); with others
        it is refused. One process at a time. `history.csv` there has a row for each epoch, the result is
        `forecaster.safetensors`.
    start_from
        A forecaster to fine-tune: its network and weights are the start. Of the same task, on the same grid and in the
        same units also its statistics, mask and fields without time are kept. The task may have other variables,
        levels or forcings, and the data another grid: then `TrainConfig.statistics` says whose statistics hold. Inputs
        and outputs are known by name and level: those that it has keep their weights, new ones start fresh, and a
        sentence says which are which.
    logger
        Any logger of Lightning Fabric (`lightning_fabric.loggers`): gets the columns of the history after every epoch,
        and `running_loss` every 50 steps. A run that is resumed may log the steps after the saved state again.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", "mps".

    Returns
    -------
    Forecaster
        Ready to call, on the device it was trained on. `provenance["epochs"]` is the history: for each epoch `epoch`
        (from 1), `loss` (mean over its windows), `learning_rate` (of its last step), and with `valid` the mean loss
        `valid_loss` and the root mean squared errors at the first and the last lead of the task, area-weighted, over
        all validation windows, in the units of the variable (`valid_rmse_z500_6h`, `valid_rmse_geopotential_500_24h`).

    Raises
    ------
    ValueError
        Before any training: for data that do not fit the task, missing values inside a window, a constant
        field, training and validation periods that overlap, different grids or units, a directory that holds
        another run. During it, if the store changes.
    FileExistsError
        If the directory holds files of the names that a run writes, and no state of one.
    MemoryError
        If not even a stream through the windows fits into the memory that is free, or a step does not: the message
        says which batch would fit, and what else takes less.
    OSError
        If the data cannot be read; the message names variable and times. If the state cannot be written (a full disk,
        a folder that vanished); the state saved before is as it was.
    RuntimeError
        If another process trains in the directory.
    FloatingPointError
        During training, if the loss is no longer finite or explodes: beyond 1000 times the median of the last 100
        batches of the same number of leads, once the learning rate is up. The message names the windows; the state in
        the directory is the last good one.
    SystemExit
        With status 75 (EX_TEMPFAIL, "try again later") after SIGTERM or SIGUSR1, which schedulers send: the step is
        finished and the state saved first. Run the same again to go on.
    KeyboardInterrupt
        After Ctrl-C, likewise; a second one does not wait.
    """
    config = config or TrainConfig()
    for name, value, kind, words in (
        ("task", task, Task, "Task(...)"),
        ("model", model or SimVPv2Config(), SimVPv2Config, "SimVPv2Config(...)"),
        ("config", config, TrainConfig, "TrainConfig(...)"),
        ("start_from", start_from, Forecaster | None, "Forecaster, Forecaster.load(path)"),
        ("logger", logger, Logger | None, "logger of lightning_fabric.loggers"),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} is a {type(value).__name__}: give a {words}")
    if config.patience is not None and valid is None:
        raise ValueError(f"patience={config.patience} waits for a better validation loss, and valid=None: give valid")
    if config.validation_windows != TrainConfig.validation_windows and valid is None:
        raise ValueError(
            f"validation_windows={config.validation_windows} would be ignored, as valid=None: give valid, or leave "
            "it out"
        )
    if config.save_minutes != TrainConfig.save_minutes and directory is None:
        raise ValueError(
            f"save_minutes={config.save_minutes:g} would be ignored without a directory: give one, or leave it out"
        )
    if config.statistics != "auto" and start_from is None:
        raise ValueError(f"statistics={config.statistics!r} is about those of start_from: give it, or leave this out")
    model = transfer.choose_model(model, start_from)
    leads = config.leads(task)
    accelerator = choose_device(device)
    if config.precision == "16-mixed" and accelerator != "cuda":
        raise ValueError(f"precision='16-mixed' needs a CUDA GPU, the device is {accelerator!r}: take 'bf16-mixed'")
    if config.precision == "auto":
        gpu = accelerator == "cuda" and torch.cuda.is_bf16_supported()
        config = dataclasses.replace(config, precision="bf16-mixed" if gpu else "32-true")
    fabric = distributed.start(accelerator, config.precision, logger)
    if config.batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size={config.batch_size} is that of all {fabric.world_size} processes together: take a multiple "
            f"of {fabric.world_size}"
        )
    own_directory = directory if fabric.is_global_zero else None  # the other processes save nothing
    with checkpoint.hold(own_directory) as run_directory, signals.watch() as stop:
        training = datasets.open_series(task, dataset, "dataset")
        validation = None if valid is None else datasets.open_series(task, valid, "valid")
        datasets.check_alike(training + (validation or []))
        datasets.check_labels(training)
        datasets.check_no_overlap(task, leads, training, validation or [])
        grid, known = training[0], {}
        if start_from is not None:
            statistics = transfer.choose_statistics(start_from, task, grid, config.statistics)
            config = dataclasses.replace(config, statistics=statistics)
            model = transfer.choose_padding(model, start_from, grid)
            known = transfer.known_statics(start_from, statistics)
        statics = datasets.read_statics(task, dataset, grid, known)
        model = _resolve_padding(model, grid)

        weights_H = latitude_weights(grid["latitude"]).values
        channels = reader.channels(grid)
        memory.check_size(model, task, channels, fabric)
        units = tuple(grid[channel.variable].attrs.get("units", "") for channel in channels)
        log_scale, bounds = transforms_of(channels, units, task.transforms)
        plans = fabric.broadcast(checkpoint.plans(run_directory)) or (None, None)
        # of the memory, for the training period; processes on one machine share it
        share = (1.0 if validation is None else 0.75) * distributed.count()[1] / fabric.world_size
        train_part = datasets.read_split(
            task, training, "dataset", weights_H, log_scale, config, plans[0], share, fabric
        )
        valid_part = None
        if validation is not None:
            valid_part = datasets.read_split(
                task, validation, "valid", weights_H, log_scale, config, plans[1], share / 3, fabric
            )
        found = train_part.statistics
        normalizer = Normalizer(channels, units, found.mean, found.std, found.change_std, found.mask, log_scale, bounds)
        if config.statistics == "inherit":
            normalizer = transfer.take_statistics(start_from, normalizer, found)
            datasets.check_same_data(normalizer, train_part, "dataset")
        else:
            check_units(found, channels, units, log_scale)
            check_varies(found, channels)
            check_transforms(found, channels, units, log_scale, bounds)
        if valid_part is not None:
            datasets.check_same_data(normalizer, valid_part, "valid")

        # a seed of our own, without touching the random numbers of whoever called
        with torch.random.fork_rng(devices=[fabric.device] if accelerator == "cuda" else []):
            torch.manual_seed(config.seed)
            latitude, longitude = grid["latitude"].values, grid["longitude"].values
            forcings = tensors.Forcings(task, latitude, longitude, statics, weights_H, fabric.device)
            network = tensors.build_network(model, task, channels)
            scale_TC = torch.from_numpy(normalizer.change_std / normalizer.std)
            network.change_scale_TC.copy_(scale_TC[:, : network.shared_channels])
            provenance = describe_run(task, model, config, normalizer, train_part, valid_part, fabric)
            if start_from is not None:
                taken = transfer.take_weights(network, start_from, task, channels)
                if taken["new"] or taken["left_out"] or config.statistics == "compute":
                    fabric.print(transfer.say(taken, config.statistics))
                parent = {name: value for name, value in start_from.provenance.items() if name != "epochs"}
                provenance["start_from"] = {**taken, "provenance": parent}
            run = checkpoint.Run(run_directory, "")
            if run_directory is not None:
                parts = [train_part] if valid_part is None else [train_part, valid_part]
                arrays = [latitude, longitude, statics]
                arrays += [positions for part in parts for positions in part.windows]
                digests = [part.statistics.digest for part in parts]
                streamed = any(part.plan.tier == "stream" for part in parts)
                run = checkpoint.Run(run_directory, checkpoint.fingerprint(provenance, digests, arrays, streamed))
            loss_of = Loss(config, task, normalizer, weights_H, forcings, fabric.device)
            try:
                history = loop.fit(fabric, network, task, config, loss_of, train_part, valid_part, run, stop)
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
                raise MemoryError(memory.less_memory(config, error)) from error
        forecaster = Forecaster(
            task=task,
            network=network.eval(),
            normalizer=normalizer,
            latitude=latitude,
            longitude=longitude,
            statics=statics,
            provenance={**provenance, "epochs": history},
        )
        if run.directory is not None:
            try:
                forecaster.save(run.directory / checkpoint.RESULT)
            except (OSError, safetensors.SafetensorError) as error:
                raise checkpoint.explain(run.directory, error) from error
        return forecaster


def _resolve_padding(model: SimVPv2Config, grid: xr.Dataset) -> SimVPv2Config:
    """Return the network with a padding that is said, and that the grid has.

    Raises
    ------
    ValueError
        If the grid does not go on where the padding says that it does.
    """
    latitude, longitude = grid["latitude"].values, grid["longitude"].values
    closes, poles = closes_longitude(longitude), reaches_poles(latitude)
    if model.padding == "auto":
        return dataclasses.replace(model, padding="periodic" if closes else "zeros")
    if model.padding != "zeros" and not closes:
        raise ValueError(
            f"padding={model.padding!r} is for longitudes that go round the globe, and these are the {longitude.size} "
            f"from {longitude[0]:g} to {longitude[-1]:g}: take padding='zeros' or 'auto'"
        )
    if model.padding.startswith("sphere") and poles == "no":
        raise ValueError(
            f"padding={model.padding!r} goes on across the poles, and the latitudes from {latitude[0]:g} to "
            f"{latitude[-1]:g} do not reach both: take padding='periodic' or 'auto'"
        )
    if model.padding == "sphere_with_poles" and poles != "rows":
        raise ValueError(
            f"padding='sphere_with_poles' is for rows on the poles, and the outermost rows are at {latitude[0]:g} and "
            f"{latitude[-1]:g}: take padding='sphere'"
        )
    if model.padding == "sphere" and poles == "rows":
        return dataclasses.replace(model, padding="sphere_with_poles")
    return model
