"""Pairs of a forecast and its truth, one for every initialization and lead, resolved before any value is read."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import Canonical, canonicalize, check_numbers, drop_single_height, orient
from simvp_climate.data.grid import check_same_grid, closes_longitude, find_axes, find_member
from simvp_climate.data.variables import is_amount, is_fill_value, same_units, tolerated_range
from simvp_climate.data.windows import find_date_fault, find_valid_times, lead_text, to_iso
from simvp_climate.metrics.points import as_rows, has_grid
from simvp_climate.metrics.regions import SPACE, Regions, Weights, cell_weights

_SEASONS = ("DJF", "MAM", "JJA", "SON")
# `<prefix>_start` and `<prefix>_end` are the attributes that record a period.
_PERIODS = ("climatology", "fitted", "intervals", "calibration")
_ISO_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ].*)?)?)?$")


@dataclass(frozen=True)
class StoredBaseline:
    """A forecast of another system, and the positions in it of the initializations and leads of the scored one."""

    forecast: xr.Dataset  # (init_time, lead_time, ...)
    init_positions: np.ndarray
    lead_positions: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Forecast and analyses on the canonical grid of the forecast, lazy if they were, and the truth of every pair."""

    forecast: xr.Dataset  # (init_time, lead_time, ...)
    analysis: xr.Dataset  # (time, ...)
    climatology: xr.Dataset | None  # (hour, dayofyear, ...) or similar
    event_frequency: xr.Dataset | None  # in the layout of the climatology, of some variables
    stored_baselines: dict[str, StoredBaseline]
    callable_baselines: dict[str, Callable]  # forecast from the state at the init time
    weights: xr.DataArray  # of the cells, (latitude) or (region, latitude, longitude)
    valid_time: xr.DataArray  # (init_time, lead_time)
    valid_positions: np.ndarray  # (init, lead): positions of the valid times in analysis.time
    init_positions: np.ndarray  # (init,): positions of the init times
    complete: np.ndarray  # (init, lead): whether the pair is verified; elsewhere the three above are fillers
    groups: dict[str | int, xr.DataArray | bool]  # pairs of each season or month; {"": True} for all
    labels: dict[str, xr.DataArray]  # scalar coordinates and levels of the forecast, in its unit, for a result
    stations: int | None = None  # their number, of forecasts at stations; an index is at one; None on a grid

    @cached_property
    def grid(self) -> dict[str, xr.DataArray]:
        """The canonical coordinates: latitude, longitude and, if there is one, level."""
        return {dim: self.forecast[dim] for dim in (*SPACE, "level") if dim in self.forecast.dims}

    @property
    def max_wavenumber(self) -> int:
        """The largest zonal one below the Nyquist frequency; 0 if longitudes do not circle the globe."""
        return (self.grid["longitude"].size - 1) // 2 if closes_longitude(self.grid["longitude"]) else 0

    @property
    def member(self) -> str | None:
        """The dimension of ensemble members of the forecast."""
        return find_member(self.forecast)

    @property
    def verified_times(self) -> np.ndarray:
        """Valid times of the verified pairs."""
        return self.valid_time.values[self.complete]

    def attrs(self, name: str) -> dict[str, str]:
        """Return long_name and units of a variable, of the forecast or, if it has none, of the analysis."""
        attrs = self.analysis[name].attrs | self.forecast[name].attrs
        return {key: attrs[key] for key in ("long_name", "units") if attrs.get(key) is not None}


def match(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset | None = None, *,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None, event_frequency: xr.Dataset | None = None,
    periods: Mapping[str, Mapping] | None = None, weights: Weights = "area", regions: Regions = None,
    by: str | None = None, allow_overlap: bool = False,
) -> Pairs:  # fmt: skip
    """Bring all datasets to the grid of the forecast and find the truth of every pair of initialization and lead.

    `baselines` are forecasts, or functions like `persistence`; `periods` holds the attributes of more datasets fitted
    on a period, by role. ValueError if anything does not fit or, without `allow_overlap`, lies in the period of a fit.
    """
    scalars, stations = scalar_coords(forecast), None
    if not has_grid(forecast):
        _refuse_regions_at_stations(regions)
        rows = as_rows(forecast, truth, climatology, event_frequency, baselines or {})
        forecast, truth, climatology = rows.forecast, rows.truth, rows.climatology
        event_frequency, baselines, stations = rows.event_frequency, rows.baselines, forecast.sizes["longitude"]
    elif "station" in truth.dims:
        fix = "Interpolate it: forecast = sc.at(forecast, stations=truth)"
        raise ValueError(f"the truth is at stations, the forecast on a grid. {fix}")
    stored = {name: baseline for name, baseline in (baselines or {}).items() if isinstance(baseline, xr.Dataset)}
    callables = {name: baseline for name, baseline in (baselines or {}).items() if name not in stored}
    forecast, valid_time = with_times(forecast)
    if not forecast.indexes["init_time"].is_monotonic_increasing:
        # Blocks of the bootstrap are neighboring initializations.
        order = np.argsort(forecast["init_time"].values, kind="stable")
        forecast, valid_time = forecast.isel(init_time=order), valid_time.isel(init_time=order)
    canonical = _canonicalize(forecast)
    forecast, labels = canonical.dataset, dict(scalars)
    if "level" in forecast.dims:
        level = canonical.original[canonical.axes.level]
        labels["level"] = xr.Dataset(coords={"level": ("level", level.values, level.attrs)})["level"]
    if (member := find_member(truth)) is not None and truth.sizes[member] == 1:
        truth = truth.isel({member: 0}, drop=True)
    roles = {"the truth": truth} | ({} if climatology is None else {"the climatology": climatology})
    aligned = {role: align(forecast, dataset, role, scalars) for role, dataset in roles.items()}
    for role, dataset in aligned.items():
        check_units(forecast, dataset, role)
    analysis = aligned.pop("the truth")
    _check_analysis(forecast, valid_time, truth, analysis)
    if event_frequency is not None:
        variables = forecast[[name for name in forecast.data_vars if name in event_frequency]]
        aligned["the event frequency"] = align(variables, event_frequency, "the event frequency", scalars)
    stored = {name: _match_stored(forecast, baseline, scalars, name) for name, baseline in stored.items()}

    index = analysis.indexes["time"]
    valid_positions = index.get_indexer(valid_time.values.ravel()).reshape(valid_time.shape)  # -1 if missing
    init_positions = index.get_indexer(forecast.init_time.values)
    complete = valid_positions >= 0
    if callables:
        complete &= (init_positions >= 0)[:, np.newaxis]
    _check_complete(complete, forecast, valid_time, index, list(callables))
    # A pair without truth is computed with that of a neighbor and not counted: nothing else has to be read.
    valid_time = valid_time.copy(data=_fill(valid_time.values, complete))
    if not allow_overlap:
        fits = {role: dataset.attrs for role, dataset in aligned.items()} | _periods_of_fits(callables)
        for role, attrs in (fits | dict(periods or {})).items():
            refuse_overlap(role, attrs, valid_time.values[complete])
    return Pairs(
        forecast, analysis, aligned.get("the climatology"), aligned.get("the event frequency"), stored, callables,
        weights=cell_weights(forecast, weights, regions, truth),
        valid_time=valid_time, valid_positions=_fill(valid_positions, complete),
        init_positions=_fill(init_positions, init_positions >= 0) if callables else init_positions,
        complete=complete, groups=_group_pairs(by, valid_time, complete), labels=labels, stations=stations,
    )  # fmt: skip


def scalar_coords(forecast: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the coordinates without a dimension that are no times, such as a level that was selected."""
    times = ("init_time", "lead_time", "valid_time", "time")
    return {str(name): c for name, c in forecast.coords.items() if c.ndim == 0 and name not in times}


def check_plausible(forecast: xr.Dataset, truth: xr.Dataset, valid_time: xr.DataArray) -> None:
    """Raise ValueError if only the truth has impossible values, or if all values of the forecast alone are.

    A forecast may be wrong, but it is in other units if no value is plausible. Anomalies are outside in both.
    """
    for name, variable in forecast.data_vars.items():
        true_values, values = truth[name].values, variable.values
        units = truth[name].attrs.get("units") or variable.attrs.get("units")
        if (place := find_outlier(str(name), true_values, units)) is not None:
            row, column = place[:2]
            time = to_iso(valid_time.values[row, column])
            raise ValueError(describe_outlier(str(name), "truth", true_values[place], f" at {time}"))
        limits = tolerated_range(str(name), units)
        if limits is None or not values.size:
            continue
        (low, high), (true_low, true_high) = (
            (np.fmin.reduce(each, axis=None), np.fmax.reduce(each, axis=None)) for each in (values, true_values)
        )
        rule = f"but the range of {name} with a margin is {limits[0]:.4g} to {limits[1]:.4g} {units or ''}".rstrip()
        if not (limits[0] <= true_low and true_high <= limits[1]) and limits[0] <= low and high <= limits[1]:
            value = true_low if true_low < limits[0] else true_high
            row, column = np.argwhere(true_values == value)[0][:2]
            raise ValueError(
                f"{name} of the truth is {value:.7g} at {to_iso(valid_time.values[row, column])}, {rule}, and the "
                f"forecast is within. Correct the units, or mask it: truth['{name}'].where(truth['{name}'] != "
                f"{value:.7g}). If it is true, give {name} another name in both"
            )
        if limits[0] <= true_low and true_high <= limits[1] and (low > limits[1] or high < limits[0]):
            extent = f"{name} of the forecast goes from {low:.4g} to {high:.4g}"
            raise ValueError(f"{extent}, {rule}, and the truth is within. Correct its units")


def find_outlier(name: str, values: np.ndarray, units: str | None) -> tuple[int, ...] | None:
    """Return where a value is that cannot be true: farther from all others than these are from each other.

    Only usual fill values and values outside the range of the vocabulary are looked at. None if there is no such value.
    """
    if values.dtype.kind not in "fiu" or not values.size:
        return None
    limits = tolerated_range(name, units) or (-np.inf, np.inf)
    if not units and is_amount(name):
        limits = limits[0], np.inf  # rain without units may be in mm
    extremes = np.array([np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)])
    if not (is_fill_value(extremes) | (extremes < limits[0]) | (extremes > limits[1])).any():
        return None
    is_fill, outside = is_fill_value(values), (values < limits[0]) | (values > limits[1])
    if 2 * (outside & ~is_fill).sum() > (np.isfinite(values) & ~is_fill).sum():
        outside = np.zeros_like(is_fill)  # other units, or anomalies
    others = values[~(is_fill | outside) & np.isfinite(values)].astype(np.float64)
    if not others.size:
        return None
    low, high = others.min(), others.max()
    for extreme in extremes.astype(np.float64):
        can_judge = high > low or is_fill_value(extreme)
        if can_judge and np.isfinite(extreme) and max(low - extreme, extreme - high) > high - low:
            return tuple(np.argwhere(values == extreme)[0])
    return None


def describe_outlier(name: str, role: str, value: float, place: str) -> str:
    """Return the message about a value that `find_outlier` found in the data called `role`."""
    return (
        f"{name} of {role} is {value:.7g}{place}, farther from all other values than these are from each other: a "
        f"fill value or an error. Mask it: {role}['{name}'].where({role}['{name}'] != {value:.7g})"
    )


def _match_stored(forecast: xr.Dataset, other: xr.Dataset, scalar_coords: Mapping, name: str) -> StoredBaseline:
    """Return another system's forecast with the positions of all initializations and leads of the scored one."""
    for dim in ("init_time", "lead_time"):
        if dim in other.coords and other[dim].ndim == 0:  # a single one was selected
            other = other.drop_vars("valid_time", errors="ignore").expand_dims(dim)
    baseline = align(forecast, other, name, scalar_coords)
    check_units(forecast, baseline, name)
    if (member := find_member(baseline)) is not None and baseline.sizes[member] == 1:
        baseline = baseline.isel({member: 0}, drop=True)  # one member is a single forecast, without a spread
    positions = {}
    for dim in ("init_time", "lead_time"):
        if dim not in baseline.coords:
            raise ValueError(
                f"the baseline {name!r} has dims {tuple(other.dims)} and no {dim}. Give a forecast with the "
                "initializations and leads of the scored one"
            )
        required, labels = forecast.indexes[dim], baseline.indexes[dim]
        positions[dim] = labels.get_indexer(required)
        if (missing := positions[dim] < 0).any():
            raise ValueError(
                f"{name} lacks {missing.sum()} of the {len(required)} {dim}s of the forecast, first "
                f"{required[missing][0]}; it has {len(labels)}, from {labels[0]} to {labels[-1]}. All systems are "
                f"scored on the same pairs: select those that all have, forecast.sel({dim}=...)"
            )
    return StoredBaseline(baseline, positions["init_time"], positions["lead_time"])


def _check_analysis(forecast: xr.Dataset, valid_time: xr.DataArray, truth: xr.Dataset, analysis: xr.Dataset) -> None:
    """Raise ValueError unless the truth has unique times in the calendar of the forecast, and no extra dimensions."""
    if (member := find_member(analysis)) is not None:
        raise ValueError(f"the truth has members along {member!r}: pick one, truth.isel({member}=0)")
    if fixed := [name for name, variable in analysis.data_vars.items() if "time" not in variable.dims]:
        raise ValueError(f"{fixed[0]!r} in the truth has no times. Give analyses along 'time', or leave it out")
    if extra := set(analysis.dims) - {"time", "level", *SPACE} - set(forecast.dims):
        raise ValueError(f"the truth has the dimensions {sorted(map(str, extra))} besides time and grid: select one")
    if "time" not in analysis.indexes:
        raise ValueError(f"the truth has dims {tuple(truth.dims)} and no times: give analyses along 'time'")
    index = analysis.indexes["time"]
    if fault := find_date_fault(index, "time", analysis["time"].attrs.get("units"), "truth"):
        raise ValueError(f"the truth: {fault[0]}. {fault[1]}")
    if index.hasnans:
        raise ValueError("a time of the truth is missing (NaT). truth = truth.isel(time=truth.time.notnull().values)")
    if not index.is_unique:
        fix = "keep one, truth.drop_duplicates('time')"
        raise ValueError(f"the time {index[index.duplicated()][0]} appears more than once in the truth: {fix}")
    if isinstance(index, xr.CFTimeIndex) != (valid_time.dtype == object):
        calendars = [times.dt.calendar for times in (valid_time, analysis["time"])]
        raise ValueError(
            f"the forecast has the calendar {calendars[0]!r} ({valid_time.dtype}), the truth {calendars[1]!r} "
            f"({analysis['time'].dtype}): convert one, for example truth.convert_calendar(...)"
        )


def _refuse_regions_at_stations(regions: Regions) -> None:
    if regions is not None:
        raise ValueError("regions are for grids. Select stations instead: forecast.sel(station=[...])")


def _check_complete(
    complete: np.ndarray, forecast: xr.Dataset, valid_time: xr.DataArray, index: xr.Index, callables: list[str]
) -> None:
    """Raise ValueError if no pair has a truth; warn of leads without any pair."""
    if not complete.any():
        times = np.sort(valid_time.values, axis=None)
        first_init = to_iso(forecast.init_time.values.min())
        also = f"; {' and '.join(callables)} also needs it at init times, from {first_init}" if callables else ""
        also += " (or pass persistence=False)" if "persistence" in callables else ""
        raise ValueError(
            f"no forecast can be verified: the forecast is valid from {to_iso(times[0])} to {to_iso(times[-1])}, "
            f"the truth has {len(index)} times from {index.min()} to {index.max()}{also}"
        )
    if (unverified := ~complete.any(axis=0)).any():
        leads = [lead_text(lead) for lead in forecast["lead_time"].values[unverified]]
        text = ", ".join(leads) if len(leads) <= 12 else f"{leads[0]} to {leads[-1]} ({len(leads)} leads)"
        also = f", and at the init time for {' and '.join(callables)}" if callables else ""
        warnings.warn(
            f"no forecast has a truth at the leads {text}, so they have no score. A pair needs an analysis at the "
            f"valid time{also}: give analyses to {to_iso(valid_time.values.max())}, or leave the leads out",
            stacklevel=4,
        )


def _fill(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return values with unusable ones replaced by the usable one before, or else by the first usable one."""
    order = np.where(usable.ravel(), np.arange(usable.size), np.flatnonzero(usable)[0])
    return values.ravel()[np.maximum.accumulate(order)].reshape(values.shape)


def with_times(forecast: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a forecast with dimensions init_time and lead_time, also if one was selected, and its valid times."""
    if not forecast.data_vars:
        raise ValueError("the forecast has no variables")
    if missing := [dim for dim in ("init_time", "lead_time") if dim not in forecast.coords]:
        raise ValueError(
            f"the forecast has no coordinate {' and '.join(missing)}, but {list(forecast.coords)}. Rename its times, "
            "for example forecast.rename(time='init_time', prediction_timedelta='lead_time')"
        )
    forecast = forecast.expand_dims([dim for dim in ("init_time", "lead_time") if forecast[dim].ndim == 0])
    for dim in ("init_time", "lead_time"):
        index = forecast.indexes[dim]
        if not len(index):
            raise ValueError(f"the forecast has no {dim}s: its selection is empty. Select some before scoring")
        if index.hasnans:
            fault = f"{index.isna().sum()} of {len(index)} {dim}s of the forecast are missing (NaT)"
            raise ValueError(f"{fault}. forecast = forecast.isel({dim}=forecast.{dim}.notnull().values)")
        if (repeated := index[index.duplicated()]).size:
            what = "initialization" if dim == "init_time" else "lead"
            value = repeated[0] if dim == "init_time" else lead_text(forecast[dim].values[index.duplicated()][0])
            fix = f"Keep one: forecast.drop_duplicates('{dim}')"
            raise ValueError(f"the {what} {value} appears more than once in the forecast. {fix}")
    units = forecast["init_time"].attrs.get("units")
    if fault := find_date_fault(forecast.indexes["init_time"], "init_time", units, "forecast"):
        raise ValueError(f"the forecast: {fault[0]}. {fault[1]}")
    valid_time = find_valid_times(forecast)
    if (negative := forecast["lead_time"].values < forecast["lead_time"].values.dtype.type(0)).any():
        raise ValueError(
            f"lead_time has the negative value {lead_text(forecast['lead_time'].values[negative][0])}, but a forecast "
            "is valid after its initialization. Exchange init_time and valid_time if they were"
        )
    return forecast, valid_time


def canonicalize_forecast(forecast: xr.Dataset) -> Canonical:
    """Return a forecast on the canonical grid, with its valid times; a single level stays a dimension."""
    forecast, valid_time = with_times(forecast)
    canonical = _canonicalize(forecast)
    return replace(canonical, dataset=canonical.dataset.assign_coords(valid_time=valid_time))


def _canonicalize(forecast: xr.Dataset) -> Canonical:
    """Return a forecast on the canonical grid, without a single level that is no pressure, such as a height of 2 m."""
    forecast = drop_single_height(forecast)
    canonical = canonicalize(forecast)
    for name, variable in forecast.data_vars.items():
        check_numbers(name, variable)
        required = {canonical.axes.latitude, canonical.axes.longitude, "init_time", "lead_time"}
        if missing := required - set(variable.dims):
            raise ValueError(f"{name} in the forecast has dims {variable.dims} and lacks {sorted(missing)}")
    return canonical


def align(
    like: xr.Dataset, other: xr.Dataset, role: str, scalar_coords: Mapping[str, xr.DataArray] | None = None
) -> xr.Dataset:
    """Return from `other` the variables and levels of a canonical dataset, on its grid and with its coordinates.

    `scalar_coords` may hold the level of a dataset without that dimension. `role` names `other` in errors.
    """
    names = list(like.data_vars)
    # Variables without levels may stand beside others that have them.
    has_levels = any("level" in variable.dims for variable in like.data_vars.values())
    levels = like["level"].values if has_levels else _selected_level(other, names, scalar_coords or {})
    try:
        aligned = canonicalize(other, names, levels).dataset.reset_coords(drop=True)
        check_same_grid(like, aligned)
    except ValueError as error:
        raise ValueError(f"{role} does not fit: {error}") from error
    if "level" in aligned.dims and not has_levels:
        if levels is None:
            raise ValueError(f"{role} has levels {aligned['level'].values}, the forecast has none: select one of them")
        aligned = aligned.isel(level=0, drop=True)
    # The coordinates of the other dataset itself: check_same_grid tolerates rounding, xarray's alignment does not.
    return aligned.assign_coords({dim: like[dim] for dim in (*SPACE, "level") if dim in aligned.dims})


def align_fit(
    like: xr.Dataset, fit: xr.Dataset, role: str, scalar_coords: Mapping[str, xr.DataArray] | None = None
) -> xr.Dataset:
    """Return `align` of a climatology or fit; ValueError also if units differ, but no warning if some are missing."""
    aligned = align(like, fit, role, scalar_coords)
    check_units(like, aligned, role, warn=False)
    return aligned


def check_units(forecast: xr.Dataset, other: xr.Dataset, role: str, warn: bool = True) -> None:
    """Raise ValueError if the units of a variable differ; warn if only one of the datasets has them."""
    one_sided = []
    for name, variable in forecast.data_vars.items():
        expected, units = variable.attrs.get("units"), other[name].attrs.get("units")
        if expected is None or units is None:
            if expected != units:
                one_sided.append(f"{name} ({expected or units!r})")
        elif not same_units(expected, units):
            raise ValueError(f"{name} has units {expected!r}, but {units!r} in {role}: convert one")
    if one_sided and warn:
        warnings.warn(
            f"only one of the forecast and {role} has units of {', '.join(one_sided)}: both are taken to be the "
            "same. Set the missing ones, ds['t2m'].attrs['units'] = 'K'",
            stacklevel=4,
        )


def check_vector(argument: str, components: tuple[str, str], forecast: xr.Dataset) -> str | None:
    """Return the unit of a vector; ValueError unless it has two components of the forecast in one unit."""
    if isinstance(components, str) or len(components) != 2:
        raise ValueError(f"{argument} has {components!r}: give two components, ('u10', 'v10')")
    if missing := [name for name in components if name not in forecast]:
        raise ValueError(f"{argument}: the forecast has no {missing}, but {list(forecast.data_vars)}")
    units = [forecast[name].attrs.get("units") for name in components]
    if units[0] != units[1]:
        raise ValueError(f"{components[0]} is in {units[0]!r} and {components[1]} in {units[1]!r}: convert one")
    return units[0]


def _selected_level(other: xr.Dataset, names: list, scalar_coords: Mapping[str, xr.DataArray]) -> np.ndarray | None:
    """Return the level of a forecast with one selected level, if `other` has levels to select from."""
    axis = find_axes(other).level
    level = scalar_coords.get(axis, scalar_coords.get("level"))
    if level is None or not any(axis in other[name].dims for name in names if name in other):
        return None
    # orient converts levels to hPa.
    labels = ("level", np.atleast_1d(level.values), level.attrs)
    return orient(xr.Dataset(coords={"latitude": [0.0], "longitude": [0.0], "level": labels})).level.values


def period(prefix: str, times: np.ndarray) -> dict[str, str]:
    """Return the attributes `<prefix>_start` and `<prefix>_end` that record the first and the last time."""
    return {f"{prefix}_start": to_iso(times.min()), f"{prefix}_end": to_iso(times.max())}


def _periods_of_fits(baselines: Mapping[str, Callable]) -> dict[str, Mapping]:
    """Return the attributes that record what fitted baselines and their climatologies were fitted on, by role."""
    fits = {}
    for name, baseline in baselines.items():
        fits[f"the baseline {name!r}"] = getattr(baseline, "damping", getattr(baseline, "patterns", None))
        fits[f"the climatology of the baseline {name!r}"] = getattr(baseline, "climatology", None)
    return {role: fit.attrs for role, fit in fits.items() if isinstance(fit, xr.Dataset)}


def recorded_periods(attrs: Mapping) -> list[tuple[str, str]]:
    """Return first and last time, as ISO text, of the periods that attributes record; ValueError if they are no dates.

    They may be shorter than times: "2015" and "2015-12-31" stand for the whole year and the whole day.
    """
    edges = [(f"{prefix}_start", f"{prefix}_end") for prefix in _PERIODS]
    periods = [(str(attrs[start]), str(attrs[end])) for start, end in edges if start in attrs and end in attrs]
    for date in (date for edge in periods for date in edge):
        if not _ISO_DATE.match(date):
            raise ValueError(f"the attributes record the period {periods[0]}: write dates as ISO text, '2015-12-31'")
    return periods


def refuse_overlap(role: str, attrs: Mapping, times: np.ndarray) -> None:
    """Raise ValueError if some times lie in a period that the attributes of a climatology or fit record as ISO text.

    Also if they record none: they may have been lost in arithmetic, or come from another program.
    """
    if not (periods := recorded_periods(attrs)):
        raise ValueError(
            f"{role} does not say from which period it is, so that verified times may lie in it. Set its attributes, "
            "climatology.attrs |= {'climatology_start': '1979-01-01', 'climatology_end': '2015-12-31'}, or pass "
            "allow_overlap=True"
        )
    for start, end in periods:
        # ISO text sorts like the times, also across calendars
        if overlapping := [text for text in map(to_iso, times) if start <= text and text[: len(end)] <= end]:
            raise ValueError(
                f"{role} is from {start} to {end}, and {len(overlapping)} verified times lie in it, from "
                f"{min(overlapping)} to {max(overlapping)}. Compute it from the training years alone, or pass "
                "allow_overlap=True"
            )


def _group_pairs(by: str | None, valid_time: xr.DataArray, complete: np.ndarray) -> dict:
    """Return the pairs of each season or month as booleans (init_time, lead_time)."""
    if by is None:
        return {"": True}
    if by not in ("season", "month"):
        raise ValueError(f"by={by!r} is unknown: choose 'season', 'month' or None")
    group = getattr(valid_time.dt, by)
    present = set(group.values[complete].tolist())
    labels = [name for name in (_SEASONS if by == "season" else range(1, 13)) if name in present]
    return {label: (group == label).reset_coords(drop=True) for label in labels}
