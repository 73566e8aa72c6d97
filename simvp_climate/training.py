"""Training: one visible loop on Lightning Fabric.

Shape suffixes: B window of a batch, T time, C channel, H latitude, W longitude; N time of the whole series.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from simvp_climate import checkpoint, loader, periods, transfer
from simvp_climate.data import reader
from simvp_climate.data.normalizer import (
    Normalizer,
    check_transforms,
    check_units,
    check_varies,
    transforms_of,
)
from simvp_climate.forecaster import Forecaster, choose_device
from simvp_climate.grid import closes_longitude, latitude_weights
from simvp_climate.loss import Loss
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.settings import TrainConfig
from simvp_climate.task import Task

_RESULT = "forecaster.safetensors"


def train(
    task: Task,
    dataset: xr.Dataset | Sequence[xr.Dataset],
    *,
    valid: xr.Dataset | Sequence[xr.Dataset] | None,
    model: SimVPv2Config | None = None,
    config: TrainConfig | None = None,
    directory: str | os.PathLike | None = None,
    start_from: Forecaster | None = None,
    device: str = "auto",
) -> Forecaster:
    """Train a SimVPv2 on a dataset and return the forecaster.

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
        Where to keep the state after every epoch. Called again with the same arguments, a stopped run goes
        on where it stopped; with others it is refused. The result lies there as `forecaster.safetensors`.
    start_from
        A forecaster to fine-tune: its weights and network are the start, and its statistics, mask and fields
        without time are kept.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", "mps".

    Returns
    -------
    Forecaster
        Ready to call, on the device it was trained on.

    Raises
    ------
    ValueError
        Before any training: for data that do not fit the task, missing values inside a window, a constant
        field, training and validation periods that overlap, different grids or units, a directory that holds
        another run. During it, if the store changes.
    FileExistsError
        If the directory holds something else than a run.
    MemoryError
        If not even a stream through the windows fits into the memory that is free.
    OSError
        If the data cannot be read; the message names variable and times.
    FloatingPointError
        During training, if the loss is no longer finite.
    """
    config = config or TrainConfig()
    for name, value, kind in (
        ("task", task, Task),
        ("model", model or SimVPv2Config(), SimVPv2Config),
        ("config", config, TrainConfig),
        ("start_from", start_from, Forecaster | None),
    ):
        if not isinstance(value, kind):
            wanted = "Forecaster, Forecaster.load(path)" if name == "start_from" else f"{kind.__name__}(...)"
            raise ValueError(f"{name} is a {type(value).__name__}: give a {wanted}")
    if config.patience is not None and valid is None:
        raise ValueError(f"patience={config.patience} waits for a better validation loss, and valid=None: give valid")
    model = transfer.choose_model(model, start_from)
    leads = config.leads(task)
    accelerator = choose_device(device)
    if config.precision == "16-mixed" and accelerator != "cuda":
        raise ValueError(f"precision='16-mixed' needs a CUDA GPU, the device is {accelerator!r}: take 'bf16-mixed'")
    _refuse_many_processes()
    run_directory = None if directory is None else checkpoint.claim(directory)
    training = periods.open_series(task, dataset, "dataset")
    validation = None if valid is None else periods.open_series(task, valid, "valid")
    periods.check_alike(training + (validation or []))
    periods.check_labels(training)
    periods.check_no_overlap(task, leads, training, validation or [])
    statics = periods.read_statics(task, dataset, training[0]) if start_from is None else start_from.statics
    grid = training[0]
    if model.padding == "auto":
        padding = "periodic" if closes_longitude(grid["longitude"].values) else "zeros"
        model = dataclasses.replace(model, padding=padding)

    weights_H = latitude_weights(grid["latitude"]).values
    units = tuple(grid[channel.variable].attrs.get("units", "") for channel in reader.channels(grid))
    log_scale, bounds = transforms_of(reader.channels(grid), units, task.transforms)
    plans = checkpoint.plans(run_directory)
    share = 1.0 if validation is None else 0.75  # of the memory, for the training period
    train_part = periods.read(task, training, "dataset", weights_H, log_scale, config, plans and plans[0], share)
    valid_part = None
    if validation is not None:
        valid_part = periods.read(
            task, validation, "valid", weights_H, log_scale, config, plans and plans[1], 1 - share
        )
    if start_from is None:
        found = train_part.survey
        check_units(found, reader.channels(grid), units, log_scale)
        check_varies(found, reader.channels(grid))
        check_transforms(found, reader.channels(grid), units, log_scale, bounds)
        normalizer = Normalizer(
            reader.channels(grid), units, found.mean, found.std, found.change_std, found.mask, log_scale, bounds
        )
    else:
        normalizer = transfer.take_over(start_from, task, grid)
        periods.check_same_data(normalizer, train_part, "dataset")
    if valid_part is not None:
        periods.check_same_data(normalizer, valid_part, "valid")
    precision = config.precision
    if precision == "auto":
        gpu = accelerator == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16-mixed" if gpu else "32-true"
    config = dataclasses.replace(config, precision=precision)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)

    # a seed of our own, without touching the random numbers of whoever called
    with torch.random.fork_rng(devices=[fabric.device] if accelerator == "cuda" else []):
        torch.manual_seed(config.seed)
        latitude, longitude = grid["latitude"].values, grid["longitude"].values
        forcings = loader.Forcings(task, latitude, longitude, statics, weights_H, fabric.device)
        network = SimVPv2(model, history=task.history, channels=len(normalizer.channels), forcings=len(forcings))
        network.change_scale_TC.copy_(torch.from_numpy(normalizer.change_std / normalizer.std))
        if start_from is not None:
            network.load_state_dict(start_from.network.state_dict())
        provenance = _describe(task, model, config, normalizer, training, validation)
        run = checkpoint.Run(run_directory, "")
        if run_directory is not None:
            parts = [train_part] if valid_part is None else [train_part, valid_part]
            arrays = [latitude, longitude, statics]
            arrays += [positions for part in parts for positions in part.windows]
            if start_from is not None:
                arrays += [value.cpu().numpy() for value in start_from.network.state_dict().values()]
            digests = [part.survey.digest for part in parts]
            run = checkpoint.Run(run_directory, checkpoint.fingerprint(provenance, digests, arrays))
        history = _fit(fabric, network, task, config, normalizer, weights_H, forcings, train_part, valid_part, run)
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
        forecaster.save(run.directory / _RESULT)
    return forecaster


def _fit(
    fabric: Fabric,
    network: SimVPv2,
    task: Task,
    config: TrainConfig,
    normalizer: Normalizer,
    weights_H: np.ndarray,
    forcings: loader.Forcings,
    train_part: periods.Part,
    valid_part: periods.Part | None,
    run: checkpoint.Run,
) -> list[dict]:
    """Train the network in place, leave the kept weights in it, and return the losses per epoch."""
    network.to(memory_format=torch.channels_last)
    network.recompute = config.recompute
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    wrapped, optimizer = fabric.setup(network, optimizer)
    device = fabric.device
    loss_of = Loss(config, task, normalizer, weights_H, forcings, device)
    stream = loader.WindowStream(
        train_part.sources,
        train_part.windows,
        batch_size=config.batch_size,
        plan=train_part.plan,
        seed=config.seed,
        states=train_part.states,
        device=device,
    )
    valid_stream = None
    if valid_part is not None:
        valid_stream = loader.WindowStream(
            valid_part.sources,
            valid_part.windows,
            batch_size=config.batch_size,
            plan=valid_part.plan,
            shuffle=False,
            states=valid_part.states,
            device=device,
        )
    kept = _copy(network)
    plans = [train_part.plan, None if valid_part is None else valid_part.plan]

    steps = -(-len(stream) // config.accumulate)
    total = steps * config.epochs
    leads, most_leads = task.horizon, config.leads(task)
    longer_from = total if config.rollout == 1 else total - max(1, round(config.rollout_share * total))
    history, best, first = [], math.inf, 0
    if saved := checkpoint.resume(run):
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, kept = ({n: v.to(device) for n, v in saved[name].items()} for name in ("average", "kept"))
        history, best, first = saved["history"], saved["best"], len(saved["history"])
    else:
        average = _copy(network)

    bar = tqdm(
        total=stream.count * config.epochs,
        initial=first * stream.count,
        unit="windows",
        desc="training",
        disable=not config.progress,
        mininterval=1,
    )
    if _is_stale(history, config.patience):
        first = config.epochs
    for epoch in range(first, config.epochs):
        # a fresh stream per epoch: a resumed run draws the same numbers
        torch.manual_seed(config.seed * 1_000_003 + epoch + 1)
        network.train()
        train_part.check_unchanged()
        losses = []
        for number, batch in enumerate(stream.epoch(epoch)):
            step, part = epoch * steps + number // config.accumulate, number % config.accumulate
            if part == 0:
                leads = task.horizon if step < longer_from else most_leads
                _set_schedule(optimizer, config, step, total)
                optimizer.zero_grad()
                windows = stream.sizes[number : number + config.accumulate].sum()
            loss = loss_of(wrapped, batch, train_part.inits, leads)
            fabric.backward(loss * (len(batch.windows) / windows))
            losses.append(loss.detach())
            bar.update(len(batch.windows))
            if part + 1 < config.accumulate and number + 1 < len(stream):
                continue
            if config.gradient_clip is not None:
                fabric.clip_gradients(wrapped, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
            optimizer.step()
            _update_average(average, network, config.average, step)
            if step % 5 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
        train_part.check_unchanged()  # what was read since the last look
        record = {"loss": float(np.average(torch.stack(losses).tolist(), weights=stream.sizes))}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                f"the loss became {record['loss']} in epoch {epoch + 1}: lower TrainConfig.learning_rate "
                f"(now {config.learning_rate:g}) or TrainConfig.gradient_clip (now {config.gradient_clip})"
            )
        if valid_part is None:
            kept = average
        else:
            record["valid_loss"] = _validate(wrapped, network, average, loss_of, valid_stream, valid_part, most_leads)
            if not math.isfinite(record["valid_loss"]):
                raise FloatingPointError(
                    f"the loss on valid is {record['valid_loss']} in epoch {epoch + 1}: are its values in the units "
                    "and range of the training data?"
                )
            if record["valid_loss"] < best:
                best, kept = record["valid_loss"], {name: value.clone() for name, value in average.items()}
            bar.set_description(f"training, epoch {epoch + 1}, validation {record['valid_loss']:.4f}")
        history.append(record)
        checkpoint.save(run, network, optimizer, average, kept, history, best, plans)
        if _is_stale(history, config.patience):
            break
    bar.close()
    network.load_state_dict(kept)
    return history


@torch.no_grad()
def _validate(
    wrapped: nn.Module,
    network: SimVPv2,
    weights: dict[str, Tensor],
    loss_of: Loss,
    stream: loader.WindowStream,
    part: periods.Part,
    leads: int,
) -> float:
    """Return the loss of some weights over the validation windows."""
    part.check_unchanged()
    current = _copy(network)
    network.load_state_dict(weights)
    network.eval()
    total = 0.0
    for batch in stream.epoch(0):
        total += len(batch.windows) * float(loss_of(wrapped, batch, part.inits, leads))
    network.load_state_dict(current)
    return total / stream.count


def _is_stale(history: list[dict], patience: int | None) -> bool:
    """Say whether as many epochs as `patience` have passed since the best one."""
    losses = [record["valid_loss"] for record in history if "valid_loss" in record]
    return patience is not None and len(losses) - 1 - int(np.argmin(losses or [0])) >= patience


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


def _describe(
    task: Task,
    model: SimVPv2Config,
    config: TrainConfig,
    normalizer: Normalizer,
    training: list[xr.Dataset],
    validation: list[xr.Dataset] | None,
) -> dict:
    """Return the provenance of a training run, as plain values."""
    unseen = "none: the weights of the last epoch were kept"
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in ("simvp-climate", "torch", "xarray", "numpy")},
        "task": json.loads(json.dumps(dataclasses.asdict(task))),  # lists, as a file gives them back
        "model": dataclasses.asdict(model),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": periods.describe(training),
        "validation": "none: the weights of the last epoch were kept"
        if validation is None
        else periods.describe(validation),
    }


def _refuse_many_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: this version trains in one process on one device. "
            "Start it without torchrun"
        )
