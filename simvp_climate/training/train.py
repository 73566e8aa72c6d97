"""Training: one visible loop on Lightning Fabric.

Shape suffixes: B window of a batch, T time, C channel, H latitude.
"""

import ctypes
import dataclasses
import json
import math
import os
import platform
import subprocess
import time
import warnings
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
import xarray as xr
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from torch import Tensor, nn

from simvp_climate.data import reader
from simvp_climate.data.grid import closes_longitude, latitude_weights, reaches_poles
from simvp_climate.data.progress import tqdm
from simvp_climate.forecasting.forecaster import Forecaster, choose_device
from simvp_climate.networks.memory import activation_bytes
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer, check_transforms, check_units, check_varies, transforms_of
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, datasets, distributed, loader, signals, transfer
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.loss import Loss

_LOOK = 10  # batches between two looks at the loss, for each of which the host waits for the GPU
_TOGETHER = 1.0  # seconds after which several processes ask each other at least whether to stop
_LOG = 50  # steps between two lines of a logger
_EXPLODES = 1000  # times the usual loss
_RECOMPUTE = "activations are computed again instead of kept: about half the memory; this run may go on with it"


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
        _check_size(model, task, channels, fabric)
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
            provenance = _describe(task, model, config, normalizer, train_part, valid_part, fabric)
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
                history = _fit(fabric, network, task, config, loss_of, train_part, valid_part, run, stop)
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
                raise MemoryError(_less_memory(config, error)) from error
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


def _fit(
    fabric: Fabric,
    network: SimVPv2,
    task: Task,
    config: TrainConfig,
    loss_of: Loss,
    train_part: datasets.Split,
    valid_part: datasets.Split | None,
    run: checkpoint.Run,
    stop: signals.Stop,
) -> list[dict]:
    """Train the network in place, leave the kept weights in it, and return the history: a row for each epoch."""
    stream = train_part.stream(config, fabric)
    windows = int(np.max(stream.sizes, initial=1))
    _check_memory(network, config, windows, config.leads(task), loss_of.area_CHW.shape[-2:], fabric)
    if fabric.device.type == "cpu":
        _keep_memory()
    network.to(memory_format=torch.channels_last)
    network.activation_checkpointing = config.activation_checkpointing
    network = distributed.prepare(network, fabric)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    # all weights in one pass; gradients that are scaled for fp16 it would not let be clipped
    fused = fabric.device.type in ("cpu", "cuda") and config.precision != "16-mixed"
    optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    wrapped, optimizer = fabric.setup(network, optimizer)
    scaler, device = fabric.strategy.precision, fabric.device
    valid_stream = None if valid_part is None else valid_part.stream(config, fabric, shuffle=False)
    sizes = distributed.total(fabric, torch.tensor(stream.sizes, dtype=torch.float64, device=device)).cpu().numpy()
    alone = fabric.world_size == 1

    steps = -(-len(stream) // config.accumulate_grad_batches)  # of an epoch
    total = steps * config.epochs
    if config.accumulate_grad_batches > len(stream):
        raise ValueError(
            f"accumulate_grad_batches={config.accumulate_grad_batches} batches make a step, and an epoch has "
            f"{len(stream)} (of {stream.count} windows, batch_size={config.batch_size}): take at most {len(stream)}"
        )
    most_leads = config.leads(task)
    longer_from = total if config.rollout == 1 else total - max(1, round(config.rollout_share * total))

    versions = {name: version(name) for name in ("simvp-climate", "torch")}
    average, kept, best = _copy(network), _copy(network), math.inf
    history, speeds, losses = [], [], _Losses(fabric, stream.sizes / sizes)
    if saved := fabric.broadcast(checkpoint.resume(run)):
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        scaler.load_state_dict(saved["scaler"])
        average, kept = ({n: v.to(device) for n, v in saved[name].items()} for name in ("average", "kept"))
        history, speeds, best, losses.known = (saved[name] for name in ("history", "speeds", "best", "losses"))
        losses.usual.extend(saved.get("usual", ()))
        losses.leads = saved.get("leads", 0)
        if begun := {n: v for n, v in saved.get("versions", {}).items() if v != versions.get(n)}:
            words = ", ".join(f"{name} {then} (now {versions.get(name)})" for name, then in sorted(begun.items()))
            warnings.warn(
                f"the run in {str(run.directory)!r} was saved by {words}: it goes on, and may end with other digits "
                "than it would have with these",
                stacklevel=3,
            )
    saved_at = time.monotonic()

    def check_weights() -> None:
        if not torch.nn.utils.get_total_norm([value for value in average.values() if value.dim()]).isfinite():
            raise FloatingPointError(f"the weights are no longer finite {where}{_hint(config, run)}")

    def save() -> None:
        """Keep the state of the run between two steps."""
        check_weights()
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
        state |= {"average": average, "kept": kept, "best": best}
        state |= {"history": history, "speeds": speeds, "losses": losses.known}
        state |= {"usual": list(losses.usual), "leads": losses.leads}  # what an explosion is measured by
        state |= {"versions": versions}
        checkpoint.save(run, [train_part.plan, None if valid_part is None else valid_part.plan], state)

    def leave() -> None:
        """End the process, or this call, as the signal asks that came."""
        words = "nothing was saved: give train a directory"
        if run.directory is not None:
            words = f"saved in {str(run.directory)!r}. Run the same again to go on"
        elif not fabric.is_global_zero:
            words = "the first process of the run says what was saved"
        stop.leave(f"{where}, {words}")

    stop.patient = True  # from here on every step looks whether it is to be the last
    done = len(history) * stream.count + int(sizes[: len(losses.known)].sum())
    shown = config.progress and fabric.is_global_zero
    bar = tqdm(total=stream.count * config.epochs, initial=done, unit="windows", disable=not shown)
    look_every, looked_at = _LOOK if alone else 1, time.monotonic()
    with bar:
        for epoch in range(len(history), config.epochs):
            if _is_stale(history, config.patience, 0 if config.rollout == 1 else longer_from // steps):
                break
            network.train()
            train_part.check_unchanged()
            began, first = time.monotonic(), len(losses.known)
            for number, batch in enumerate(stream.epoch(epoch, first), start=first):
                step, part = (
                    epoch * steps + number // config.accumulate_grad_batches,
                    number % config.accumulate_grad_batches,
                )
                if part == 0:
                    # random numbers are a function of the step: a resumed run draws the same
                    torch.manual_seed((config.seed * 1_000_003 + step + 1) * fabric.world_size + fabric.global_rank)
                    _set_schedule(optimizer, config, step, total)
                    leads = task.horizon if step < longer_from else most_leads
                    windows = sizes[number : number + config.accumulate_grad_batches].sum()
                    optimizer.zero_grad()
                more = part + 1 < config.accumulate_grad_batches and number + 1 < len(stream)
                with fabric.no_backward_sync(wrapped, enabled=more):
                    loss = loss_of(wrapped, batch, train_part.inits, leads)
                    # gradients are averaged over the processes
                    fabric.backward(loss * (len(batch.windows) * fabric.world_size / windows))
                losses.add(loss, leads, settled=step >= config.warmup * total)
                bar.update(int(sizes[number]))
                if more:
                    continue
                if config.gradient_clip is not None:
                    fabric.clip_gradients(wrapped, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
                optimizer.step()
                _update_average(average, network, config.ema_decay, step)

                where = f"in epoch {epoch + 1} of {config.epochs}, after step {step % steps + 1} of {steps}"
                due = run.directory is not None and time.monotonic() - saved_at >= 60 * config.save_minutes
                stopping = stop.asked is not None  # once: a signal may come at any moment
                logs = bool(fabric.loggers) and (step + 1) % _LOG == 0
                looks = logs or len(losses.fresh) >= look_every or number + 1 == len(stream)
                if alone:
                    looks |= due or stopping
                elif looks:  # all at the same steps, where one's wish to stop is that of all
                    seconds = (time.monotonic() - looked_at) / len(losses.fresh)
                    asked = torch.tensor([float(stopping), seconds / fabric.world_size], device=device)
                    stopping, seconds = (float(value) for value in distributed.total(fabric, asked))
                    stopping, looked_at = bool(stopping), time.monotonic()
                    look_every = max(1, min(_LOOK, int(_TOGETHER / max(seconds, 1e-9))))
                if looks:
                    if (bad := losses.look()) is not None:
                        value, at = bad
                        words = _windows(train_part.inits[stream.windows_of(epoch, at)])
                        raise FloatingPointError(f"the loss became {value:.4g} {where}, {words}{_hint(config, run)}")
                    bar.set_postfix_str(_progress(losses.known[-1], history, loss_of))
                if logs:
                    fabric.log_dict({"running_loss": losses.known[-1]}, step=step + 1)
                if looks and (due or stopping):
                    save()
                    saved_at = time.monotonic()
                if looks and stopping:
                    leave()
            seconds, trained = time.monotonic() - began, int(sizes[first:].sum())
            train_part.check_unchanged()  # what was read since the last look
            where = f"in epoch {epoch + 1} of {config.epochs}, after step {steps} of {steps}"
            record = {"epoch": epoch + 1, "loss": float(np.average(losses.known, weights=sizes))}
            record["learning_rate"] = optimizer.param_groups[0]["lr"]
            check_weights()  # else it would seem to be the validation data
            if valid_part is None:
                kept = average
            else:
                found = _validate(
                    fabric, wrapped, network, average, loss_of, valid_stream, valid_part, most_leads, stop
                )
                if distributed.any_of(fabric, stop.asked is not None):
                    save()
                    leave()
                record |= found
                if not math.isfinite(record["valid_loss"]):
                    raise FloatingPointError(
                        f"the loss on valid is {record['valid_loss']} in epoch {epoch + 1}: are its values in the "
                        "units and range of the training data?"
                    )
                if record["valid_loss"] < best:
                    best, kept = record["valid_loss"], {name: value.clone() for name, value in average.items()}
            history.append(record)
            speeds.append(trained / max(seconds, 1e-9))
            losses.known = []
            where = f"after epoch {epoch + 1} of {config.epochs}"
            save()
            saved_at = time.monotonic()
            checkpoint.write_history(run, history, {"windows_per_second": speeds})
            fabric.log_dict({**record, "windows_per_second": speeds[-1]}, step=(epoch + 1) * steps)
            if distributed.any_of(fabric, stop.asked is not None):
                leave()
    checkpoint.write_history(run, history, {"windows_per_second": speeds})
    for one in fabric.loggers:
        one.finalize("success")
    network.load_state_dict(kept)
    return history


class _Losses:
    """The losses of the batches of an epoch: `known` on the host, `fresh` ones on the device, not looked at yet."""

    def __init__(self, fabric: Fabric, shares: np.ndarray):
        self.fabric, self.shares = fabric, shares  # of each batch of an epoch, that this process has
        self.known: list[float] = []
        self.fresh: list[Tensor] = []
        self.settled: list[bool] = []  # of the fresh ones: whether they say what is usual
        self.usual: deque[float] = deque(maxlen=100)
        self.leads = 0

    def add(self, loss: Tensor, leads: int, settled: bool) -> None:
        """Add the loss of a batch over some leads; what is usual is learned once it is `settled`."""
        if leads != self.leads:
            self.usual.clear()
            self.leads = leads
        self.fresh.append(loss.detach())
        self.settled.append(settled)

    def look(self) -> tuple[float, int] | None:
        """Bring the losses to the host; return value and number of the first that is no number, or explodes."""
        most = _EXPLODES * np.median(self.usual) if len(self.usual) >= 20 else math.inf
        fresh = torch.stack(self.fresh)
        if self.fabric.world_size > 1:
            first = len(self.known)
            shares = self.shares[first : first + len(fresh)]
            fresh = distributed.total(self.fabric, fresh * torch.as_tensor(shares, dtype=fresh.dtype).to(fresh.device))
        for value, settled in zip(fresh.tolist(), self.settled, strict=True):
            self.known.append(value)
            if not math.isfinite(value) or value > most:
                return value, len(self.known) - 1
            if settled:
                self.usual.append(value)
        self.fresh, self.settled = [], []
        return None


@torch.no_grad()
def _validate(
    fabric: Fabric,
    wrapped: nn.Module,
    network: SimVPv2,
    weights: dict[str, Tensor],
    loss_of: Loss,
    stream: loader.WindowStream,
    part: datasets.Split,
    leads: int,
    stop: signals.Stop,
) -> dict[str, float]:
    """Return loss and errors of some weights over the validation windows; unfinished if the run is to stop."""
    part.check_unchanged()
    current = _copy(network)
    network.load_state_dict(weights)
    network.eval()
    total, squares = 0.0, 0.0
    for batch in stream.epoch(0):
        forecast_BTCHW, truth_BTCHW = loss_of.forecast(wrapped, batch, part.inits, leads)
        total += len(batch.windows) * float(loss_of.error(forecast_BTCHW, truth_BTCHW))
        squares = squares + loss_of.squares(forecast_BTCHW, batch).double().cpu().numpy()
        if stop.asked:
            break
    network.load_state_dict(current)
    sums = distributed.total(fabric, torch.tensor([total, *squares.flat], dtype=torch.float64, device=fabric.device))
    total, *squares = (sums / stream.count).tolist()
    rmse = np.sqrt(squares).reshape(-1, len(loss_of.units))
    names = {name: float(rmse[lead, channel]) for (lead, channel), name in loss_of.columns.items()}
    return {"valid_loss": total, **names}


def _is_stale(history: list[dict], patience: int | None, first: int) -> bool:
    """Say whether as many epochs as `patience` have passed since the best one, of those from number `first` on."""
    if patience is None or len(history) <= first:
        return False
    best = int(np.argmin([record["valid_loss"] for record in history]))
    return len(history) - 1 - max(best, first - 1) >= patience


def _set_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int) -> None:
    """Set the learning rate of a step, and for "one-cycle" the first beta."""
    rate, beta = (_cosine(step, total, config.warmup), 0.9)
    if config.schedule == "one-cycle":
        rate, beta = _one_cycle(step, total, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * rate
        group["betas"] = (beta, group["betas"][1])


def _cosine(step: int, total: int, warmup: float) -> float:
    """Return the learning rate as a share of its peak: linear up, half a cosine down."""
    up = max(1, round(warmup * total))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, total - up)))


def _one_cycle(step: int, total: int, warmup: float) -> tuple[float, float]:
    """Return the learning rate as a share of its peak, and the first beta, as `torch.optim.lr_scheduler.OneCycleLR`."""
    up = max(0.0, warmup * total - 1)
    if step < up:
        done, (rate, beta), (last_rate, last_beta) = step / up, (1 / 25, 0.95), (1, 0.85)
    else:
        done = (step - up) / max(1, total - 1 - up)
        (rate, beta), (last_rate, last_beta) = (1, 0.85), (1 / 25 / 1e4, 0.95)
    left = 0.5 * (1 + math.cos(math.pi * done))
    return last_rate + (rate - last_rate) * left, last_beta + (beta - last_beta) * left


def _keep_memory() -> None:
    """Let the C library keep what is freed: it would ask the system for every large array anew at every step.

    Steps take 0.7 to 0.9 of the time, for a few percent more memory, which stays with the process. On glibc alone.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for setting in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            library.mallopt(setting, 2**31 - 1)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def _update_average(average: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move the running average towards the weights; over the first steps it is a plain mean."""
    share = 1 - min(decay, (step + 1) / (step + 10))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, share)
        else:
            average[name].copy_(value)


def _progress(loss: float, history: list[dict], loss_of: Loss) -> str:
    """Return what the progress bar says: the loss, and the last validation error of a few channels."""
    words = [f"loss {loss:.4g}"]
    if history and "valid_loss" in history[-1]:
        last = max(lead for lead, _ in loss_of.columns)
        for channel, units in enumerate(loss_of.units[:3]):
            name = loss_of.columns[last, channel]
            words.append(
                f"{name.removeprefix('valid_rmse_').replace('_', ' ')} {history[-1][name]:.4g} {units}".strip()
            )
    return ", ".join(words)


def _windows(inits: pd.Index) -> str:
    """Return the initialization times of a batch in words."""
    some = ", ".join(str(time) for time in inits[:4])
    return f"in the windows initialized at {some}" + (f" and {len(inits) - 4} more" if len(inits) > 4 else "")


def _hint(config: TrainConfig, run: checkpoint.Run) -> str:
    """Return what helps against numbers that explode."""
    words = f": lower TrainConfig.learning_rate (now {config.learning_rate:g})"
    words += f" or gradient_clip (now {config.gradient_clip})"
    if config.precision != "32-true":
        words += f", or take precision='32-true' (now {config.precision!r})"
    words += "; if it is always the same windows, look at their values: sc.check(ds)"
    return words + ("" if run.directory is None else f". The state in {str(run.directory)!r} is the last good one")


def _free_memory(fabric: Fabric) -> float:
    """Return the bytes that this process can have where it trains."""
    if fabric.device.type == "cuda":
        unused = torch.cuda.memory_reserved(fabric.device) - torch.cuda.memory_allocated(fabric.device)
        return torch.cuda.mem_get_info(fabric.device)[0] + unused  # what torch holds and hands out again
    found, (world, machines) = reader.free_memory(), distributed.count()
    return math.inf if found is None else found * machines // world


def _check_size(model: SimVPv2Config, task: Task, channels: tuple[reader.Channel, ...], fabric: Fabric) -> None:
    """Raise MemoryError if the weights do not fit into what is free."""
    with torch.device("meta"):
        count = sum(value.numel() for value in tensors.build_network(model, task, channels).parameters())
    # with their gradients, the two moments of Adam, and their average and the best of it
    needed, free = 6 * 4 * count, _free_memory(fabric)
    if needed > free:
        raise MemoryError(
            f"the network has {count:.3g} weights, which take {needed / 2**30:.3g} GiB with all that goes with them in "
            f"training, and {free / 2**30:.3g} GiB are free: take a smaller SimVPv2Config (now {model})"
        )


def _check_memory(
    network: SimVPv2, config: TrainConfig, windows: int, leads: int, grid: tuple[int, int], fabric: Fabric
) -> None:
    """Raise MemoryError, naming a batch that fits, if what a step of so many windows keeps does not fit."""
    if config.activation_checkpointing:
        return
    free = _free_memory(fabric)
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


def _less_memory(config: TrainConfig, error: Exception) -> str:
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


def _describe(
    task: Task,
    model: SimVPv2Config,
    config: TrainConfig,
    normalizer: Normalizer,
    train_part: datasets.Split,
    valid_part: datasets.Split | None,
    fabric: Fabric,
) -> dict:
    """Return the provenance of a training run, as plain values."""
    packages = ("simvp-climate", "torch", "lightning-fabric", "numpy", "xarray", "pandas", "zarr", "safetensors")
    device = fabric.device
    unseen = "none: the weights of the last epoch were kept"
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in packages},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "processes": fabric.world_size,
        # lists, as a file gives them back
        "task": json.loads(json.dumps(dataclasses.asdict(task))),
        "model": dataclasses.asdict(model),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": train_part.period,
        "training_sha256": train_part.statistics.digest,
        "validation": unseen if valid_part is None else valid_part.period,
    }


def _commit() -> str | None:
    """Return the git commit of this package with "-dirty" for changes since, or None where it is not in git."""
    folder = Path(__file__).parent
    try:
        # a package installed below somebody's repository is not a part of it
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, check=True, capture_output=True)
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
