"""Forcings: inputs that are known at any time, computed from the sun, the clock and the position.

At a given time and latitude, each forcing that varies in time is a first harmonic in longitude,

    field = A + B cos(longitude) + C sin(longitude),

with insolation clipped below at 0. All forcings are of order one and need no normalization.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.harmonics import year_fraction
from simvp_climate.data.windows import count_text

# built-in names of Task(forcings=...); any other name is a static field of the dataset
FORCINGS = ("insolation", "time_of_day", "time_of_year", "coordinates")
COORDINATE_CHANNELS = ("latitude_sin", "latitude_cos_longitude_cos", "latitude_cos_longitude_sin")

_VARYING_CHANNELS: dict[str, tuple[str, ...]] = {"insolation": ("insolation",)}
_VARYING_CHANNELS |= {name: (f"{name}_cos", f"{name}_sin") for name in ("time_of_day", "time_of_year")}
_REAL_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_DAY = pd.Timedelta(days=1)
_MEAN_YEAR = 365.2425  # days, of the Gregorian calendar


def varying_channels(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the channels that vary in time, in the order of `names`."""
    return tuple(channel for name in names for channel in _VARYING_CHANNELS.get(name, ()))


def static_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the forcings that are static fields of the dataset, such as "orography"."""
    return tuple(name for name in names if name not in FORCINGS)


def longitude_harmonics(
    names: Sequence[str], times: pd.Index, latitude: np.ndarray, step: pd.Timedelta | int
) -> np.ndarray:
    """Return A, B and C of every varying channel: its field is A + B cos(longitude) + C sin(longitude).

    - Insolation at the top of the atmosphere, divided by the solar constant (1361 W m-2): 0 to 1.034. For steps
      shorter than a day, its value at the time stamp, which the caller clips at 0; for longer steps and
      calendar months, the mean over the 24 hours around the time stamp (not over the month).
    - Time of day: cosine and sine of local mean solar time, one turn per day, 1 and 0 at midnight.
    - Time of year: cosine and sine of the elapsed fraction of the year in the calendar of the times, 1 and 0 at the
      start of January. In model calendars (noleap, all_leap, 360_day, julian) it also gives the position of the sun.

    `times` are UTC in any calendar, `latitude` is in degrees north, an integer `step` is in calendar months. The result
    is (time, channel, latitude, 3), float32, dimensionless. ValueError if "time_of_day" is constant with this step.
    """
    is_monthly = isinstance(step, int)
    if "time_of_day" in names and (is_monthly or step % _DAY == pd.Timedelta(0)):
        length = count_text(step, "months") if is_monthly else count_text(step // _DAY, "days")
        raise ValueError(f"The forcing 'time_of_day' is constant with a step of {length}. Leave it out of forcings.")
    is_daily_mean = is_monthly or step >= _DAY
    latitude = np.deg2rad(np.asarray(latitude, np.float64))
    clock = xr.DataArray(times, dims="time").dt
    # phases in radians: of the day, 0 at midnight UTC at Greenwich; of the year, 0 at its start
    day = 2 * np.pi * (clock.hour * 3600 + clock.minute * 60 + clock.second).values / 86400
    year = 2 * np.pi * year_fraction(clock)
    ones = np.ones_like(latitude)
    channels = []  # (3, time, latitude) each
    for name in names:
        if name == "insolation":
            declination, distance_factor, equation_of_time = _solar_position(_astronomical_days(times, clock))
            if is_daily_mean:
                channels.append(_daily_mean_insolation(declination, distance_factor, latitude))
            else:
                hour_angle = day - np.pi + equation_of_time  # on the meridian of Greenwich
                channels.append(_insolation(declination, distance_factor, hour_angle, latitude))
        elif name == "time_of_day":
            # local time is day + longitude: cos(day + longitude) = cos(day) cos(longitude) - sin(day) sin(longitude)
            zero, cosine, sine = (np.outer(values, ones) for values in (0 * day, np.cos(day), np.sin(day)))
            channels += [np.stack([zero, cosine, -sine]), np.stack([zero, sine, cosine])]
        elif name == "time_of_year":
            for values in (np.cos(year), np.sin(year)):
                constant = np.outer(values, ones)
                channels.append(np.stack([constant, 0 * constant, 0 * constant]))
    if not channels:
        return np.zeros((len(times), 0, len(latitude), 3), np.float32)
    return np.stack(channels).transpose(2, 0, 3, 1).astype(np.float32)


def coordinate_fields(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return `COORDINATE_CHANNELS`, the position of each cell on the unit sphere, (channel, latitude, longitude)."""
    latitude, longitude = (np.deg2rad(np.asarray(degrees, np.float64)) for degrees in (latitude, longitude))
    rows = np.stack([np.sin(latitude), np.cos(latitude), np.cos(latitude)])
    columns = np.stack([np.ones_like(longitude), np.cos(longitude), np.sin(longitude)])
    return (rows[:, :, None] * columns[:, None]).astype(np.float32)


def _insolation(
    declination: np.ndarray, distance_factor: np.ndarray, hour_angle: np.ndarray, latitude: np.ndarray
) -> np.ndarray:
    """Return the harmonics of insolation = distance factor * cos(zenith angle), (3, time, latitude)."""
    # cos(zenith angle) = sin(latitude) sin(declination) + cos(latitude) cos(declination) cos(hour angle + longitude),
    # with the last cosine expanded in longitude
    constant, amplitude = distance_factor * np.sin(declination), distance_factor * np.cos(declination)
    times = np.stack([constant, amplitude * np.cos(hour_angle), -amplitude * np.sin(hour_angle)])
    rows = np.stack([np.sin(latitude), np.cos(latitude), np.cos(latitude)])
    return times[:, :, None] * rows[:, None]


def _daily_mean_insolation(declination: np.ndarray, distance_factor: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return the harmonics of daily mean insolation, (3, time, latitude), which does not vary with longitude.

    distance factor / pi * (h0 sin(latitude) sin(declination) + cos(latitude) cos(declination) sin(h0)), with the half
    day h0 from cos(h0) = -tan(latitude) tan(declination) (D. L. Hartmann, Global Physical Climatology, chapter 2).
    """
    half_day = np.arccos(np.clip(-np.outer(np.tan(declination), np.tan(latitude)), -1, 1))
    constant = half_day * np.outer(np.sin(declination), np.sin(latitude))
    amplitude = np.sin(half_day) * np.outer(np.cos(declination), np.cos(latitude))
    # rounding can make it negative at the edge of the polar night
    mean = np.maximum(distance_factor[:, None] / np.pi * (constant + amplitude), 0)
    return np.stack([mean, 0 * mean, 0 * mean])


def _solar_position(days: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return declination, (mean distance / distance)^2 and equation of time, in radians, `days` after 2000-01-01 12."""
    # Astronomical Almanac, section C, "Low precision formulas for the Sun": to 0.01 degrees from 1950 to 2050
    mean_longitude = np.deg2rad(280.460 + 0.9856474 * days)
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    longitude = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))  # ecliptic
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)  # astronomical units
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    equation_of_time = (mean_longitude - right_ascension + np.pi) % (2 * np.pi) - np.pi  # without full turns
    return np.arcsin(np.sin(obliquity) * np.sin(longitude)), distance**-2, equation_of_time


def _astronomical_days(times: pd.Index, clock: Any) -> np.ndarray:
    """Return the days since 2000-01-01 12:00 UTC; in a model calendar, of the same fraction of a mean year."""
    if isinstance(times, pd.DatetimeIndex):
        # milliseconds, because nanoseconds overflow 292 years from 2000
        since = times.values.astype("datetime64[ms]") - np.datetime64("2000-01-01T12", "ms")
        return since / np.timedelta64(1, "D")
    if clock.calendar in _REAL_CALENDARS:
        noon = times.date_type(2000, 1, 1, 12)
        return np.array([(time - noon).total_seconds() for time in times]) / 86400
    return _MEAN_YEAR * year_fraction(clock) - 0.5
