"""The climatological ensemble: states of other years at the same time of year and day, as members."""

import functools
import uuid

import dask.array
import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import find_axes
from simvp_climate.data.windows import to_iso, valid_times
from simvp_climate.metrics.baselines.climatologies import finest_grouping, name_time
from simvp_climate.metrics.baselines.simple_persistence import Times, as_lead_time, as_times
from simvp_climate.metrics.pairs import period, refuse_overlap

_BLOCK_BYTES = 32 * 2**20  # of the members of one dask block
_NUMBER_ATTRS = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}


def climatological_ensemble(
    train: xr.Dataset, init_times: Times, lead_times: Times, *, window_days: int | None = None,
    separation_days: int | None = None, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return an ensemble forecast whose members are states of other years: the probabilistic climatology.

    The members of a forecast valid on 10 March at 06 UTC are the states of 10 March at 06 UTC, and of days around it,
    of all training years but that of the valid time. With `window_days=1` and the years 1990 to 2019 this is the
    probabilistic climatology of WeatherBench 2. Days that are close together hardly differ: as members they would make
    the spread too small and the fair CRPS too large. The years of monthly data have one state each, of the month.

    Parameters
    ----------
    train
        Training years with a dimension `time`.
    init_times, lead_times
        As in `persistence`, for example those of the forecast to compare with; init times need no state in `train`.
    window_days
        Days of the year that count, odd and centered on that of the valid time; 31 if None.
    separation_days
        Days between two states of a year, counted from the center of the window; 15 if None.
    allow_overlap
        Whether valid times may lie in the training period. The year of a valid time has no members, whatever is chosen.

    Returns
    -------
    Dataset of dask arrays, computed in blocks of bounded size, with the variables of `train` that have a time, in its
    units and with its names, coordinates and attributes. Dims (init_time, lead_time, number, [level,] latitude,
    longitude); coordinate `valid_time(init_time, lead_time)`. There are as many members as the valid time with the
    fewest states has; where there are more, those of the nearest days count. The attributes `climatology_method`,
    `climatology_start` and `climatology_end` record method and period. ValueError if the data have no time, valid times
    lie in the training period, one of them has fewer than two states, or the days do not apply.
    """
    train = name_time(train)
    times = train.indexes["time"]
    inits, lead_time = as_times(init_times, times), as_lead_time(lead_times)
    valid_time = valid_times(xr.DataArray(inits, dims="init_time"), lead_time, known=times)
    attrs = period("climatology", train["time"].values)
    if not allow_overlap:
        refuse_overlap("the climatological ensemble", attrs, valid_time.values.ravel())
    distinct, inverse = np.unique(valid_time.values, return_inverse=True)
    monthly = finest_grouping(times) == "month"
    offsets = _day_offsets(window_days, separation_days, monthly)
    positions = _nearest_states(_states_of_other_years(times, type(times)(distinct), offsets, monthly), distinct)
    positions = positions[inverse.reshape(valid_time.shape)]

    changing = [name for name, field in train.data_vars.items() if "time" in field.dims]
    # Other coordinates along time describe the states, not the forecast.
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    members = xr.Dataset({name: _lazy_members(train[name], positions) for name in changing}, coordinates, train.attrs)
    axes = find_axes(train)
    last = [axis for axis in (axes.level, axes.latitude, axes.longitude) if axis in members.dims]
    members = members.transpose("init_time", "lead_time", "number", ..., *last).assign_coords(
        init_time=("init_time", inits, {"standard_name": "forecast_reference_time"}),
        lead_time=("lead_time", lead_time.values, {**lead_time.attrs, "standard_name": "forecast_period"}),
        number=("number", np.arange(positions.shape[-1]), _NUMBER_ATTRS),
        valid_time=valid_time.assign_attrs(standard_name="time"),
    )
    days = "the month" if monthly else f"the day of the year and {'/'.join(f'{day:+d}' for day in offsets)} days"
    return members.assign_attrs(attrs, climatology_method=f"states of other years, {days}", system="climatology")


def _day_offsets(window_days: int | None, separation_days: int | None, monthly: bool) -> list[int]:
    """Return the days of members relative to that of the valid time, the nearest first; ValueError if out of range."""
    given = {"window_days": window_days, "separation_days": separation_days}
    if monthly and (named := {name: days for name, days in given.items() if days is not None}):
        raise ValueError(f"{named} apply to data by day or hour, and these are monthly: leave them out")
    if monthly:
        return [0]
    window_days = 31 if window_days is None else window_days
    separation_days = 15 if separation_days is None else separation_days
    if window_days % 2 == 0 or not 1 <= window_days <= 181:
        raise ValueError(f"window_days={window_days} must be an odd number of days from 1 to 181")
    if separation_days < 1:
        raise ValueError(f"separation_days={separation_days} must be at least 1 day")
    steps = range(1, window_days // 2 // separation_days + 1)
    return [0, *(sign * step * separation_days for step in steps for sign in (-1, 1))]


def _states_of_other_years(times: pd.Index, valid: pd.Index, offsets: list[int], monthly: bool) -> np.ndarray:
    """Return the positions in `times` of each valid time's states, (valid time, state), -1 if missing."""
    columns = []
    if monthly:
        months = pd.Index(times.year * 12 + times.month)
        if not months.is_unique:
            raise ValueError(f"{to_iso(times[months.duplicated()][0])} is not the only time of its month: keep one")
        for year in range(times.year.min(), times.year.max() + 1):
            columns.append(np.where(valid.year == year, -1, months.get_indexer(year * 12 + valid.month)))
        return np.stack(columns, axis=-1)
    midnight = {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0}
    since_new_year = valid - type(valid)([time.replace(**midnight) for time in valid])
    for offset in offsets:
        # The days before or after the first or the last new year may be in the data.
        for year in range(times.year.min() - 1, times.year.max() + 2):
            new_year = type(valid)([valid[0].replace(year=year, **midnight)] * len(valid))
            found = times.get_indexer(new_year + since_new_year + pd.Timedelta(offset, "D"))
            columns.append(np.where(valid.year == year, -1, found))
    return np.stack(columns, axis=-1)


def _nearest_states(positions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the first states of each valid time, as many as all have; ValueError if these are fewer than two."""
    counts = (positions >= 0).sum(axis=-1)
    if counts.min() < 2:
        first = int(np.argmin(counts))
        raise ValueError(
            f"{to_iso(valid[first])} has {counts[first]} states of other years at its time of year and day in the "
            "training data, and an ensemble needs two. Give more years, or a wider window, window_days=61"
        )
    order = np.argsort(positions < 0, axis=-1, kind="stable")[:, : counts.min()]
    return np.take_along_axis(positions, order, axis=-1)


def _lazy_members(field: xr.DataArray, positions: np.ndarray) -> xr.Variable:
    """Return the states at positions (init, lead, number) as a dask array (init_time, lead_time, number, ...)."""
    field = field.transpose("time", ...)
    inits, leads, number = positions.shape
    pairs = max(_BLOCK_BYTES // max(number * field.nbytes // max(field.sizes["time"], 1), 1), 1)
    width = min(leads, pairs)
    blocks = dask.array.from_array(positions, chunks=(min(inits, max(pairs // width, 1)), width, number))
    # A name of its own: dask would read the whole field to derive one from its values.
    data = dask.array.map_blocks(
        functools.partial(_read_states, field), blocks, name=f"climatological-ensemble-{uuid.uuid4().hex}",
        chunks=(*blocks.chunks, *((size,) for size in field.shape[1:])), new_axis=range(3, 2 + field.ndim),
        meta=np.empty((0,) * (2 + field.ndim), field.dtype),
    )  # fmt: skip
    return xr.Variable(("init_time", "lead_time", "number", *field.dims[1:]), data, field.attrs)


def _read_states(field: xr.DataArray, positions: np.ndarray) -> np.ndarray:
    """Return the states at positions in time, each read once."""
    distinct, inverse = np.unique(positions, return_inverse=True)
    # Inside a task of dask another one must not wait for a free worker.
    values = field.isel(time=distinct).compute(scheduler="synchronous").values
    return values[inverse.reshape(positions.shape)]
