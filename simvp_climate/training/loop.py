"""The training loop: one visible loop on Lightning Fabric.

Shape suffixes: B window of a batch, T time, C channel, H latitude.
"""

import math
import time
import warnings
from collections import deque
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from simvp_climate.data.progress import tqdm
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, datasets, distributed, loader, memory, signals
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.loss import Loss

_LOOK = 10  # batches between two looks at the loss, for each of which the host waits for the GPU
_TOGETHER = 1.0  # seconds after which several processes ask each other at least whether to stop
_LOG = 50  # steps between two lines of a logger
_EXPLODES = 1000  # times the usual loss


def fit(
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
    memory.check_memory(network, config, windows, config.leads(task), loss_of.area_CHW.shape[-2:], fabric)
    if fabric.device.type == "cpu":
        memory.keep_memory()
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
