"""What is to be forecast: the one place that says variables, levels, lengths and step."""

import itertools
import math
from collections.abc import ItemsView, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from simvp_climate.data import variables as vocabulary
from simvp_climate.data.html_table import html_table
from simvp_climate.data.windows import parse_step

_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Task:
    """What goes in and what comes out of a forecast.

    Parameters
    ----------
    variables
        Names as in WeatherBench ("z500", "t2m", "geopotential"), as CF standard names, or as in your
        own file. "uv10" stands for "u10" and "v10". The forecast carries exactly these names.
    levels
        Pressure levels in hPa for the variables that have levels.
    history
        Number of past states that the network sees, the last one at the initialization time.
    horizon
        Number of steps to forecast. The network emits `history` steps per call; a shorter horizon is
        cut, a longer one is rolled out, in training as in forecasting.
    step
        Time between states: "6h", "1D", or calendar months "1MS". A multiple of the data's own step.
    forcings
        What is known at any time and helps: "insolation" (at the top of the atmosphere; for steps of a day or
        more its daily mean), "time_of_day", "time_of_year", "coordinates"; and fields without time by their name
        in the training data ("orography", "land_sea_mask"). The network sees them at its input times and at the
        times that it forecasts.
    inputs
        Variables that the network sees in the history and does not forecast. What they will be is not known, so
        nothing can be rolled out: `horizon` is then at most `history`.
    diagnostics
        Variables that are forecast and not seen in the history, such as precipitation: a forecast needs none of them
        in its Dataset.
    transforms
        How variables are bent or bounded, by name: "log" for precipitation (log(1 + x / 0.01 mm) is learned, and
        no forecast is negative), `("log", scale)` for others, in their units; `(low, high)` holds forecasts within
        bounds, `None` for none: `{"tp": "log", "tcc": (0, 1), "q": (0, None)}`. Kept as pairs.

    Raises
    ------
    ValueError
        If a length is below one, a name appears twice, the step cannot be read, or a transform is unknown or
        that of a variable that is not forecast.
    """

    variables: tuple[str, ...]
    levels: tuple[float, ...] | None = None
    history: int = 12
    horizon: int = 12
    step: str = "6h"
    forcings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    transforms: Mapping[str, object] | tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        for name in ("variables", "inputs", "diagnostics", "forcings"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise ValueError(f"{name}={given!r} is a string: give a list, [{given!r}]")
            if (given is not None or name == "variables") and not isinstance(given, list | tuple):
                raise ValueError(f"{name}={given!r}: give a list of names")
            if strange := [one for one in given or () if not isinstance(one, str)]:
                raise ValueError(f"{name} has {strange[0]!r}: give names, for example 't2m'")
        # lists are what people type; tuples are what can be compared and hashed
        object.__setattr__(self, "variables", tuple(vocabulary.expand(self.variables)))
        for name in ("inputs", "diagnostics"):
            object.__setattr__(self, name, tuple(vocabulary.expand(getattr(self, name))) if getattr(self, name) else ())
        if self.levels is not None:
            if not np.iterable(self.levels):
                raise ValueError(f"levels={self.levels!r}: give a list of pressures in hPa, [{self.levels!r}]")
            self._check_levels()
            object.__setattr__(self, "levels", tuple(float(level) for level in self.levels))
        if not self.variables:
            raise ValueError("variables is empty: name at least one, for example ['t2m']")
        roles = ("variables", "inputs", "diagnostics")
        for name in (*roles, "levels"):
            values = getattr(self, name) or ()
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{name} names {twice} more than once")
        for first, second in itertools.combinations(roles, 2):
            if both := sorted(set(getattr(self, first)) & set(getattr(self, second))):
                raise ValueError(
                    f"{both} are in both {first} and {second}: variables are seen and forecast, inputs are only seen, "
                    "diagnostics only forecast"
                )
        for name in ("history", "horizon"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of steps, at least 1")
            if value > _MOST_STEPS:
                raise ValueError(f"{name}={value!r} must be at most {_MOST_STEPS} steps")
            object.__setattr__(self, name, int(value))
        if self.inputs and self.horizon > self.history:
            raise ValueError(
                f"horizon={self.horizon} takes more than one call of the network, which emits history={self.history} "
                f"states, and of inputs={list(self.inputs)} no later state is known: take a horizon of at most "
                f"{self.history}, a longer history, or forecast them too (variables)"
            )
        parse_step(self.step)
        object.__setattr__(self, "forcings", tuple(self.forcings or ()))
        if twice := sorted({name for name in self.forcings if self.forcings.count(name) > 1}):
            raise ValueError(f"forcings names {twice} more than once")
        if both := sorted(set(self.forcings) & set(self.all_variables)):
            raise ValueError(f"{both} are both variables to forecast and forcings: they can be one of these")
        pairs = self.transforms.items() if isinstance(self.transforms, Mapping) else self.transforms
        pairs_given = isinstance(pairs, ItemsView | list | tuple)
        if not pairs_given or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"transforms={self.transforms!r}: write {{'tp': 'log', 'tcc': (0, 1)}}")
        # lists are what a file gives back
        pairs = tuple((name, tuple(how) if isinstance(how, list) else how) for name, how in pairs)
        object.__setattr__(self, "transforms", pairs)
        if twice := sorted({name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1}):
            raise ValueError(f"transforms names {twice} more than once")
        for name, how in pairs:
            if name not in self.all_variables:
                raise ValueError(f"transforms has {name!r}, which is none of the variables {list(self.all_variables)}")
            _check_transform(name, how)

    def _check_levels(self) -> None:
        levels = list(self.levels)
        if not levels:
            raise ValueError("levels is empty: name pressures in hPa, for example [500, 850], or leave it out")
        for level in levels:
            number = isinstance(level, Real) and not isinstance(level, bool)
            if not number or not is_finite(level) or not level > 0:
                raise ValueError(f"levels has {level!r}: give pressures in hPa, for example [500, 850]")

    def _repr_html_(self) -> str:
        levels = ", ".join(f"{level:g}" for level in self.levels or ())
        rows = {
            "forecast": ", ".join(self.forecast_variables) + (f" at {levels} hPa" if levels else ""),
            "from": f"{self.history} states {self.step} apart",
            "to": f"{self.horizon} steps of {self.step}",
            "forcings": ", ".join(self.forcings),
            "only seen": ", ".join(self.inputs),
            "only forecast": ", ".join(self.diagnostics),
            "transforms": [f"{name}: {how}" for name, how in self.transforms],
        }
        return html_table("Task", rows)

    @property
    def all_variables(self) -> tuple[str, ...]:
        """All variables in the order of the channels: seen and forecast, only seen, only forecast."""
        return (*self.variables, *self.inputs, *self.diagnostics)

    @property
    def forecast_variables(self) -> tuple[str, ...]:
        """The variables that a forecast has."""
        return (*self.variables, *self.diagnostics)


def is_finite(value: object) -> bool:
    """Say whether something is a number that a float can hold."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def _check_transform(name: str, how: object) -> None:
    if how == "log":
        return
    if isinstance(how, Sequence) and not isinstance(how, str) and len(how) == 2:
        first, second = how
        if first == "log" and is_finite(second) and second > 0:
            return
        numbers = [value for value in how if value is not None]
        if numbers and all(is_finite(value) for value in numbers) and (len(numbers) < 2 or first < second):
            return
    raise ValueError(
        f"transforms={{{name!r}: {how!r}}} is none: write 'log', ('log', scale) with a scale above 0, or bounds "
        "(low, high) with low < high, one of which may be None"
    )
