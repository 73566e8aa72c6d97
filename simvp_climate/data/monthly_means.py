"""Monthly means of a run in the units of CMIP6: its periods, complete months, and the fields of each variable."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.cmip_variables import AIMIP_LEVELS, CmipVariable, find_cmip_variable, time_method
from simvp_climate.data.conventions import Canonical, check_numbers
from simvp_climate.data.variables import conversion, lookup
from simvp_climate.data.windows import check_times, parse_step, shift

_READ_BYTES = 2**28  # at a time
_DAY, _SHORTEST_MONTH = pd.Timedelta("1D"), pd.Timedelta("28D")


class Periods(NamedTuple):
    """The beginning and end of each period of a run."""

    begin: pd.Index
    end: pd.Index
    are_stated: bool  # by bounds

    @property
    def length(self) -> pd.Timedelta:
        return pd.Timedelta(self.end[0] - self.begin[0])


class Field(NamedTuple):
    """A variable of the run, and how its monthly means become those of a variable of CMIP6."""

    name: str
    array: xr.DataArray  # on the canonical grid
    levels: np.ndarray  # Pa; [0] for a variable without levels
    factor: float
    offset: float
    seconds: np.ndarray  # by which the values of each period are divided
    extreme: str | None  # "maximum" or "minimum" over each day


def find_periods(run: xr.Dataset, time: str) -> Periods:
    """Return the periods of a run by its bounds, or else by the step of the times.

    As in `metrics.time_mean`, a value of steps below a day stands for the step before it, others for their dates.
    """
    times = run.indexes[time]
    check_times(times, "the run", time)
    bounds = run[time].attrs.get("bounds", run[time].encoding.get("bounds", "time_bnds"))
    if bounds in run.variables and run[bounds].shape == (len(times), 2):
        begin, end = (type(times)(edges) for edges in run[bounds].values.T)
        if (begin < end).all():
            return Periods(begin, end, True)
    if len(times) < 2:
        raise ValueError("the run has a single time without bounds. Add its period as time_bnds(time, bnds)")
    steps, counts = np.unique(np.asarray(times[1:] - times[:-1]), return_counts=True)
    step = pd.Timedelta(steps[counts.argmax()])
    if step >= _SHORTEST_MONTH:
        begin = first_days(times)
        return Periods(begin, shift(begin, "1MS", 1), False)
    begin = times.floor("D") if step >= _DAY else times - step
    return Periods(begin, begin + step, False)


def first_days(times: pd.Index) -> pd.Index:
    """Return the beginnings of the months of times, in their calendar."""
    return type(times)([time.replace(day=1, hour=0, minute=0, second=0, microsecond=0) for time in times])


def whole_months(periods: Periods) -> tuple[dict[tuple, slice], int]:
    """Return the positions of each complete month by its beginning and end, and the number of incomplete ones.

    Periods of equal length fill a complete month without a gap. ValueError if none is complete.
    """
    begin, end, _ = periods
    lengths, whole = np.asarray(end - begin), {}
    starts = np.flatnonzero(np.diff(np.asarray(begin.year * 12 + begin.month), prepend=-1))
    firsts = first_days(begin[starts])
    for first, after, start, stop in zip(
        firsts, shift(firsts, "1MS", 1), starts, [*starts[1:], len(begin)], strict=True
    ):
        without_gap = (begin[start + 1 : stop] == end[start : stop - 1]).all()
        if begin[start] == first and end[stop - 1] == after and without_gap and len(set(lengths[start:stop])) == 1:
            whole[first, after] = slice(int(start), int(stop))
    if not whole:
        message = f"no month is complete in the run, {begin[0]} to {end[-1]} in periods of {periods.length}"
        raise ValueError(f"{message}. Periods of equal length must fill a calendar month, for example days")
    return whole, len(starts) - len(whole)


def find_fields(
    canonical: Canonical, periods: Periods, accumulation: str | None, layout: str
) -> dict[CmipVariable, list[Field]]:
    """Return the fields of each variable of CMIP6: several if its levels are separate variables of the run."""
    fields: dict[CmipVariable, list[Field]] = {}
    arrays = {str(name): array for name, array in canonical.dataset.data_vars.items()}
    known = {name: find_cmip_variable(name, array.attrs, layout) for name, array in arrays.items()}
    if unknown := [name for name, meaning in known.items() if meaning is None]:
        methods = arrays[unknown[0]].attrs.get("cell_methods")
        message = (
            f"{unknown[0]!r}{f' ({methods})' if methods else ''} is no monthly variable of CMIP6 that is known here"
        )
        naming = f"give it its name of CMIP6, such as rename={{{unknown[0]!r}: 'tas'}} for the temperature at 2 m"
        raise ValueError(f"{message}. Leave all such out, skip={unknown}, or {naming}")
    for name, (variable, level) in known.items():
        levels = _levels(canonical, name, variable, level)
        settings = _conversion(name, variable, arrays[name].attrs, periods, accumulation)
        fields.setdefault(variable, []).append(Field(name, arrays[name], levels, *settings))
    if accumulation is not None and not any(variable.name == "pr" for variable in fields):
        raise _useless(accumulation, "the run has no amount of precipitation")
    for variable, parts in fields.items():
        levels = np.concatenate([part.levels for part in parts])
        if len(set(levels.tolist())) < len(levels):
            names = [part.name for part in parts]
            raise ValueError(f"{names} give {variable.name} twice. Leave one out: skip=[{names[-1]!r}]")
        if layout == "aimip" and variable.on_levels:
            fields[variable] = _on_aimip_levels(variable, parts)
    return fields


def _useless(accumulation: str, reason: str) -> ValueError:
    return ValueError(f"accumulation={accumulation!r} is of no use: {reason}. Omit it")


def _levels(canonical: Canonical, name: str, variable: CmipVariable, level: float | None) -> np.ndarray:
    """Return the levels of a variable in Pa, [0] without; ValueError if they or the dimensions do not fit."""
    array, axes = canonical.dataset[name], canonical.axes
    check_numbers(name, array)
    has_levels = "level" in array.dims and variable.on_levels and level is None
    expected = ["time", *["level"] * has_levels, "latitude", "longitude"]
    if set(array.dims) - {canonical.member} != set(expected):
        message = f"{name!r} has the dimensions {list(array.dims)}, but {variable.name} needs {expected}"
        raise ValueError(f"{message}. Select from the others, or leave it out, skip=[{name!r}]")
    if not variable.on_levels:
        return np.zeros(1)
    if has_levels and not axes.levels.is_pressure:
        raise ValueError(f"the levels {axes.level!r} of {name!r} are no pressures. Interpolate to pressure levels")
    if not has_levels and (level := level or axes.scalar_level) is None:
        raise ValueError(f"the level of {name!r} is not stated. If it is on 500 hPa: rename={{{name!r}: '{name}500'}}")
    return 100.0 * np.asarray(axes.levels.values if has_levels else [level])


def _on_aimip_levels(variable: CmipVariable, parts: list[Field]) -> list[Field]:
    """Return the fields on the levels of AIMIP-1, with a warning about those that are missing."""
    selected = []
    for part in parts:
        if (positions := np.flatnonzero(np.isin(part.levels, AIMIP_LEVELS))).size:
            array = part.array.isel(level=positions) if "level" in part.array.dims else part.array
            selected.append(part._replace(array=array, levels=part.levels[positions]))
    wanted = {50000} if variable.name == "zg" else set(AIMIP_LEVELS)  # AIMIP-1 asks for the height at 500 hPa only
    missing = sorted(wanted - {level for part in selected for level in part.levels}, reverse=True)
    text = f"{variable.name} lacks {', '.join(f'{level / 100:g}' for level in missing)} hPa, levels of AIMIP-1"
    if not selected:
        raise ValueError(f"{text}, and has none of the others. Leave it out: skip=[{parts[0].name!r}]")
    if missing:
        warnings.warn(text, stacklevel=4)
    return selected


def _conversion(
    name: str, variable: CmipVariable, attrs: dict, periods: Periods, accumulation: str | None
) -> tuple[float, float, np.ndarray, str | None]:
    """Return factor, offset, seconds and extreme of `Field`; ValueError if the units or the cell methods do not fit."""
    units, method, seconds = attrs.get("units"), time_method(attrs), np.ones(len(periods.begin))
    extreme = {"tasmax": "maximum", "tasmin": "minimum"}.get(variable.name)
    if method not in (None, "mean", "point", extreme, "sum" if variable.name == "pr" else None):
        raise ValueError(f"{name!r} is a {method} over time, but {variable.name} is a mean. skip=[{name!r}]")
    if "within days" in str(attrs.get("cell_methods")):  # already the mean of daily extremes
        extreme = None
    if extreme is not None and (periods.length > _DAY or _DAY % periods.length):
        message = f"{name!r} is a {extreme} over {periods.length}, but {variable.name} is the mean of daily ones"
        raise ValueError(f'{message}. Make the run with outputs="1D", or leave it out, skip=[{name!r}]')
    known_as = {"zg": "z", "pr": "tp"}.get(variable.name, name)
    factors = None if units is None else conversion(known_as, units, variable.units)
    if variable.name == "pr" and factors is not None and accumulation is not None:
        raise _useless(accumulation, f"{name!r} is a flux in {units!r}")
    if variable.name == "pr" and factors is None and units is not None:
        factors, seconds = conversion(known_as, units, "kg m-2"), _seconds(name, method, periods, accumulation)
    if factors is None:
        message = f"{name!r} has the units {units!r}, which do not convert to {variable.units!r} of {variable.name}"
        raise ValueError(f'{message}. Correct them: run["{name}"].attrs["units"] = "{variable.units}"')
    return *factors, seconds, extreme


def _seconds(name: str, method: str | None, periods: Periods, accumulation: str | None) -> np.ndarray:
    """Return the seconds over which the amounts of precipitation of each period accumulate."""
    fixed = {"tp6h": "6h", "tp24h": "24h"}.get(known[0].short_name) if (known := lookup(name)) else None
    if accumulation is not None and (fixed or method == "sum"):
        raise _useless(accumulation, f"{name!r} states its time")
    if fixed or accumulation:
        size = parse_step(fixed or accumulation)
        if isinstance(size, int):
            raise ValueError(f"accumulation={accumulation!r} must be a duration such as '6h'")
        return np.full(len(periods.begin), size.total_seconds())
    if method != "sum" and (method == "mean" or periods.are_stated or periods.length > _DAY):
        fix = f"For amounts over six hours: accumulation='6h', or leave it out, skip=[{name!r}]"
        raise ValueError(f"{name!r} is a mean of amounts, but the time over which they accumulate is not stated. {fix}")
    return (periods.end - periods.begin).total_seconds().to_numpy()


def monthly_means(field: Field, months: list[slice], length: pd.Timedelta, member: str | None) -> np.ndarray:
    """Return means in float32, dims (month, member, level, latitude, longitude), reading several months at a time."""
    dims, means = ["time", member or "member", "level", "latitude", "longitude"], []
    batch = max(1, _READ_BYTES * len(months) // field.array.nbytes)
    for count, positions in enumerate(months):
        if count % batch == 0:
            first, last = positions.start, months[min(count + batch, len(months)) - 1].stop
            block = field.array.isel(time=slice(first, last)).load()
        month = block.isel(time=slice(positions.start - first, positions.stop - first))
        values = month.expand_dims([dim for dim in dims if dim not in month.dims]).transpose(*dims).values
        if field.extreme is not None:
            days = values.reshape(-1, _DAY // length, *values.shape[1:])
            values = days.max(1) if field.extreme == "maximum" else days.min(1)
        mean = values.mean(0, dtype=np.float64) / field.seconds[positions.start]
        means.append((field.factor * mean + field.offset).astype(np.float32))
    return np.stack(means)
