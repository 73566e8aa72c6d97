"""Split a Dataset into training, validation and test periods."""

import itertools
from typing import NamedTuple

import pandas as pd
import xarray as xr

_WEATHERBENCH = ("2015", "2016", "2018")  # the last years of training, validation and test (Rasp et al. 2020)


class Splits(NamedTuple):
    """Three consecutive periods of a Dataset, lazy where it is."""

    train: xr.Dataset
    valid: xr.Dataset
    test: xr.Dataset


def split(dataset: xr.Dataset, train_until: str | None = None, valid_until: str | None = None) -> Splits:
    """Return the training, validation and test periods, consecutive in time.

    Parameters
    ----------
    dataset
        With a dimension `time`, in order.
    train_until, valid_until
        Last dates, included, as xarray reads them: "2015", "2003-08", "2003-08-31T12"; the test period follows. None
        for both: WeatherBench's periods, training to 2015, validation 2016, test 2017 and 2018.

    Raises
    ------
    ValueError
        If a period is empty, only one date is given, or none is and the data do not cover WeatherBench's years.
    """
    times = dataset.indexes["time"]
    if (train_until is None) != (valid_until is None):
        raise ValueError(f"train_until={train_until!r} and valid_until={valid_until!r} must come together. Pass both")
    last = None
    if train_until is None:
        if not {2015, 2016, 2017, 2018} <= {*times.year}:
            message = (
                f"the data, {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}, do not cover WeatherBench's years 2015 to 2018"
            )
            train, valid = _example_dates(times)
            raise ValueError(
                f"{message}. Pass the last dates, for example train_until={train!r}, valid_until={valid!r}"
            )
        train_until, valid_until, last = _WEATHERBENCH
    if not times.is_monotonic_increasing:
        raise ValueError("the times must increase. ds = ds.sortby('time')")
    ends = [dataset.sel(time=slice(None, date)).sizes["time"] for date in (train_until, valid_until, last)]
    splits = Splits(*(dataset.isel(time=slice(*positions)) for positions in itertools.pairwise([0, *ends])))
    for name, period in zip(("training", "validation", "test"), splits, strict=True):
        if not period.sizes["time"]:
            periods = f"training until {train_until}, validation until {valid_until}"
            message = f"the {name} period is empty, with {periods} and data from {times[0]} to {times[-1]}"
            raise ValueError(f"{message}. Choose dates within the data, in order")
    return splits


def _example_dates(times: pd.Index) -> tuple[str, str]:
    """Return the year or day at seven tenths of the times, and that at 85 %."""
    pattern = "%Y" if times[-1].year - times[0].year >= 8 else "%Y-%m-%d"
    first, second = (times[int(share * (len(times) - 1))].strftime(pattern) for share in (0.7, 0.85))
    return first, second
