"""The training loop on Lightning Fabric: fit, one epoch, one step, validation, and the state that is saved.

Shape suffixes: B window of a batch, T time, C channel, H latitude, W longitude.
"""

import math
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from typing import NoReturn

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from simvp_climate.networks.batch_norm import freeze_batch_norms
from simvp_climate.networks.noise import is_of_noise
from simvp_climate.processing import tensors
from simvp_climate.training import checkpoint, distributed, memory
from simvp_climate.training.checkpoint import Run
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Split
from simvp_climate.training.loader import Batch
from simvp_climate.training.loss import ENSEMBLE_ERRORS, Loss
from simvp_climate.training.muon import Muon
from simvp_climate.training.progress import TrainingProgress
from simvp_climate.training.rollout_bias import rollout_bias
from simvp_climate.training.signals import Stop

LOSS_CHECK_EVERY = 10  # batches; each check of the loss synchronizes the GPU
SYNC_SECONDS = 1.0  # several processes agree at least this often whether to stop
VALIDATION_MEMBERS = 8  # of the CRPS on valid
LOG_EVERY = 50  # steps between two values of `running_loss`
EXPLOSION_FACTOR = 1000  # a loss above this multiple of the recent median is an error


class TrainingLoop:
    """Train a network in place, to the weights of the best epoch on the second of `splits`, or of the last epoch."""

    def __init__(
        self, fabric: Fabric, network: nn.Module, config: TrainConfig, loss: Loss, splits: list[Split], run: Run,
        stop: Stop,
    ):  # fmt: skip
        self.fabric, self.config, self.loss, self.run, self.stop = fabric, config, loss, run, stop
        self.train_split, self.valid_split = splits[0], splits[1] if splits[1:] else None
        self.stream = self.train_split.stream(config, fabric)
        self.epochs, self.batches = _count_epochs_and_batches(config, len(self.stream), self.stream.count)
        memory.check_step(network, config, self.stream.batch_size, loss.max_leads, loss.area_CHW.shape[-2:], fabric)
        if fabric.device.type == "cpu":
            memory.reuse_freed_memory()
        tensors.to_channels_last(network)
        if hasattr(network, "activation_checkpointing"):
            network.activation_checkpointing = config.activation_checkpointing  # type: ignore[assignment]
        self.network = distributed.prepare(network, fabric)
        if config.compile:
            self.network.compile()  # in place: the weights keep their names
        self.wrapped = fabric.setup_module(self.network)
        self.optimizer = fabric.setup_optimizers(_make_optimizer(self.network, config, fabric))
        self.valid_stream = self.valid_split and self.valid_split.stream(config, fabric, shuffle=False)

        # windows in each batch of an epoch, over all processes
        own_sizes = self.stream.sizes[: self.batches]
        sizes = torch.tensor(own_sizes, dtype=torch.float64, device=fabric.device)
        self.sizes = distributed.total(fabric, sizes).cpu().numpy()
        self.steps_per_epoch = -(-self.batches // config.accumulate_grad_batches)
        self.total_steps = self.steps_per_epoch * self.epochs
        self.rollout_start = self.total_steps
        if config.rollout > 1:
            self.rollout_start -= max(1, round(config.rollout_share * self.total_steps))
        self.noise_weights = [weight for name, weight in self.network.named_parameters() if is_of_noise(name)]
        self.crps_start = self.total_steps
        if config.loss == "crps":
            assert config.crps_share is not None
            self.crps_start -= max(1, round(config.crps_share * self.total_steps))
        self.logs = fabric.broadcast(bool(fabric.loggers))  # the first process may be the only one with a logger
        losses = LossMonitor(fabric, own_sizes / self.sizes)
        scaler, switches = fabric.strategy.precision, {"precision": config.precision, "compile": config.compile}
        self.state = TrainingState(self.network, self.optimizer, scaler, losses, switches)
        self.epoch, self.step = 0, 0  # the current epoch, and the steps done in it

    def fit(self) -> list[dict]:
        """Train to the end or until patience runs out; return a record for each epoch."""
        self._resume()
        self.pacer = StepPacer(self.fabric, self.stop, self.config, self.run)
        self.stop.patient = True  # from here on every step checks whether to stop
        records = self.state.records
        starts = [0]
        if self.config.rollout > 1:
            starts.append(self.rollout_start // self.steps_per_epoch)
        if self.config.loss == "crps":
            starts.append(self.crps_start // self.steps_per_epoch)
        patience_start = max(starts)
        first_candidate = self.crps_start // self.steps_per_epoch if self.config.loss == "crps" else 0
        windows = int(self.sizes.sum())  # in an epoch
        trained = len(records) * windows + int(self.sizes[: len(self.state.losses.values)].sum())
        shown = self.config.progress and self.fabric.is_global_zero
        show = self.epochs, windows, trained, self.loss, self.run.directory, shown
        with TrainingProgress(*show) as self.progress:
            for epoch in range(len(records), self.epochs):
                if _out_of_patience(records, self.config.patience, patience_start, first_candidate):
                    break
                self.epoch = epoch
                self._finish_epoch(self._train_epoch())
        checkpoint.write_curve(self.run, records, {"windows_per_second": self.state.speeds})
        for logger in self.fabric.loggers:
            logger.finalize("success")
        self.network.load_state_dict(self.state.selected)
        return records

    def _resume(self) -> None:
        """Restore the saved state of the run, if there is one."""
        saved = distributed.share(self.fabric, checkpoint.resume(self.run))
        if not saved:
            return
        self.state.restore(saved, self.fabric)
        old, new = saved["versions"], self.state.versions
        if changed := [f"{name} {old[name]} (now {new[name]})" for name in sorted(old) if old[name] != new.get(name)]:
            warnings.warn(
                f"the run in {str(self.run.directory)!r} was saved with {', '.join(changed)}. It resumes, but may end "
                "with different digits than with the same throughout",
                stacklevel=4,
            )
        self.step = -(-len(self.state.losses.values) // self.config.accumulate_grad_batches)
        self.epoch = max(len(self.state.records) - (self.step == 0), 0)
        if self.config.progress and len(self.state.records) < self.epochs:
            self.fabric.print(f"resuming the run in {str(self.run.directory)!r}, saved {self._position()}")

    def _train_epoch(self) -> float:
        """Train on the windows of an epoch, except batches done before a resume; return windows per second."""
        self.network.train()
        self.train_split.check_unchanged()
        started, first = time.monotonic(), len(self.state.losses.values)
        self.step = -(-first // self.config.accumulate_grad_batches)
        with closing(self.stream.epoch(self.epoch, first)) as batches:
            while self.step < self.steps_per_epoch:
                step = self.epoch * self.steps_per_epoch + self.step
                self._train_step(step, batches)
                self.step += 1
                self._check_log_and_save(step)
        speed = int(self.sizes[first:].sum()) / max(time.monotonic() - started, 1e-9)
        self.train_split.check_unchanged()  # covers what was read since the last check
        return speed

    def _train_step(self, step: int, batches: Iterator[Batch]) -> None:
        """Update the weights once, with the gradient of the mean loss over the windows of the next batches."""
        config, fabric = self.config, self.fabric
        first = self.step * config.accumulate_grad_batches
        last = min(first + config.accumulate_grad_batches, self.batches)
        # random numbers are a function of the step, so that a resumed run draws the same
        torch.manual_seed((config.seed * 1_000_003 + step + 1) * fabric.world_size + fabric.global_rank)
        _set_schedule(self.optimizer, config, step, self.total_steps)
        leads = self.loss.horizon if step < self.rollout_start else self.loss.max_leads
        members = config.members if step >= self.crps_start else 0
        if members:
            # statistics over a batch would let one member see the others, and CRPS would no longer be fair
            freeze_batch_norms(self.network)
        windows = self.sizes[first:last].sum()
        self.optimizer.zero_grad()
        for index in range(first, last):
            batch = next(batches)
            with fabric.no_backward_sync(self.wrapped, enabled=index + 1 < last):
                loss = self.loss(self.wrapped, batch, self.train_split.inits, leads, members)
                # Fabric averages gradients over the processes: undo its division by their number
                fabric.backward(loss * (len(batch.windows) * fabric.world_size / windows))
            self.state.losses.add(loss, leads, members, after_warmup=step >= config.warmup * self.total_steps)
            self.progress.update(int(self.sizes[index]))
        if config.loss == "crps" and not members:
            # else AdamW would count these steps, and its first ones with noise would be too large
            for weight in self.noise_weights:
                weight.grad = None
        if config.gradient_clip is not None:
            fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False)
        self.optimizer.step()
        _update_ema(self.state.ema, self.network, config.ema_decay, step)

    def _check_log_and_save(self, step: int) -> None:
        """Check the losses, log, save and stop, whenever one of these is due."""
        losses = self.state.losses
        log = self.logs and (step + 1) % LOG_EVERY == 0
        check, save, stop = self.pacer.after_step(len(losses.pending), log or self.step == self.steps_per_epoch)
        if not check:
            return
        if (failure := losses.check()) is not None:
            value, batch = failure
            inits = self.train_split.inits[self.stream.windows_of(self.epoch, batch)]
            windows = ", ".join(map(str, inits[:4])) + (f" and {len(inits) - 4} more" if len(inits) > 4 else "")
            message = f"the loss became {value:.4g} {self._position()}, in the windows initialized at {windows}"
            raise FloatingPointError(message + self._hint())
        self.progress.set_loss(losses.values[-1], self.state.records)
        if log:
            self.fabric.log_dict({"running_loss": losses.values[-1]}, step=step + 1)
        if save or stop:
            self._save()
        if stop:
            self._leave()

    def _finish_epoch(self, windows_per_second: float) -> None:
        """Validate, select the best weights, add the record of the epoch, and save."""
        state, epoch = self.state, self.epoch + 1
        record = {"epoch": epoch, "loss": float(np.average(state.losses.values, weights=self.sizes))}
        group = self.optimizer.param_groups[0]
        record["learning_rate"] = group["lr"] / group.get("rate_factor", 1)
        self._check_weights()  # else the error would blame the validation data
        if self.valid_split is None:
            state.selected = state.ema
        else:
            errors = self._validate()
            if distributed.any_of(self.fabric, self.stop.asked is not None):
                self._save()
                self._leave()
            record |= errors
            if not math.isfinite(record["valid_loss"]):
                message = (
                    f"the loss on valid is {record['valid_loss']} in epoch {epoch}. Its values must have the units"
                )
                raise FloatingPointError(f"{message} and range of the training data: sc.check(valid)")
            measure = self._measure(record)
            if measure < state.best_loss:
                state.best_loss = measure
                state.selected = {name: value.clone() for name, value in state.ema.items()}
        state.records.append(record)
        state.speeds.append(windows_per_second)
        state.losses.values = []
        self._save()
        checkpoint.write_curve(self.run, state.records, {"windows_per_second": state.speeds})
        self.progress.finish_epoch(record)
        self.fabric.log_dict({**record, "windows_per_second": windows_per_second}, step=epoch * self.steps_per_epoch)
        if distributed.any_of(self.fabric, self.stop.asked is not None):
            self._leave()

    def _measure(self, record: dict) -> float:
        """Return what chooses the epoch, the smaller the better; a rollout's bias is added to the record."""
        if self.config.loss == "crps" and (self.epoch + 1) * self.steps_per_epoch <= self.crps_start:
            return math.inf  # its noise has no effect yet
        if self.config.select == "loss":
            return record["valid_loss"]
        if (self.epoch + 1) % self.config.select_every and self.epoch + 1 < self.epochs:
            return math.inf
        assert self.valid_split is not None
        current = _copy_weights(self.network)
        self.network.load_state_dict(self.state.ema)
        self.network.eval()
        bias = rollout_bias(self.wrapped, self.valid_split, self.loss, self.config.seed)
        self.network.load_state_dict(current)
        record["valid_rollout_bias"] = bias if math.isfinite(bias) else math.nan
        if self.epoch + 1 == self.epochs and not math.isfinite(min(bias, self.state.best_loss)):
            self.state.selected = {name: value.clone() for name, value in self.state.ema.items()}
            warnings.warn(
                "no rollout over the validation period stayed finite, so the last weights are kept: train longer, with "
                "forcings such as 'time_of_year', or with input_noise=0.25 and rollout=3",
                stacklevel=2,
            )
        return bias

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return loss and errors of the averaged weights over the validation windows; incomplete after a signal."""
        assert self.valid_split is not None and self.valid_stream is not None
        self.valid_split.check_unchanged()
        current = _copy_weights(self.network)
        self.network.load_state_dict(self.state.ema)
        self.network.eval()
        members = VALIDATION_MEMBERS if self.config.loss == "crps" else 0
        loss, total, squares = self.loss, 0.0, np.zeros(len(self.loss.columns))
        ensemble = np.zeros(ENSEMBLE_ERRORS * len(loss.columns) if members else 0)
        # of the noise of members: the same in every epoch, and another one in every process
        torch.manual_seed(self.config.seed * self.fabric.world_size + self.fabric.global_rank)
        for batch in self.valid_stream.epoch(0):
            if members:
                forecast_MBTCHW, truth_BTCHW = self._forecast_members(batch, members)
                total += len(batch.windows) * float(loss.crps(forecast_MBTCHW, truth_BTCHW))
                ensemble = ensemble + _to_numpy(loss.ensemble_errors(forecast_MBTCHW, batch))
                forecast_BTCHW = forecast_MBTCHW.mean(dim=0)
            else:
                forecast_BTCHW, truth_BTCHW = loss.forecast(self.wrapped, batch, self.valid_split.inits, loss.max_leads)
                total += len(batch.windows) * float(loss.error(forecast_BTCHW, truth_BTCHW))
            squares = squares + _to_numpy(loss.squared_errors(forecast_BTCHW, batch))
            stop = self.stop.asked is not None
            # with weights in parts, all processes take part in every forecast
            if distributed.any_of(self.fabric, stop) if self.config.strategy == "fsdp" else stop:
                break
        self.network.load_state_dict(current)
        return self._average_errors(total, squares, ensemble)

    def _forecast_members(self, batch: Batch, members: int) -> tuple[Tensor, Tensor]:
        """Return forecasts of the windows, (M, B, T, C, H, W), and truth; as many members at a time as in a step."""
        assert self.valid_split is not None
        parts, loss = [], self.loss
        for first in range(0, members, self.config.members):
            size = min(self.config.members, members - first)
            forecast_BTCHW, truth_BTCHW = loss.forecast(
                self.wrapped, batch, self.valid_split.inits, loss.max_leads, size
            )
            parts.append(forecast_BTCHW.unflatten(0, (size, -1)))
        return torch.cat(parts), truth_BTCHW

    def _average_errors(self, total: float, squares: np.ndarray, ensemble: np.ndarray) -> dict[str, float]:
        """Return means over the validation windows of all processes, from the sums of this one."""
        assert self.valid_stream is not None
        values = np.concatenate([[total], squares, ensemble])
        sums = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        means = (distributed.total(self.fabric, sums) / self.valid_stream.count).cpu().numpy()
        loss, shape = self.loss, (-1, len(self.loss.units))
        rmse = np.sqrt(means[1 : 1 + len(squares)]).reshape(shape)  # root last: means over all windows
        errors = {name: float(rmse[position]) for position, name in loss.columns.items()}
        if len(ensemble):
            parts = means[1 + len(squares) :].reshape(ENSEMBLE_ERRORS, *rmse.shape)
            errors |= loss.ensemble_columns(parts, VALIDATION_MEMBERS)
        return {"valid_loss": float(means[0]), **errors}

    def _save(self) -> None:
        """Save the state between two steps; weights that are not finite are an error instead."""
        self._check_weights()
        plans = [split.plan for split in (self.train_split, self.valid_split) if split is not None]
        checkpoint.save(self.run, plans, self.state.to_dict(self.fabric))
        self.pacer.saved_at = time.monotonic()

    def _check_weights(self) -> None:
        values = (value.to_local() if isinstance(value, DTensor) else value for value in self.state.ema.values())
        norm = torch.nn.utils.get_total_norm([value for value in values if value.dim()])
        if distributed.any_of(self.fabric, not norm.isfinite()):
            raise FloatingPointError(f"the weights are no longer finite {self._position()}{self._hint()}")

    def _leave(self) -> NoReturn:
        """Raise the exception that the signal asks for, after a message that says what was saved."""
        outcome = "nothing was saved: give train a directory"
        if self.run.directory is not None:
            outcome = f"saved in {str(self.run.directory)!r}. Run the same again to resume"
        elif not self.fabric.is_global_zero:
            outcome = "the first process of the run says what was saved"
        self.stop.leave(f"{self._position()}, {outcome}")

    def _position(self) -> str:
        """Return how far the run has come, for messages."""
        if len(self.state.records) > self.epoch:
            return f"after epoch {self.epoch + 1} of {self.epochs}"
        return f"in epoch {self.epoch + 1} of {self.epochs}, after step {self.step} of {self.steps_per_epoch}"

    def _hint(self) -> str:
        """Return what to change when numbers explode, for messages."""
        config, directory = self.config, self.run.directory
        hint = f": lower TrainConfig.learning_rate (now {config.learning_rate:g})"
        hint += f" or gradient_clip (now {config.gradient_clip})"
        if config.precision != "32-true":
            hint += f", or take precision='32-true' (now {config.precision!r})"
        hint += "; if it is always the same windows, look at their values: sc.check(ds)"
        return hint + ("" if directory is None else f". The state in {str(directory)!r} is the last good one")


class TrainingState:
    """Everything that a resumed run needs to end as if it had not been stopped."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scaler: Precision, losses: "LossMonitor",
        switches: dict[str, str | bool],
    ):  # fmt: skip
        self.parts = {"network": network, "optimizer": optimizer, "scaler": scaler}  # scaler: of fp16 gradients
        self.losses = losses
        # running average of the weights; that of the best epoch, and its validation loss
        self.ema, self.selected, self.best_loss = _copy_weights(network), _copy_weights(network), math.inf
        self.records: list[dict] = []  # the training curve
        self.speeds: list[float] = []  # windows per second
        # these decide the digits
        self.versions = {name: version(name) for name in ("simvp-climate", "torch")} | switches

    def to_dict(self, fabric: Fabric) -> dict:
        """Return what `restore` takes, whole in the first process only; all processes must call this."""
        names = ("ema", "selected", "best_loss", "records", "speeds", "versions")
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {name: getattr(self, name) for name in names}
        state, losses = distributed.gather(state, keep=fabric.is_global_zero), self.losses
        return {
            **state,
            "losses": losses.values,
            "recent_losses": list(losses.recent),
            "leads": losses.leads,
            "members": losses.members,
        }

    def restore(self, saved: dict, fabric: Fabric) -> None:
        """Take over a saved state, of which the first process has the tensors; all processes must call this."""
        network, optimizer = self.parts["network"], self.parts["optimizer"]
        both = (saved["optimizer"]["param_groups"], optimizer.param_groups)
        sizes = [[len(group["params"]) for group in groups] for groups in both]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the saved optimizer has groups of {sizes[0]} weights, that of this version {sizes[1]}: finish the "
                "run with the version that started it, or move the training state away to start anew"
            )
        weights = network.state_dict()
        for name in ("network", "ema", "selected"):
            saved[name] = {
                key: distributed.place_like(value, weights[key], fabric) for key, value in saved[name].items()
            }
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        for index, moments in saved["optimizer"]["state"].items():
            for name in sorted(moments.keys() - {"step"}):  # all processes in the same order
                moments[name] = distributed.place_like(moments[name], parameters[index], fabric)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.losses.values, self.losses.leads = saved["losses"], saved["leads"]
        self.losses.members = saved.get("members", 0)  # states of earlier versions lack it
        self.losses.recent.extend(saved["recent_losses"])
        self.ema, self.selected = saved["ema"], saved["selected"]
        self.best_loss, self.records, self.speeds = saved["best_loss"], saved["records"], saved["speeds"]


class LossMonitor:
    """The losses of the batches of an epoch: `values` on the host, `pending` ones still on the device."""

    def __init__(self, fabric: Fabric, shares: np.ndarray):
        self.fabric, self.shares = fabric, shares  # the share of each batch that this process has
        self.values: list[float] = []
        self.pending: list[tuple[Tensor, bool]] = []  # loss, and whether it comes after the warm-up
        self.recent: deque[float] = deque(maxlen=100)  # losses after the warm-up, of the same leads and members
        self.leads, self.members = 0, 0

    def add(self, loss: Tensor, leads: int, members: int, after_warmup: bool) -> None:
        """Add the loss of a batch over some leads and members, without waiting for the device."""
        if (leads, members) != (self.leads, self.members):
            self.recent.clear()
        self.leads, self.members = leads, members
        self.pending.append((loss.detach(), after_warmup))

    def check(self) -> tuple[float, int] | None:
        """Bring the losses to the host; return value and batch of the first that is not finite or explodes."""
        limit = EXPLOSION_FACTOR * np.median(self.recent) if len(self.recent) >= 20 else math.inf
        losses = torch.stack([loss for loss, _ in self.pending])
        if self.fabric.world_size > 1:
            first = len(self.values)
            shares = torch.as_tensor(self.shares[first : first + len(losses)], dtype=losses.dtype)
            losses = distributed.total(self.fabric, losses * shares.to(losses.device))
        for value, (_, after_warmup) in zip(losses.tolist(), self.pending, strict=True):
            self.values.append(value)
            if not math.isfinite(value) or value > limit:
                return value, len(self.values) - 1
            if after_warmup:
                self.recent.append(value)
        self.pending = []
        return None


class StepPacer:
    """Decide after each step whether to check the losses, save the state, or stop.

    Several processes check at the same steps and agree there: if one was signalled, all stop; if the first, which has
    the directory, is to save, all do.
    """

    def __init__(self, fabric: Fabric, stop: Stop, config: TrainConfig, run: Run):
        self.fabric, self.stop = fabric, stop
        self.save_seconds = math.inf if run.directory is None else 60 * config.save_minutes
        self.max_batches = LOSS_CHECK_EVERY if config.save_minutes or fabric.world_size == 1 else 1
        self.check_every = LOSS_CHECK_EVERY if fabric.world_size == 1 else 1
        self.checked_at = self.saved_at = time.monotonic()

    def after_step(self, pending: int, required: bool) -> tuple[bool, bool, bool]:
        """Return whether to check the losses, to save, and to stop; a check is due if `required`."""
        save = time.monotonic() - self.saved_at >= self.save_seconds
        stop = self.stop.asked is not None  # read once: a signal may come at any moment
        check = required or pending >= self.check_every
        if self.fabric.world_size == 1:
            check = check or save or stop
        elif check:  # agree whether to save and to stop, and when to check again
            seconds = (time.monotonic() - self.checked_at) / pending / self.fabric.world_size
            values = torch.tensor([float(save), float(stop), seconds], device=self.fabric.device)
            saves, stops, seconds = distributed.total(self.fabric, values).tolist()
            self.checked_at = time.monotonic()
            self.check_every = max(1, min(self.max_batches, int(SYNC_SECONDS / max(seconds, 1e-9))))
            save, stop = bool(saves), bool(stops)
        return check, save, stop


def _count_epochs_and_batches(config: TrainConfig, available: int, windows: int) -> tuple[int, int]:
    """Return the number of epochs, and of batches in each: as set, or as many as `max_steps` allows."""
    batches, accumulated = _count_batches(config, available, windows), config.accumulate_grad_batches
    steps = -(-batches // accumulated)
    if config.max_steps is None or config.max_steps >= steps * config.epochs:
        return config.epochs, batches
    return max(1, config.max_steps // steps), min(batches, config.max_steps * accumulated)


def _count_batches(config: TrainConfig, available: int, windows: int) -> int:
    """Return the number of batches in an epoch; ValueError if a limit has no effect or a step takes more of them."""
    limit, accumulated = config.limit_train_batches, config.accumulate_grad_batches
    count = f"{available} (of {windows} windows, batch_size={config.batch_size})"
    if limit is not None and limit > available:
        fix = f"take at most {available}, or leave it out"
        raise ValueError(f"limit_train_batches={limit} would be ignored, as all windows make {count}: {fix}")
    batches = available if limit is None else limit
    if accumulated > batches:
        count = count if limit is None else f"limit_train_batches={limit}"
        message = f"accumulate_grad_batches={accumulated} batches make a step, and an epoch has {count}"
        raise ValueError(f"{message}: take at most {batches}")
    return batches


def _to_numpy(sums: Tensor) -> np.ndarray:
    """Return sums as a vector in double precision, to be added up."""
    return sums.double().flatten().cpu().numpy()


def _make_optimizer(network: nn.Module, config: TrainConfig, fabric: Fabric) -> torch.optim.Optimizer:
    # fused: all weights in one pass, but it cannot clip the scaled gradients of fp16
    fused = fabric.device.type in ("cpu", "cuda") and config.precision != "16-mixed"
    fused = fused and not any(parameter.is_complex() for parameter in network.parameters())
    decay = config.weight_decay or 0.0
    if config.optimizer == "muon":
        return Muon(network, config.learning_rate, decay, fused=fused)
    optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    return optimizer(network.parameters(), lr=config.learning_rate, weight_decay=decay, fused=fused)


def _set_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int) -> None:
    """Set the learning rate of a step, and for "one-cycle" the first beta."""
    rate, beta = (_one_cycle if config.schedule == "one-cycle" else _cosine)(step, total, config.warmup)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * rate * group.get("rate_factor", 1)
        group["betas"] = (beta, group["betas"][1])


def _cosine(step: int, total: int, warmup: float) -> tuple[float, float]:
    """Return the learning rate as a share of its peak (linear warm-up, half a cosine to zero), and the first beta."""
    warmup_steps = max(1, round(warmup * total))
    if step < warmup_steps:
        return (step + 1) / warmup_steps, 0.9
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total - warmup_steps))), 0.9


def _one_cycle(step: int, total: int, warmup: float) -> tuple[float, float]:
    """Return the learning rate as a share of its peak, and the first beta, as `torch.optim.lr_scheduler.OneCycleLR`."""
    warmup_steps = max(0.0, warmup * total - 1)
    if step < warmup_steps:
        progress, (rate, beta), (last_rate, last_beta) = step / warmup_steps, (1 / 25, 0.95), (1, 0.85)
    else:
        progress = (step - warmup_steps) / max(1, total - 1 - warmup_steps)
        (rate, beta), (last_rate, last_beta) = (1, 0.85), (1 / 25 / 1e4, 0.95)
    # both follow half a cosine between their first and last value
    remaining = 0.5 * (1 + math.cos(math.pi * progress))
    return last_rate + (rate - last_rate) * remaining, last_beta + (beta - last_beta) * remaining


@torch.no_grad()
def _update_ema(ema: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move the running average towards the weights: ema += (1 - d) * (weights - ema)."""
    # d is smaller over the first steps than `decay`, so that the average forgets the initial weights
    share = 1 - min(decay, (step + 1) / (step + 10))
    for name, value in network.state_dict().items():
        if value.is_floating_point() or value.is_complex():
            ema[name].lerp_(value, share)
        else:
            ema[name].copy_(value)


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _out_of_patience(records: list[dict], patience: int | None, first_epoch: int, first_candidate: int = 0) -> bool:
    """Return whether `patience` epochs have passed since the best one, counted from `first_epoch` on.

    Epochs before `first_candidate` cannot be the best.
    """
    if patience is None or len(records) <= first_epoch:
        return False
    best = first_candidate + int(np.argmin([record["valid_loss"] for record in records[first_candidate:]]))
    return len(records) - 1 - max(best, first_epoch - 1) >= patience
