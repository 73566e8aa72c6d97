"""Harmonics of the year and of the day: a smooth climatology in nine numbers per cell."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

ANNUAL, DAILY = 3, 1  # waves in a year and in a day
NAMES = (
    "mean",
    *(f"{function} of {wave} in a year" for wave in range(1, ANNUAL + 1) for function in ("cos", "sin")),
    *(f"{function} of {wave} in a day" for wave in range(1, DAILY + 1) for function in ("cos", "sin")),
)
IS_ANNUAL = np.array(["year" in name for name in NAMES])
IS_DAILY = np.array(["day" in name for name in NAMES])


def harmonic_basis(times: pd.Index | np.ndarray) -> np.ndarray:
    """Return the values of all harmonics at some times of any calendar, (time, harmonic), in the order of `NAMES`."""
    clock = xr.DataArray(times, dims="time").dt
    year, day = 2 * np.pi * year_fraction(clock), 2 * np.pi * _day_fraction(clock)
    waves = [wave * year for wave in range(1, ANNUAL + 1)] + [wave * day for wave in range(1, DAILY + 1)]
    columns = [np.ones(len(year)), *(function(wave) for wave in waves for function in (np.cos, np.sin))]
    return np.stack(columns, axis=1)


def year_fraction(clock: Any) -> np.ndarray:
    """Return the elapsed fraction of the year, 0 to 1, for the accessor `.dt` of some times."""
    return (clock.dayofyear.values - 1 + _day_fraction(clock)) / clock.days_in_year.values


def _day_fraction(clock: Any) -> np.ndarray:
    return (clock.hour * 3600 + clock.minute * 60 + clock.second).values / 86400
