"""The settings of a training run: one frozen object, of which every field is used or refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

from simvp_climate.data import reader
from simvp_climate.processing.task import Task, is_finite

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
# Settings that change no result: a run may be resumed with other values of these.
RESUMABLE_FIELDS = ("progress", "memory", "engine", "save_minutes", "activation_checkpointing")
_WARMUP = {"cosine": 0.1, "one-cycle": 0.3}
_ROLLOUT_SHARE = 0.25


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    A step is one update of the weights, from `accumulate_grad_batches` batches.

    Parameters
    ----------
    epochs
        Passes over all training windows.
    batch_size
        Windows in a batch, over all processes; all of them where there are fewer.
    accumulate_grad_batches
        Batches in a step. The gradient is that of the mean loss over all their windows, with the memory of one batch;
        batch normalization sees the batches one by one.
    optimizer
        "adamw", or "adam" (then `weight_decay` must be 0). Betas 0.9 and 0.999.
    learning_rate
        Peak of the schedule. The default is near the published one (5e-3, Adam) and lies where the error hardly depends
        on it (docs/ablation.md); fine-tuning takes a tenth.
    schedule
        "cosine": linearly up, then half a cosine down to zero. "one-cycle": half a cosine up from a 25th of the peak,
        another down to a 250,000th of it, and the first beta from 0.95 to 0.85 and back, as torch's `OneCycleLR`.
    warmup
        Share of all steps in which the learning rate goes up; `None` is 0.1 for "cosine" and 0.3 for "one-cycle".
    weight_decay
        Of AdamW, on all weights.
    gradient_clip
        Largest norm of the gradient; `None` does not clip.
    loss_normalization
        "change": errors in units of the typical change from the initialization to each lead, per channel, so that no
        variable and no lead drowns the others; leads beyond one network call take that of its last lead. "state": in
        units of the standard deviation of each channel, as published.
    area_weighted
        Whether cells count by their area; otherwise each counts the same, as published.
    lead_weights
        One weight from 1e-6 to 1e6 for each lead of the task's horizon, of which only the ratios matter; longer leads
        (see `rollout`) have the last one's. `None`: all the same.
    variable_weights
        Weights from 1e-6 to 1e6 of variables by name, of which only the ratios matter; variables that are not named
        have 1, and each level of a variable has its weight. Kept as pairs.
    rollout
        Number of network calls through which the gradients go in the last part of training, each forecasting from the
        forecast before. 1: as many as the task's horizon takes. More must reach beyond the horizon; every window is
        then as long as they reach (`leads`), earlier steps use the first part of it, and the validation loss is over
        all these leads in every epoch, so that epochs compare.
    rollout_share
        Share of all steps, the last ones, in which `rollout` holds.
    ema_decay
        Decay of the running average of the weights that is validated and kept; 0 keeps the weights themselves.
    patience
        Epochs without a better validation loss after which training stops; `None` goes on to the end. With `rollout`
        they are counted from where its part begins.
    validation_windows
        Number of windows, evenly spread, on which the best epoch is chosen.
    precision
        "32-true", "bf16-mixed", or "16-mixed" with scaled gradients (GPU only); "auto" is bfloat16 on a GPU that has
        it, float32 elsewhere.
    activation_checkpointing
        Compute the activations again on the way back instead of keeping them: less memory, more time, the same
        numbers. A run that did not fit may go on with it.
    statistics
        With `start_from`, whose statistics normalize the channels that it has: "inherit" keeps its own (same grid and
        units), "compute" takes those of the new data, as for all other channels; "auto" keeps them where channels, grid
        and units are the same, and otherwise asks.
    memory
        Bytes that the states may take on a machine, a quarter of them those of the validation period; "auto" is 60 %
        of what is free. Chunks being decoded come on top. States that fit are decoded once and kept; others are
        streamed, in an order that depends on this, see `loader.Plan`. A run that is resumed keeps its order.
    engine
        What reads Zarr on a local disk: "auto" takes tensorstore where it is installed, "zarr" and
        "tensorstore" say which. It changes no number.
    save_minutes
        Minutes after which the state is saved again, beside the end of every epoch, if training has a directory; 0
        saves it after every step.
    seed
        Of the initial weights, the order of the windows and the skipped blocks; below 2**32.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If a setting is out of range, or would be ignored beside another.
    """

    epochs: int = 50
    batch_size: int = 16
    accumulate_grad_batches: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    schedule: str = "cosine"
    warmup: float | None = None
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    loss_normalization: str = "change"
    area_weighted: bool = True
    lead_weights: tuple[float, ...] | None = None
    variable_weights: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    rollout: int = 1
    rollout_share: float = _ROLLOUT_SHARE
    ema_decay: float = 0.99
    patience: int | None = None
    validation_windows: int = 256
    precision: str = "auto"
    activation_checkpointing: bool = False
    statistics: str = "auto"
    memory: int | str = "auto"
    engine: str = "auto"
    save_minutes: float = 10.0
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "accumulate_grad_batches",
            "rollout",
            "patience",
            "validation_windows",
            "seed",
        ):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if name == "patience" and value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
            object.__setattr__(self, name, int(value))
        if self.rollout > 1000:
            raise ValueError(f"rollout={self.rollout} must be at most 1000 calls")
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed} must be below 2**32")
        if self.patience is not None and self.patience >= self.epochs:
            raise ValueError(
                f"patience={self.patience} would be ignored in epochs={self.epochs}: take fewer, or leave it out"
            )
        if self.warmup is None and isinstance(self.schedule, str):
            object.__setattr__(self, "warmup", _WARMUP.get(self.schedule))
        for name, rule, fits in (
            ("learning_rate", "greater than 0", lambda x: x > 0),
            ("gradient_clip", "greater than 0, or None for no clipping", lambda x: x > 0),
            ("weight_decay", "at least 0", lambda x: x >= 0),
            ("warmup", "in [0, 1)", lambda x: 0 <= x < 1),
            ("ema_decay", "in [0, 1)", lambda x: 0 <= x < 1),
            ("rollout_share", "in (0, 1]", lambda x: 0 < x <= 1),
            ("save_minutes", "at least 0", lambda x: x >= 0),
        ):
            value = getattr(self, name)
            if value is None and name in ("gradient_clip", "warmup"):
                continue
            if not _is_number(value) or not fits(value):
                raise ValueError(f"{name}={value!r} must be a number {rule}")
            object.__setattr__(self, name, float(value))
        for name, choices in (
            ("optimizer", ("adamw", "adam")),
            ("schedule", tuple(_WARMUP)),
            ("loss_normalization", ("change", "state")),
            ("precision", PRECISIONS),
            ("statistics", ("auto", "inherit", "compute")),
            ("engine", reader.ENGINES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {choices}")
        for name in ("area_weighted", "activation_checkpointing", "progress"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} must be True or False")
        whole = isinstance(self.memory, Integral) and not isinstance(self.memory, bool)
        if self.memory != "auto" and not (whole and self.memory >= 1):
            raise ValueError(f"memory={self.memory!r} must be 'auto' or a number of bytes")
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"optimizer='adam' has no weight decay, and weight_decay={self.weight_decay:g}: set weight_decay=0, or "
                "take optimizer='adamw'"
            )
        if self.rollout == 1 and self.rollout_share != _ROLLOUT_SHARE:
            raise ValueError(
                f"rollout_share={self.rollout_share:g} would be ignored with rollout=1: set rollout to the number of "
                "network calls, or leave rollout_share out"
            )
        self._check_weights()

    def _check_weights(self) -> None:
        """Check the weights of leads and variables, and keep them as tuples."""
        if self.lead_weights is not None:
            if not isinstance(self.lead_weights, list | tuple) or not self.lead_weights:
                raise ValueError(f"lead_weights={self.lead_weights!r} must be one number for each lead: (1.0, 0.5)")
            for weight in self.lead_weights:
                if not _is_weight(weight):
                    raise ValueError(f"lead_weights has {weight!r}: each must be a number from 1e-6 to 1e6")
            object.__setattr__(self, "lead_weights", tuple(float(weight) for weight in self.lead_weights))
        pairs = self.variable_weights
        if not isinstance(pairs, Mapping | list | tuple):
            raise ValueError(f"variable_weights={pairs!r} must name weights: {{'z500': 1.0, 't2m': 2.0}}")
        pairs = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(f"variable_weights has {pair!r}: write {{'z500': 1.0, 't2m': 2.0}}")
            if not _is_weight(pair[1]):
                raise ValueError(
                    f"variable_weights has {pair[1]!r} for {pair[0]!r}: it must be a number from 1e-6 to 1e6"
                )
        names = [name for name, _ in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"variable_weights names {twice} more than once")
        object.__setattr__(self, "variable_weights", tuple((name, float(weight)) for name, weight in pairs))

    def leads(self, task: Task) -> int:
        """Return the number of steps that windows reach beyond the initialization.

        Raises
        ------
        ValueError
            If settings do not fit the task: `rollout`, `lead_weights`, `variable_weights`.
        """
        history, horizon = task.history, task.horizon
        if self.rollout > 1 and self.rollout * history <= horizon:
            raise ValueError(
                f"rollout={self.rollout} calls of {history} steps reach no further than horizon={horizon}, which is "
                f"trained through {-(-horizon // history)} calls from the start: set rollout to at least "
                f"{horizon // history + 1}, or leave it out"
            )
        if self.rollout > 1 and task.inputs:
            raise ValueError(
                f"rollout={self.rollout} calls, and of inputs={list(task.inputs)} no later state is known to make a "
                "second call from: leave rollout out, or forecast them too (Task.variables)"
            )
        if self.lead_weights is not None and len(self.lead_weights) != horizon:
            raise ValueError(
                f"lead_weights has {len(self.lead_weights)} numbers and the task horizon={horizon}: give one for each "
                "step"
            )
        if unknown := sorted(dict(self.variable_weights).keys() - set(task.forecast_variables)):
            raise ValueError(f"variable_weights names {unknown}, none of the variables {list(task.forecast_variables)}")
        return horizon if self.rollout == 1 else self.rollout * history


def _is_weight(value: object) -> bool:
    return _is_number(value) and 1e-6 <= value <= 1e6


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and is_finite(value)
