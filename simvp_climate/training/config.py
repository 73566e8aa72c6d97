"""The settings of a training run: one frozen object, which raises an error for settings without effect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from simvp_climate.data import reader
from simvp_climate.processing.task import Task, is_finite

# Settings that change a result by rounding at most: a run may be resumed with other values of these.
RESUMABLE_FIELDS = ("progress", "memory", "engine", "save_minutes", "activation_checkpointing", "strategy", "compile")
_WARMUP = {"cosine": 0.1, "one-cycle": 0.3}
_ROLLOUT_SHARE = 0.25

# the rule as text, a function that checks a value, and one that converts it
_Rule = tuple[str, Callable[[Any], bool], Callable[[Any], Any] | None]


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and is_finite(value)


def _is_weight(value: object) -> bool:
    return _is_number(value) and 1e-6 <= value <= 1e6


def _number(rule: str, in_range: Callable[[Any], bool]) -> _Rule:
    return f"a number {rule}", lambda value: _is_number(value) and in_range(value), float


def _integer(rule: str, in_range: Callable[[Any], bool]) -> _Rule:
    return rule, lambda value: isinstance(value, Integral) and _is_number(value) and in_range(value), int


def _are_weights(weights: Any) -> bool:
    return isinstance(weights, list | tuple) and bool(weights) and all(map(_is_weight, weights))


def _are_pairs(weights: Any) -> bool:
    """Return whether weights map names to weights; from a file they come as pairs."""
    pairs = list(weights.items()) if isinstance(weights, Mapping) else weights
    is_pair = lambda pair: isinstance(pair, list | tuple) and len(pair) == 2  # noqa: E731
    if not isinstance(pairs, list | tuple) or not all(map(is_pair, pairs)):
        return False
    are_names = all(isinstance(name, str) and _is_weight(weight) for name, weight in pairs)
    return are_names and len(dict(pairs)) == len(pairs)


def _is_auto(value: object) -> bool:
    return isinstance(value, str) and value == "auto"  # an array has no truth value


def _one_of(*choices: str) -> _Rule:
    return f"one of {choices}", lambda value: isinstance(value, str) and value in choices, None


_POSITIVE_INTEGER = _integer("a positive integer", lambda value: value >= 1)
# of Muon: chosen on the validation months of the sample, where training with 0.01 overfits after the fourth epoch
WEIGHT_DECAY = {"muon": 0.1, "adamw": 0.01, "adam": 0.0}
_MEMBERS = 2
_BOOLEAN = ("True or False", lambda value: isinstance(value, bool), None)
# may be None
_OPTIONAL = (
    "crps_share",
    "weight_decay",
    "gradient_clip",
    "lead_weights",
    "limit_train_batches",
    "max_steps",
    "patience",
)
_RULES: dict[str, _Rule] = {
    "epochs": _POSITIVE_INTEGER,
    "batch_size": _POSITIVE_INTEGER,
    "accumulate_grad_batches": _POSITIVE_INTEGER,
    "limit_train_batches": _integer("a positive integer, or None for all batches", lambda value: value >= 1),
    "max_steps": _integer("a positive integer, or None for all epochs", lambda value: value >= 1),
    "optimizer": _one_of("muon", "adamw", "adam"),
    "learning_rate": _number("greater than 0", lambda value: value > 0),
    "schedule": _one_of(*_WARMUP),
    "warmup": _number("in [0, 1)", lambda value: 0 <= value < 1),
    "weight_decay": _number("of at least 0, or None for that of the optimizer", lambda value: value >= 0),
    "gradient_clip": _number("greater than 0, or None for no clipping", lambda value: value > 0),
    "loss": _one_of("mse", "amse", "crps"),
    "members": _integer("an integer of at least 2", lambda value: value >= 2),
    "crps_share": _number("in (0, 1]", lambda value: 0 < value <= 1),
    "loss_normalization": _one_of("change", "state"),
    "area_weighted": _BOOLEAN,
    "lead_weights": (
        "one number from 1e-6 to 1e6 for each lead: lead_weights=(1.0, 0.5)",
        _are_weights,
        lambda weights: tuple(map(float, weights)),
    ),
    "variable_weights": (
        "a mapping from different names to numbers from 1e-6 to 1e6: {'z500': 1.0, 't2m': 2.0}",
        _are_pairs,
        lambda weights: tuple((name, float(weight)) for name, weight in dict(weights).items()),
    ),
    "rollout": _integer("an integer from 1 to 1000", lambda value: 1 <= value <= 1000),
    "rollout_share": _number("in (0, 1]", lambda value: 0 < value <= 1),
    "input_noise": _number("in [0, 10]", lambda value: 0 <= value <= 10),
    "ema_decay": _number("in [0, 1)", lambda value: 0 <= value < 1),
    "patience": _integer("a positive integer, or None", lambda value: value >= 1),
    "validation_windows": _POSITIVE_INTEGER,
    "select": _one_of("loss", "rollout"),
    "select_every": _POSITIVE_INTEGER,
    "precision": _one_of("auto", "32-true", "bf16-mixed", "16-mixed"),
    "compile": ("'auto', True or False", lambda value: isinstance(value, bool) or _is_auto(value), None),
    "activation_checkpointing": _BOOLEAN,
    "strategy": _one_of("ddp", "fsdp"),
    "statistics": _one_of("auto", "inherit", "compute"),
    "memory": ("'auto' or a number of bytes", lambda value: _is_auto(value) or _POSITIVE_INTEGER[1](value), None),
    "engine": _one_of(*reader.ENGINES),
    "save_minutes": _number("of at least 0", lambda value: value >= 0),
    "seed": _integer("an integer from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32),
    "progress": _BOOLEAN,
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train. A step is one update of the weights, from `accumulate_grad_batches` batches.

    Parameters
    ----------
    epochs
        Passes over all training windows, or over `limit_train_batches` batches of them.
    batch_size
        Windows in a batch, over all processes. If there are fewer windows, a batch has all of them. Small batches learn
        most for the computation; on a GPU take the largest one that does not slow a step down.
    accumulate_grad_batches
        Batches in a step; one at a time is in memory. The gradient covers all, batch normalization each batch alone.
    limit_train_batches
        Batches in an epoch, each time a new random choice of the windows; `None` takes all of them. For data with so
        many windows that validation after each pass would come too seldom.
    max_steps
        Most steps of the whole run, for a try: as many epochs as they complete, or a part of one epoch. The schedule
        and all shares are of these steps. `None`: all `epochs`.
    optimizer
        "muon": Muon (https://kellerjordan.github.io/posts/muon/), with 2.5 times the learning rate, for dense layers
        and convolutions (not depthwise ones) whose weights are a matrix of at least 16 rows and columns; AdamW for all
        other weights. "adamw", or "adam". Betas of Adam 0.9 and 0.999.
    learning_rate
        Peak of the schedule; with "adamw" take half the default. SimVPv2 was published with 5e-3 and Adam. For
        fine-tuning, take a tenth.
    schedule
        "cosine": linear warm-up, then half a cosine down to zero. "one-cycle": half a cosine up from a 25th of the
        peak, another down to a 250,000th of it, and the first beta from 0.95 to 0.85 and back, as torch's `OneCycleLR`
        (the matrices of "muon" keep their momentum of 0.95).
    warmup
        Share of all steps in which the learning rate rises; `None` is 0.1 for "cosine" and 0.3 for "one-cycle".
    weight_decay
        A step shrinks every weight by this times its learning rate. `None`: 0.1 with "muon", 0.01 with "adamw", and 0
        with "adam", which has no decay.
    gradient_clip
        Largest norm of the gradient; `None` does not clip.
    loss
        "mse": the mean squared error, of one forecast. "amse": the adjusted one, which does not reward blur: errors of
        amplitude and of position count apart, by zonal wavenumber (arXiv:2501.19374); for grids around the globe.
        "crps": the continuous ranked probability score of `members` forecasts, which trains an ensemble;
        the `noise` of the model is its source of randomness. Batch norms keep their statistics in these steps.
    members
        Forecasts of every window, with different noise, in a step with `loss="crps"`. Time grows with their number, and
        the memory of the loss with its square.
    crps_share
        Share of all steps, the last ones, that train on the CRPS; those before train on the squared error, without
        noise. `None`: all with `start_from`, half without.
    loss_normalization
        "change": errors in units of the typical change from the initialization to each lead, per channel; leads beyond
        one network call take the change of its last lead. "state": in units of the standard deviation of each channel,
        as published.
    area_weighted
        Weight cells by their area; with False each counts the same, as published.
    lead_weights
        One weight from 1e-6 to 1e6 for each lead of the task's horizon; only their ratios matter. Longer leads (see
        `rollout`) take the last one. `None`: all the same.
    variable_weights
        Weights from 1e-6 to 1e6 by variable, for all its levels, or by variable and level, as in
        `{"geopotential": 1, "geopotential_500": 3}`; others have 1, and only ratios matter.
    rollout
        Number of chained network calls that the last steps train together. 1: as many as the task's horizon takes.
        Larger values must reach beyond the horizon: then every window is that long, earlier steps train on its first
        leads, and the validation loss is over all leads in every epoch.
    rollout_share
        Share of all steps, the last ones, that train with `rollout`.
    input_noise
        Standard deviation of the normal noise that training adds to the input states, as a share of the typical change
        over a step. The network learns to remove it, and so to correct its own errors in long runs (Sanchez-Gonzalez et
        al. 2020, arXiv:2002.09405). Forecasts and validation have none.
    ema_decay
        Decay of the exponential moving average of the weights, which is validated and returned; 0 does not average.
    patience
        Epochs without a better validation loss after which training stops; `None` trains all epochs. With `rollout`
        and with `loss="crps"` they are counted from the steps where these begin.
    validation_windows
        Number of windows, evenly spread, on which the best epoch is selected.
    select
        Which epoch is the best: that with the lowest "loss" on the validation windows, or, for long runs, that whose
        "rollout" over the whole validation period has the smallest bias (root mean square over cells and channels, in
        standard deviations; the rule of LUCIE, arXiv:2405.16297). With `loss="crps"`, only epochs with steps on the
        CRPS can be the best: before them the noise has no effect.
    select_every
        With `select="rollout"`, the number of epochs between two rollouts; the last epoch always has one.
    precision
        "32-true", "bf16-mixed", or "16-mixed" with scaled gradients (GPU only); "auto" is bfloat16 on a GPU or CPU that
        has it in hardware (avx512_bf16 or amx_bf16 in /proc/cpuinfo), float32 elsewhere. `provenance["config"]` has the
        choice; a run that resumes where it is another one warns.
    compile
        Compile the network with `torch.compile`, also that of the returned forecaster: the same weights up to rounding.
        "auto" compiles on CUDA, and warns where that does not work; True is an error there. The first steps then take
        minutes. A run may be resumed with another choice.
    activation_checkpointing
        Recompute activations in the backward pass instead of keeping them: less memory, more time, the same numbers.
        A run that did not fit may be resumed with it.
    strategy
        What several processes divide: "ddp", only the batches; "fsdp", also weights, gradients, averages and the state
        of the optimizer, for networks that do not fit on one GPU (PyTorch's FSDP2; more communication, the same result
        up to rounding; neither compiled nor in fp16). A run may be resumed with the other one.
    statistics
        With `start_from`, which statistics normalize the channels of `start_from`: "inherit" keeps those it has
        (same grid and units), "compute" those of the new data. "auto" inherits where channels, grid and units are the
        same, and is an error elsewhere.
    memory
        Bytes that the states may take on a machine, a quarter of them for the validation period; "auto" is 60 % of
        the free memory. Chunks being decoded come on top. If all states fit, they are decoded once and kept; else they
        are streamed, which changes the order of the windows. A resumed run keeps its order.
    engine
        Reader of Zarr on a local disk: "zarr" or "tensorstore"; "auto" takes tensorstore where it is installed. It
        changes no number.
    save_minutes
        Minutes between two saves of the state, besides those after every epoch; 0 saves it after every step.
    seed
        Of the initial weights, the order of the windows, the dropped blocks and the noise; below 2**32.
    progress
        Show a progress bar; without a terminal, in a log file, a line after every epoch and every minute.

    Raises
    ------
    ValueError
        If a setting is out of range, or another one makes it ineffective.
    """

    epochs: int = 50
    batch_size: int = 4
    accumulate_grad_batches: int = 1
    limit_train_batches: int | None = None
    max_steps: int | None = None
    optimizer: str = "muon"
    learning_rate: float = 8e-3
    schedule: str = "cosine"
    warmup: float | None = None
    weight_decay: float | None = None
    gradient_clip: float | None = 1.0
    loss: str = "mse"
    members: int = _MEMBERS
    crps_share: float | None = None
    loss_normalization: str = "change"
    area_weighted: bool = True
    lead_weights: tuple[float, ...] | None = None
    variable_weights: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    rollout: int = 1
    rollout_share: float = _ROLLOUT_SHARE
    input_noise: float = 0.0
    ema_decay: float = 0.99
    patience: int | None = None
    validation_windows: int = 256
    select: str = "loss"
    select_every: int = 1
    precision: str = "auto"
    compile: bool | str = "auto"
    activation_checkpointing: bool = False
    strategy: str = "ddp"
    statistics: str = "auto"
    memory: int | str = "auto"
    engine: str = "auto"
    save_minutes: float = 10.0
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.warmup is None and isinstance(self.schedule, str):
            object.__setattr__(self, "warmup", _WARMUP.get(self.schedule))
        for name, (rule, is_valid, convert) in _RULES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not is_valid(value):
                raise ValueError(f"{name}={value!r} must be {rule}")
            if convert is not None:
                object.__setattr__(self, name, convert(value))
        if self.patience is not None and self.patience >= self.epochs:
            ignored = f"patience={self.patience} would be ignored with epochs={self.epochs}"
            raise ValueError(f"{ignored}: set it lower, or leave it out")
        if self.optimizer == "adam" and self.weight_decay:
            ignored = f"optimizer='adam' has no weight decay, but weight_decay={self.weight_decay:g}"
            raise ValueError(f"{ignored}: leave it out, or set optimizer='adamw'")
        if self.loss != "crps" and (self.members != _MEMBERS or self.crps_share is not None):
            ignored = f"members={self.members} and crps_share={self.crps_share} are for loss='crps'"
            raise ValueError(f"{ignored}: set it, or leave them out")
        if self.strategy == "fsdp" and (self.compile is True or self.precision == "16-mixed"):
            setting = "compile=True" if self.compile is True else "precision='16-mixed'"
            raise ValueError(f"strategy='fsdp' does not support {setting}: leave it out, or take strategy='ddp'")
        if self.strategy == "fsdp" and self.optimizer == "muon":
            message = "strategy='fsdp' divides the matrices that optimizer='muon' needs whole"
            raise ValueError(f"{message}: take optimizer='adamw', or strategy='ddp'")
        if self.select == "loss" and self.select_every != 1:
            ignored = f"select_every={self.select_every} would be ignored with select='loss'"
            raise ValueError(f"{ignored}: set select='rollout', or leave select_every out")
        if self.select == "rollout" and self.patience is not None:
            rule = f"patience={self.patience} counts epochs without a better loss"
            raise ValueError(f"{rule}, and select='rollout' chooses by another measure: leave patience out")
        if self.rollout == 1 and self.rollout_share != _ROLLOUT_SHARE:
            ignored = f"rollout_share={self.rollout_share:g} would be ignored with rollout=1"
            raise ValueError(f"{ignored}: set rollout to the number of network calls, or leave rollout_share out")

    def leads(self, task: Task) -> int:
        """Return the number of leads in a window; ValueError if a setting does not fit the task."""
        history, horizon = task.history, task.horizon
        if self.rollout > 1 and self.rollout * history <= horizon:
            rule = f"rollout={self.rollout} calls of {history} steps must reach beyond horizon={horizon}"
            raise ValueError(f"{rule}: set rollout to at least {horizon // history + 1}, or leave it out")
        if task.inputs and (self.rollout > 1 or self.select == "rollout"):
            setting = f"rollout={self.rollout}" if self.rollout > 1 else "select='rollout'"
            rule = f"{setting} needs forecasts of all inputs, and inputs={list(task.inputs)} are not"
            raise ValueError(f"{rule} forecast: leave it out, or add them to Task.variables")
        if self.lead_weights is not None and len(self.lead_weights) != horizon:
            count = len(self.lead_weights)
            raise ValueError(f"lead_weights has {count} numbers and the task horizon={horizon}: give one per step")
        names = list(task.forecast_variables)
        with_levels = {f"{name}_{level:g}" for name in names for level in task.levels or ()}
        if unknown := sorted(dict(self.variable_weights).keys() - with_levels - set(names)):
            example = f", or of their levels, such as {min(with_levels)!r}" if with_levels else ""
            raise ValueError(f"variable_weights names {unknown}, which must be variables of {names}{example}")
        return horizon if self.rollout == 1 else self.rollout * history
