"""Inputs known at any time, also beyond the end of the data: the sun, the clock, the place.

At a given time and latitude, each of them that changes with time is a first harmonic in longitude,

    field = A + B cos(longitude) + C sin(longitude),

insolation cut below at 0. So three numbers stand for a whole row, and whoever needs the field multiplies it
out where it is used. All are of order one by construction: no statistics are needed to scale them.

The position of the sun is that of the low-precision formulas of the Astronomical Almanac (section C, "Low
precision formulas for the Sun"): 0.01 degrees and a few seconds of time from 1950 to 2050.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

# what Task(forcings=...) may name; any other name is a static field of the dataset
FORCINGS = ("insolation", "time_of_day", "time_of_year", "coordinates")
COORDINATE_CHANNELS = ("latitude_sin", "latitude_cos_longitude_cos", "latitude_cos_longitude_sin")

_CHANNELS = {
    "insolation": ("insolation",),
    "time_of_day": ("time_of_day_cos", "time_of_day_sin"),
    "time_of_year": ("time_of_year_cos", "time_of_year_sin"),
}
_REAL_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_DAY = pd.Timedelta(days=1)
_MEAN_YEAR = 365.2425  # days


def channels(names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the channels that change with time, in the order of `names`.

    "insolation" has one, "time_of_day" and "time_of_year" have two, the cosine and the sine of their phase.
    Names that do not change with time ("coordinates", static fields of a dataset) have none here.
    """
    return tuple(channel for name in names for channel in _CHANNELS.get(name, ()))


def static_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return those names that are none of ours: fields without time that the dataset must have."""
    return tuple(name for name in names if name not in FORCINGS)


def clipped(names: Sequence[str]) -> np.ndarray:
    """Return for each of `channels(names)` whether its field is cut below at 0, dtype bool."""
    return np.array([channel == "insolation" for channel in channels(names)], bool)


def harmonics(names: Sequence[str], times: pd.Index, latitude: np.ndarray, step: pd.Timedelta | int) -> np.ndarray:
    """Return A, B and C of every channel: its field is A + B cos(longitude) + C sin(longitude).

    - insolation at the top of the atmosphere over the solar constant (1361 W m-2), so 0 to 1.034. For steps
      shorter than a day, that at the moment of the time stamp: the squared mean distance over the distance
      of the sun, times the cosine of the zenith angle, to be cut at 0 (`clipped`). For steps of a day or
      more and for calendar months, the mean over the 24 hours around the time stamp (not over the month):
      distance factor / pi * (h0 sin(latitude) sin(declination) + cos(latitude) cos(declination) sin(h0)),
      with cos(h0) = -tan(latitude) tan(declination) cut to -1..1, the half day; then B and C are 0.
    - time of day: cosine and sine of local mean solar time, a full turn a day, 1 and 0 at midnight.
    - time of year: cosine and sine of the part of the year that has passed in the calendar of the times,
      1 and 0 at the start of January; A alone.

    In calendars of models (noleap, all_leap, 360_day, julian) the sun stands where it stands after the same
    part of the mean year: the March equinox is on 21 March in noleap, on 19 March in 360_day.

    Parameters
    ----------
    names
        Any of `FORCINGS` and of other names; only those that change with time count, see `channels`.
    times
        UTC, a DatetimeIndex or a CFTimeIndex of any calendar.
    latitude
        Degrees north, one-dimensional.
    step
        Time between states, a number of calendar months if an int.

    Returns
    -------
    Array (time, channel, latitude, 3), float32, no unit.

    Raises
    ------
    ValueError
        If time_of_day is asked for at steps of whole days or months: it would be the same at every time.
    """
    monthly = isinstance(step, int)
    if "time_of_day" in names and (monthly or step % _DAY == pd.Timedelta(0)):
        text = f"{step} months" if monthly else f"{step / _DAY:g} days"
        raise ValueError(
            f"the forcing 'time_of_day' is the same at every time when the step is {text}: leave it out of forcings"
        )
    daily = monthly or step >= _DAY
    radians = np.deg2rad(np.asarray(latitude, np.float64))
    clock = xr.DataArray(times, dims="time").dt
    # midnight UTC on the meridian of Greenwich is phase 0
    day = 2 * np.pi * (clock.hour * 3600 + clock.minute * 60 + clock.second).values / 86400
    year = 2 * np.pi * _part_of_year(clock)
    row = np.ones_like(radians)
    rows = []  # each (3, time, latitude)
    for name in names:
        if name == "insolation":
            declination, distance_factor, equation_of_time = _sun(_days_since_2000(times, clock))
            if daily:
                rows.append(_mean_insolation(declination, distance_factor, radians))
            else:
                hour_angle = day - np.pi + equation_of_time  # on the meridian of Greenwich
                rows.append(_insolation(declination, distance_factor, hour_angle, radians))
        elif name == "time_of_day":
            # cos(day + longitude) and sin(day + longitude), multiplied out
            zero, cosine, sine = (np.outer(part, row) for part in (0 * day, np.cos(day), np.sin(day)))
            rows += [np.stack([zero, cosine, -sine]), np.stack([zero, sine, cosine])]
        elif name == "time_of_year":
            for part in (np.cos(year), np.sin(year)):
                constant = np.outer(part, row)
                rows.append(np.stack([constant, 0 * constant, 0 * constant]))
    if not rows:
        return np.zeros((len(times), 0, len(radians), 3), np.float32)
    return np.stack(rows).transpose(2, 0, 3, 1).astype(np.float32)


def coordinate_fields(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return where a cell is, as its position on the unit sphere: without a seam and without a scale.

    Parameters
    ----------
    latitude, longitude
        Degrees north and east, one-dimensional, in any order and range.

    Returns
    -------
    Array (channel, latitude, longitude), float32, channels as in `COORDINATE_CHANNELS`: sin(latitude),
    cos(latitude) cos(longitude), cos(latitude) sin(longitude).
    """
    row, column = np.deg2rad(np.asarray(latitude, np.float64)), np.deg2rad(np.asarray(longitude, np.float64))
    fields = [
        np.outer(np.sin(row), np.ones_like(column)),
        np.outer(np.cos(row), np.cos(column)),
        np.outer(np.cos(row), np.sin(column)),
    ]
    return np.stack(fields).astype(np.float32)


def _insolation(
    declination: np.ndarray, distance_factor: np.ndarray, hour_angle: np.ndarray, latitude: np.ndarray
) -> np.ndarray:
    """Return (3, time, latitude): the cosine of the zenith angle by the distance, multiplied out in longitude."""
    level = distance_factor * np.sin(declination)
    swing = distance_factor * np.cos(declination)
    return np.stack(
        [
            np.outer(level, np.sin(latitude)),
            np.outer(swing * np.cos(hour_angle), np.cos(latitude)),
            np.outer(-swing * np.sin(hour_angle), np.cos(latitude)),
        ]
    )


def _mean_insolation(declination: np.ndarray, distance_factor: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return (3, time, latitude): the mean over a day, the same at all longitudes."""
    half_day = np.arccos(np.clip(-np.outer(np.tan(declination), np.tan(latitude)), -1, 1))
    level = half_day * np.outer(np.sin(declination), np.sin(latitude))
    swing = np.sin(half_day) * np.outer(np.cos(declination), np.cos(latitude))
    # rounding at the edge of the polar night
    mean = np.maximum(distance_factor[:, None] / np.pi * (level + swing), 0)
    return np.stack([mean, 0 * mean, 0 * mean])


def _sun(days: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return declination (radians), squared mean distance over distance, and equation of time (radians).

    Days are counted from 2000-01-01 12:00 UTC. Astronomical Almanac, low-precision formulas for the sun.
    """
    mean_longitude = np.deg2rad(280.460 + 0.9856474 * days)
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    longitude = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)  # astronomical units
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    difference = mean_longitude - right_ascension
    return (
        np.arcsin(np.sin(obliquity) * np.sin(longitude)),
        distance**-2,
        (difference + np.pi) % (2 * np.pi) - np.pi,  # both angles are known but for full turns
    )


def _days_since_2000(times: pd.Index, clock: Any) -> np.ndarray:
    """Return the days since 2000-01-01 12:00; in a model's calendar those of the same part of a mean year."""
    if isinstance(times, pd.DatetimeIndex):
        # milliseconds: nanoseconds would overflow 292 years from 2000
        since = times.values.astype("datetime64[ms]") - np.datetime64("2000-01-01T12", "ms")
        return since / np.timedelta64(1, "D")
    if clock.calendar in _REAL_CALENDARS:
        noon = times.date_type(2000, 1, 1, 12)
        return np.array([(time - noon).total_seconds() for time in times]) / 86400
    return _MEAN_YEAR * _part_of_year(clock) - 0.5


def _part_of_year(clock: Any) -> np.ndarray:
    """Return how much of its year has passed at each time, 0 to 1."""
    seconds = (clock.hour * 3600 + clock.minute * 60 + clock.second).values
    return (clock.dayofyear.values - 1 + seconds / 86400) / clock.days_in_year.values
