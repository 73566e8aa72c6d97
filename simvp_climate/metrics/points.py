"""Forecasts without a grid, at stations or of an index, as one row of cells of equal weight, which metrics can take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_candidates, find_member
from simvp_climate.data.stations import STATION
from simvp_climate.data.variables import conversion, same_units

_EXTENT = 180.0  # degrees of longitude: a row that does not circle the globe
_NOT_SPACE = {"init_time", "lead_time", "time", "level", "hour", "dayofyear", "week", "month", "bnds"}


@dataclass(frozen=True)
class Rows:
    """All datasets of a verification, each as a row of cells."""

    forecast: xr.Dataset
    truth: xr.Dataset
    climatology: xr.Dataset | None
    event_frequency: xr.Dataset | None
    baselines: dict[str, xr.Dataset | Callable]


def has_grid(dataset: xr.Dataset) -> bool:
    """Return whether a dataset has, or should have, latitudes and longitudes: it is not at stations, and no series."""
    if STATION in dataset.coords or STATION in dataset.dims:
        return False
    candidates = find_candidates(dataset)
    others = {str(dim) for dim in dataset.dims} - _NOT_SPACE - {find_member(dataset)}
    return bool(candidates["latitude"] or candidates["longitude"] or others)


def as_rows(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset | None, event_frequency: xr.Dataset | None,
    baselines: Mapping[str, xr.Dataset | Callable],
) -> Rows:  # fmt: skip
    """Return all datasets at the stations of a forecast without a grid, in its order and, if they convert, its units.

    ValueError if a dataset has a grid, or lacks a station.
    """
    stations = None
    if STATION in forecast.coords:
        stations = np.atleast_1d(forecast[STATION].values)

    def row(dataset: xr.Dataset | None, role: str) -> xr.Dataset | None:
        return None if dataset is None else _as_row(_convert(_select(dataset, stations, role), forecast))

    stored = {
        name: row(baseline, name) if isinstance(baseline, xr.Dataset) else baseline
        for name, baseline in baselines.items()
    }
    return Rows(
        _as_row(forecast), row(truth, "the truth"), row(climatology, "the climatology"),
        row(event_frequency, "the event frequency"), stored,
    )  # fmt: skip


def _select(dataset: xr.Dataset, stations: np.ndarray | None, role: str) -> xr.Dataset:
    if has_grid(dataset):
        fix = (
            "Interpolate it: sc.at(..., stations=forecast)" if stations is not None else "Compute the same index of it"
        )
        raise ValueError(f"{role} is on a grid, the forecast is not. {fix}")
    if stations is None or STATION not in dataset.dims:
        return dataset
    labels = dataset.indexes[STATION]
    if missing := [str(name) for name in stations if name not in labels]:
        known = ", ".join(map(str, labels[:5]))
        fix = "Select those that it has: forecast.sel(station=[...])"
        count = f"{len(missing)} of {len(stations)} stations"
        raise ValueError(f"{role} lacks {count}, first {missing[0]!r}; it has {known}. {fix}")
    return dataset.sel({STATION: stations})


def _convert(dataset: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose variables are in the units of another, where these convert exactly."""
    for name in set(dataset.data_vars) & set(like.data_vars):
        source, target = dataset[name].attrs.get("units"), like[name].attrs.get("units")
        if source is None or target is None or same_units(source, target):
            continue
        if (factors := conversion(str(name), source, target)) is not None:
            converted = dataset[name] * factors[0] + factors[1]
            dataset = dataset.assign({name: converted.assign_attrs(dataset[name].attrs, units=target)})
    return dataset


def _as_row(dataset: xr.Dataset) -> xr.Dataset:
    """Return stations along a longitude of no meaning, at one latitude; a series is one station."""
    places = (STATION, "latitude", "longitude", "elevation")
    dataset = dataset.drop_vars([n for n, c in dataset.coords.items() if STATION in c.dims or n in places])
    dataset = dataset.rename({STATION: "longitude"}) if STATION in dataset.dims else dataset.expand_dims("longitude")
    count = dataset.sizes["longitude"]
    row = dataset.assign_coords(longitude=np.arange(count) * (_EXTENT / count)).expand_dims(latitude=[0.0])
    return row.transpose(..., "latitude", "longitude")
