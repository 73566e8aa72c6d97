"""Training: one visible loop on Lightning Fabric.

Shape suffixes: B window of a batch, T time, C channel, H latitude, W longitude; N time of the whole series.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from simvp_climate import checkpoint, loader
from simvp_climate.data import reader
from simvp_climate.data.conventions import orient, rename, same_grid
from simvp_climate.data.normalizer import Normalizer, check_plausible, fit_normalizer
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import find_windows, shared_period
from simvp_climate.forecaster import Forecaster, choose_device
from simvp_climate.grid import closes_longitude, latitude_weights
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config, rollout
from simvp_climate.task import Task

_RESULT = "forecaster.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    epochs
        Passes over all training windows.
    batch_size
        Windows per step.
    learning_rate
        Peak of the schedule: a linear warm-up, then half a cosine down to zero.
    warmup
        Share of all steps spent on the warm-up.
    weight_decay
        Of AdamW, on all weights.
    gradient_clip
        Largest norm of the gradient.
    average
        Decay of the running average of the weights that is validated and kept; 0 keeps the weights themselves.
    validation_windows
        Number of windows, evenly spread, on which the best epoch is chosen.
    precision
        As Lightning Fabric calls it ("32-true", "bf16-mixed"); "auto" is bfloat16 on a GPU that has it.
    seed
        Of the initial weights, the order of the windows and the skipped blocks.
    progress
        Whether to show a progress bar.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    average: float = 0.99
    validation_windows: int = 256
    precision: str = "auto"
    seed: int = 0
    progress: bool = True

    def __post_init__(self):
        for name in ("epochs", "batch_size", "validation_windows"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a whole number of at least 1")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be greater than 0")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie in [0, 1)")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay!r} must not be negative")


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

    The loss is the area-weighted squared error, each channel and lead in units of its typical change, so
    that no variable and no lead drowns the others.

    Parameters
    ----------
    task
        What to forecast.
    dataset
        The training years, in any lat-lon convention; or a list of series (ensemble members, climate
        models). No window crosses a gap in time or from one series to the next. Normalization comes from
        here alone.
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
        A forecaster to fine-tune: its weights, statistics and network are the start.
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
        another run.
    FileExistsError
        If the directory holds something else than a run.
    MemoryError
        If the series do not fit into the memory that is free.
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
    model = _choose_model(model, start_from)
    accelerator = choose_device(device)
    _refuse_many_processes()
    run_directory = None if directory is None else checkpoint.claim(directory)
    training = _inside(task, dataset, "dataset")
    validation = None if valid is None else _inside(task, valid, "valid")
    _check_alike(training + (validation or []))
    _check_no_overlap(task, training, validation or [])
    loader.check_memory(training + (validation or []))
    grid = training[0]
    if model.padding == "auto":
        padding = "periodic" if closes_longitude(grid["longitude"].values) else "zeros"
        model = dataclasses.replace(model, padding=padding)

    train_windows = loader.load_windows(task, training, "dataset")
    valid_windows = None if validation is None else loader.load_windows(task, validation, "valid")
    weights_H = latitude_weights(grid["latitude"]).values
    units = tuple(grid[channel.variable].attrs.get("units", "") for channel in reader.channels(grid))
    if start_from is None:
        normalizer = fit_normalizer(
            reader.channels(grid), units, train_windows.states, train_windows.positions, weights_H, task.history
        )
    else:
        normalizer = _take_over(start_from, task, grid)

    if start_from is not None:
        check_plausible(normalizer, train_windows.states[train_windows.positions[0]], "dataset")
    if valid_windows is not None:
        check_plausible(normalizer, valid_windows.states[valid_windows.positions[0]], "valid")
    precision = config.precision
    if precision == "auto":
        gpu = accelerator == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16-mixed" if gpu else "32-true"
    config = dataclasses.replace(config, precision=precision)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)

    # a seed of our own, without touching the random numbers of whoever called
    with torch.random.fork_rng(devices=[fabric.device] if accelerator == "cuda" else []):
        torch.manual_seed(config.seed)
        network = SimVPv2(model, history=task.history, channels=len(normalizer.channels))
        network.change_scale_TC.copy_(torch.from_numpy(normalizer.change_std / normalizer.std))
        if start_from is not None:
            network.load_state_dict(start_from.network.state_dict())
        provenance = _describe(task, model, config, normalizer, training, validation)
        run = checkpoint.Run(run_directory, "")
        if run_directory is not None:
            parts = [train_windows] if valid_windows is None else [train_windows, valid_windows]
            arrays = [grid["latitude"].values, grid["longitude"].values]
            arrays += [array for part in parts for array in (part.positions, part.states)]
            if start_from is not None:
                arrays += [value.cpu().numpy() for value in start_from.network.state_dict().values()]
            run = checkpoint.Run(run_directory, checkpoint.fingerprint(provenance, arrays))
        history = _fit(fabric, network, task, config, normalizer, weights_H, train_windows, valid_windows, run)
    forecaster = Forecaster(
        task=task,
        network=network.eval(),
        normalizer=normalizer,
        latitude=grid["latitude"].values,
        longitude=grid["longitude"].values,
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
    train_windows: loader.Windows,
    valid_windows: loader.Windows | None,
    run: checkpoint.Run,
) -> list[dict]:
    """Train the network in place, leave the kept weights in it, and return the losses per epoch."""
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    wrapped, optimizer = fabric.setup(network, optimizer)
    device = fabric.device
    scale = _Scale(normalizer, weights_H, task.horizon, device)
    states_NCHW = _place(torch.from_numpy(train_windows.states), device)
    kept = _copy(network)

    count = len(train_windows.positions)
    batch = min(config.batch_size, count)
    steps = count // batch
    total = steps * config.epochs
    history, best, first = [], math.inf, 0
    if saved := checkpoint.resume(run):
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, kept = ({n: v.to(device) for n, v in saved[name].items()} for name in ("average", "kept"))
        history, best, first = saved["history"], saved["best"], len(saved["history"])
    else:
        average = _copy(network)

    bar = tqdm(
        total=total * batch,
        initial=first * steps * batch,
        unit="windows",
        desc="training",
        disable=not config.progress,
        mininterval=1,
    )
    for epoch in range(first, config.epochs):
        # a fresh stream per epoch: a resumed run draws the same numbers
        torch.manual_seed(config.seed * 1_000_003 + epoch + 1)
        network.train()
        order = loader.epoch_order(count, config.seed, epoch)[: steps * batch]
        losses = []
        for step, x_BTCHW in enumerate(loader.batches(states_NCHW, train_windows.positions[order], batch)):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(epoch * steps + step, total, config.warmup)
            loss = _loss(wrapped, scale, x_BTCHW.to(device), task)
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
            optimizer.step()
            _update_average(average, network, config.average, epoch * steps + step)
            losses.append(loss.detach())
            bar.update(len(x_BTCHW))
            if step % 5 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
        record = {"loss": float(torch.stack(losses).mean())}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                f"the loss became {record['loss']} in epoch {epoch + 1}: lower TrainConfig.learning_rate "
                f"(now {config.learning_rate:g}) or TrainConfig.gradient_clip (now {config.gradient_clip:g})"
            )
        if valid_windows is None:
            kept = average
        else:
            record["valid_loss"] = _validate(wrapped, network, average, scale, valid_windows, task, config)
            if not math.isfinite(record["valid_loss"]):
                raise FloatingPointError(
                    f"the loss on valid is {record['valid_loss']} in epoch {epoch + 1}: are its values in the units "
                    "and range of the training data?"
                )
            if record["valid_loss"] < best:
                best, kept = record["valid_loss"], {name: value.clone() for name, value in average.items()}
            bar.set_description(f"training, epoch {epoch + 1}, validation {record['valid_loss']:.4f}")
        history.append(record)
        checkpoint.save(run, network, optimizer, average, kept, history, best)
    bar.close()
    network.load_state_dict(kept)
    return history


class _Scale:
    """Normalization and the weighted error, on the device."""

    def __init__(self, normalizer: Normalizer, weights_H: np.ndarray, horizon: int, device: torch.device):
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.mean_C11 = tensor(normalizer.mean)[:, None, None]
        self.std_C11 = tensor(normalizer.std)[:, None, None]
        self.weights_H1 = tensor(weights_H)[:, None]
        # leads of later calls have settled near the change of the last lead of the first
        change_TC = tensor(normalizer.change_std / normalizer.std)
        leads = torch.arange(horizon, device=device).clamp(max=len(change_TC) - 1)
        self.change_TC11 = change_TC[leads][:, :, None, None]

    def normalize(self, x_BTCHW: Tensor) -> Tensor:
        return (x_BTCHW - self.mean_C11) / self.std_C11

    def error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        return (((forecast_BTCHW - truth_BTCHW) / self.change_TC11) ** 2 * self.weights_H1).mean()


def _loss(network: nn.Module, scale: _Scale, x_BTCHW: Tensor, task: Task) -> Tensor:
    x_BTCHW = scale.normalize(x_BTCHW)
    forecast_BTCHW = rollout(network, x_BTCHW[:, : task.history], task.horizon)
    return scale.error(forecast_BTCHW.float(), x_BTCHW[:, task.history :])


@torch.no_grad()
def _validate(
    wrapped: nn.Module,
    network: SimVPv2,
    weights: dict[str, Tensor],
    scale: _Scale,
    windows: loader.Windows,
    task: Task,
    config: TrainConfig,
) -> float:
    """Return the loss of some weights over evenly spread validation windows."""
    current = _copy(network)
    network.load_state_dict(weights)
    network.eval()
    spread = np.linspace(0, len(windows.positions) - 1, min(config.validation_windows, len(windows.positions)))
    positions = windows.positions[spread.round().astype(int)]
    total = 0.0
    for x_BTCHW in loader.batches(torch.from_numpy(windows.states), positions, config.batch_size):
        x_BTCHW = x_BTCHW.to(scale.std_C11.device)
        total += len(x_BTCHW) * float(_loss(wrapped, scale, x_BTCHW, task))
    network.load_state_dict(current)
    return total / len(positions)


def _place(states_NCHW: Tensor, device: torch.device) -> Tensor:
    """Return the states on the device if they leave half of its memory free, else where they are."""
    if device.type == "cuda" and states_NCHW.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return states_NCHW.to(device)
    return states_NCHW


def _schedule(step: int, total: int, warmup: float) -> float:
    """Return the learning rate as a share of its peak: linear up, half a cosine down."""
    up = max(1, round(warmup * total))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, total - up)))


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


def _choose_model(model: SimVPv2Config | None, start_from: Forecaster | None) -> SimVPv2Config:
    if start_from is None:
        return model or SimVPv2Config()
    own = start_from.network.config
    if model is not None and dataclasses.replace(model, padding=own.padding) != own:
        raise ValueError(f"model={model} is not the network of start_from, {own}: leave model out when you fine-tune")
    return own


def _inside(task: Task, dataset: xr.Dataset | Sequence[xr.Dataset], name: str) -> list[xr.Dataset]:
    """Return the series under the names and on the orientation used inside."""
    series = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    for one in series:
        if not isinstance(one, xr.Dataset):
            raise ValueError(
                f"{name} is of type {type(one).__name__}: give an xarray.Dataset (open_dataset returns one)"
            )
    if not series:
        raise ValueError(f"{name} is an empty list: give at least one series")
    inside = [orient(rename(one, task.variables, task.levels)) for one in series]
    for one in inside:
        reader.channels(one)  # refuses what has no time, or a dimension too many
    return inside


def _check_alike(series: list[xr.Dataset]) -> None:
    """Refuse series that differ in grid, channels or units."""
    for one in series[1:]:
        same_grid(series[0], one)
        if reader.channels(one) != reader.channels(series[0]):
            raise ValueError(
                f"the series differ in their channels: {[str(c) for c in reader.channels(series[0])]} and "
                f"{[str(c) for c in reader.channels(one)]}. Select the same levels in each"
            )
        for name in one.data_vars:
            units = [dataset[name].attrs.get("units", "") for dataset in (series[0], one)]
            if all(units) and not same_units(*units):
                raise ValueError(
                    f"{name} is in {units[0]!r} in one series and in {units[1]!r} in another (training, validation or "
                    "member): convert it, and set attrs['units']"
                )


def _check_no_overlap(task: Task, training: list[xr.Dataset], validation: list[xr.Dataset]) -> None:
    for one in training:
        times = one.indexes["time"]
        windows = find_windows(times, task.step, task.history, task.horizon, "dataset")
        for other in validation:
            shared = shared_period(times, windows, other.indexes["time"])
            if len(shared):
                raise ValueError(
                    f"training and validation overlap: {len(shared)} validation times, {shared[0]} to {shared[-1]}, "
                    "lie within training windows, and the best epoch would be chosen on training data. Split by time: "
                    "train, valid = ds.sel(time=slice(None, '2015')), ds.sel(time='2016')"
                )


def _take_over(start: Forecaster, task: Task, grid: xr.Dataset) -> Normalizer:
    """Return the statistics of a forecaster to fine-tune, after checking that the task and data fit it."""
    same = ("variables", "levels", "history", "step")
    different = [name for name in same if getattr(task, name) != getattr(start.task, name)]
    if different:
        raise ValueError(
            "; ".join(f"{n}={getattr(task, n)!r}, start_from has {getattr(start.task, n)!r}" for n in different)
            + ". Fine-tuning may change the horizon, the data and the schedule, nothing else of the task"
        )
    start.check(grid)
    return start.normalizer


def _describe(
    task: Task,
    model: SimVPv2Config,
    config: TrainConfig,
    normalizer: Normalizer,
    training: list[xr.Dataset],
    validation: list[xr.Dataset] | None,
) -> dict:
    """Return the provenance of a training run, as plain values."""
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in ("simvp-climate", "torch", "xarray", "numpy")},
        "task": json.loads(json.dumps(dataclasses.asdict(task))),  # lists, as a file gives them back
        "model": dataclasses.asdict(model),
        "config": dataclasses.asdict(config),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": _period(training),
        "validation": "none: the weights of the last epoch were kept" if validation is None else _period(validation),
    }


def _period(series: list[xr.Dataset]) -> str:
    periods = [f"{one.indexes['time'][0]} to {one.indexes['time'][-1]}" for one in series]
    return ", ".join(dict.fromkeys(periods))


def _refuse_many_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RuntimeError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: this version trains in one process on one device. "
            "Start it without torchrun"
        )
