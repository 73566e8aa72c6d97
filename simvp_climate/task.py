"""What is to be forecast: the one place that says variables, levels, lengths and step."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from simvp_climate.data import variables as vocabulary
from simvp_climate.data.windows import parse_step


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

    Raises
    ------
    ValueError
        If a length is below one, a name appears twice, or the step cannot be read.
    """

    variables: tuple[str, ...]
    levels: tuple[float, ...] | None = None
    history: int = 12
    horizon: int = 12
    step: str = "6h"

    def __post_init__(self):
        if isinstance(self.variables, str):
            raise ValueError(f"variables={self.variables!r} is a string: give a list, [{self.variables!r}]")
        # lists are what people type; tuples are what can be compared and hashed
        object.__setattr__(self, "variables", tuple(vocabulary.expand(self.variables)))
        if self.levels is not None:
            if not np.iterable(self.levels):
                raise ValueError(f"levels={self.levels!r}: give a list of pressures in hPa, [{self.levels!r}]")
            object.__setattr__(self, "levels", tuple(float(level) for level in self.levels))
        if not self.variables:
            raise ValueError("variables is empty: name at least one, for example ['t2m']")
        for name, values in (("variables", self.variables), ("levels", self.levels or ())):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{name} names {twice} more than once")
        for name in ("history", "horizon"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of steps, at least 1")
            object.__setattr__(self, name, int(value))
        parse_step(self.step)
