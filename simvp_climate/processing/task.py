"""The forecast task: variables, levels, lengths and time step in one frozen object."""

import itertools
import math
from collections.abc import ItemsView, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from simvp_climate.data import variables as vocabulary
from simvp_climate.data.html_table import html_table
from simvp_climate.data.windows import count_text, parse_step

_MAX_STEPS = 10_000
_ROLES = ("variables", "inputs", "diagnostics", "prescribed")


@dataclass(frozen=True)
class Task:
    """Input and output of a forecast.

    Parameters
    ----------
    variables
        Names as in WeatherBench ("z500", "t2m", "geopotential"), CF standard names, or names in your own file; "uv10"
        stands for "u10" and "v10". The forecast has these names.
    levels
        Pressure levels in hPa for the variables that have levels.
    history
        Number of input states; the last one is at the initialization time.
    horizon
        Number of steps to forecast. The network emits `history` steps per call; a longer horizon is rolled out.
    step
        Time between states: "6h", "1D", or calendar months "1MS". A multiple of the data's own step.
    forcings
        Inputs known at input and forecast times: "insolation" (at the top of the atmosphere; for steps of a day or
        more its daily mean), "time_of_day", "time_of_year", "coordinates", and static fields by their name in the
        training data ("orography", "land_sea_mask").
    inputs
        Variables that are input but not forecast. They rule out a rollout, so `horizon` is at most `history`.
    diagnostics
        Variables that are forecast but not input, such as precipitation. Only training needs their data.
    prescribed
        Variables that are read from the data at input and forecast times and never forecast, such as the sea surface
        temperature in a run of the atmosphere. Forecasts need data that hold them up to the last valid time.
    transforms
        Transforms and bounds by variable. "log" for precipitation: the network learns log(1 + x / 0.01 mm), and
        forecasts are not negative; `("log", scale)` for other variables, in their units. `(low, high)` clamps
        forecasts, None means no bound: `{"tp": "log", "tcc": (0, 1), "q": (0, None)}`. Stored as pairs.

    Raises
    ------
    ValueError
        If a setting is invalid, or a name appears twice.
    """

    variables: tuple[str, ...]
    levels: tuple[float, ...] | None = None
    history: int = 4
    horizon: int = 4
    step: str = "6h"
    forcings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    prescribed: tuple[str, ...] = ()
    transforms: Mapping[str, object] | tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        # users write lists; tuples can be compared and hashed
        for name in (*_ROLES, "forcings"):
            names = _parse_names(name, getattr(self, name), required=name == "variables")
            if name == "variables" or (names and name != "forcings"):
                names = tuple(vocabulary.expand(names))
            object.__setattr__(self, name, names)
        object.__setattr__(self, "levels", _parse_levels(self.levels))
        for name in ("history", "horizon"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= value <= _MAX_STEPS:
                raise ValueError(f"{name}={value!r} must be an integer from 1 to {_MAX_STEPS} (number of steps).")
            object.__setattr__(self, name, int(value))
        parse_step(self.step)
        for first, second in itertools.combinations((*_ROLES, "forcings"), 2):
            if common := sorted(set(getattr(self, first)) & set(getattr(self, second))):
                fix = "Use variables for input and output, inputs for input only, diagnostics for output only, "
                fix += "prescribed for what is read at forecast times too, forcings for what can be computed."
                raise ValueError(f"{common} must not be in both {first} and {second}. {fix}")
        if self.inputs and self.horizon > self.history:
            rule = f"inputs={list(self.inputs)} are not forecast for a second call"
            fix = f"Set horizon={self.history}, or move them to variables."
            raise ValueError(f"horizon={self.horizon} must be at most history={self.history}: {rule}. {fix}")
        object.__setattr__(self, "transforms", _parse_transforms(self.transforms, self.all_variables))

    def _repr_html_(self) -> str:
        levels = ", ".join(f"{level:g}" for level in self.levels or ())
        rows = {
            "forecast": ", ".join(self.forecast_variables) + (f" at {levels} hPa" if levels else ""),
            "from": f"{count_text(self.history, 'states')} {self.step} apart" if self.history > 1 else "1 state",
            "to": f"{count_text(self.horizon, 'steps')} of {self.step}",
            "forcings": ", ".join(self.forcings),
            "input only": ", ".join(self.inputs),
            "output only": ", ".join(self.diagnostics),
            "prescribed": ", ".join(self.prescribed),
            "transforms": [f"{name}: {transform}" for name, transform in self.transforms],
        }
        return html_table("Task", rows)

    @property
    def all_variables(self) -> tuple[str, ...]:
        """All variables in the order of the channels: `variables`, `inputs`, `diagnostics`, `prescribed`."""
        return (*self.variables, *self.inputs, *self.diagnostics, *self.prescribed)

    @property
    def read_variables(self) -> tuple[str, ...]:
        """The variables whose data a forecast reads: `variables`, `inputs`, `prescribed`."""
        return (*self.variables, *self.inputs, *self.prescribed)

    @property
    def forecast_variables(self) -> tuple[str, ...]:
        """The variables of a forecast: `variables`, `diagnostics`."""
        return (*self.variables, *self.diagnostics)


def is_finite(value: object) -> bool:
    """Return whether a value is a finite number that a float can hold."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


def _parse_names(setting: str, names: object, required: bool) -> tuple[str, ...]:
    if names is None and not required:
        return ()
    if not isinstance(names, list | tuple):
        fix = f" Write {setting}=[{names!r}]." if isinstance(names, str) else ""
        raise ValueError(f"{setting}={names!r} must be a list of names.{fix}")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{setting} contains {name!r}, which must be a name such as 't2m'.")
    _check_unique(setting, names)
    return tuple(names)


def _parse_levels(levels: object) -> tuple[float, ...] | None:
    if levels is None:
        return None
    if not np.iterable(levels):
        raise ValueError(f"levels={levels!r} must be a list of pressures in hPa. Write levels=[{levels!r}].")
    levels = list(levels)
    if not levels:
        raise ValueError("levels=[] must contain pressures in hPa. Write levels=[500, 850], or leave it out.")
    for level in levels:
        if isinstance(level, bool) or not is_finite(level) or level <= 0:
            raise ValueError(f"levels contains {level!r}, which must be a positive pressure in hPa, such as 500.")
    levels = tuple(float(level) for level in levels)
    _check_unique("levels", levels)
    return levels


def _check_unique(setting: str, values: Sequence) -> None:
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"{setting} must name {repeated} only once.")


def _parse_transforms(transforms: object, variables: tuple[str, ...]) -> tuple[tuple[str, object], ...]:
    pairs = transforms.items() if isinstance(transforms, Mapping) else transforms
    is_list = isinstance(pairs, ItemsView | list | tuple)
    if not is_list or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"transforms={transforms!r} must be a dict, such as {{'tp': 'log', 'tcc': (0, 1)}}.")
    # JSON in files turns tuples into lists
    pairs = tuple((name, tuple(transform) if isinstance(transform, list) else transform) for name, transform in pairs)
    _check_unique("transforms", [name for name, _ in pairs])
    for name, transform in pairs:
        if name not in variables:
            raise ValueError(f"transforms names {name!r}, which must be one of the variables {list(variables)}.")
        if not _is_transform(transform):
            rule = "'log', ('log', scale) with scale > 0, or (low, high) with low < high, one of them None for no"
            raise ValueError(f"transforms={{{name!r}: {transform!r}}} must be {rule} bound.")
    return pairs


def _is_transform(transform: object) -> bool:
    """Return whether a value is "log", ("log", scale) or (low, high)."""
    if transform == "log":
        return True
    if not isinstance(transform, Sequence) or isinstance(transform, str) or len(transform) != 2:
        return False
    first, second = transform
    if first == "log":
        return is_finite(second) and second > 0
    bounds = [value for value in transform if value is not None]
    return bool(bounds) and all(map(is_finite, bounds)) and (len(bounds) < 2 or first < second)
