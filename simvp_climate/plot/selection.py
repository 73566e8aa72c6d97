"""Choose variables, levels, leads and initializations to draw, and read fields on their canonical grid."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import drop_single_height, rename
from simvp_climate.data.grid import TOLERANCE, Axes, CanonicalAxis, find_axes
from simvp_climate.data.variables import lookup, same_units
from simvp_climate.data.windows import find_valid_times, lead_texts
from simvp_climate.metrics.baselines.climatologies import normals_at
from simvp_climate.plot.colors import has_usual_values, prepare_field
from simvp_climate.plot.style import coordinate_text, display_name


@dataclass(frozen=True)
class Source:
    """A Dataset to draw from, its axes, and its name in errors ("forecast", "truth")."""

    dataset: xr.Dataset
    axes: Axes  # the time of a forecast is lead_time
    role: str

    def read(self, name: str, level: float | None, times: int | slice) -> xr.DataArray:
        """Return a variable at a level and times on the canonical grid, labeled, dims ([time,] latitude, longitude)."""
        axes, array = self.axes, self.dataset[name]
        if level is not None:
            levels = array[axes.level].values.tolist() if axes.level in array.dims else []
            if level not in levels:
                raise ValueError(f"level={level:g} of {name!r} is not in {self.role}: it has {levels or 'no levels'}.")
            array = array.sel({axes.level: level})
        if extra := [dim for dim in array.dims if dim not in (axes.time, axes.latitude, axes.longitude)]:
            raise ValueError(
                f"{name!r} in {self.role} also has dimension {extra[0]!r} of size {array.sizes[extra[0]]}. Select or"
                f" average first: {self.role}.isel({extra[0]}=0) or {self.role}.mean({extra[0]!r}, keep_attrs=True)"
            )
        if {axes.latitude, axes.longitude} - set(array.dims):
            raise ValueError(f"{name!r} in {self.role} has {array.dims}: a map needs latitude and longitude.")
        rows, columns = axes.rows.order, axes.columns.order
        first, last = rows.min(), rows.max()
        array = array.isel({axes.time: times, axes.latitude: slice(first, last + 1)}, missing_dims="ignore")
        # order what is loaded: most stores are slow to read scattered positions
        array = array.compute().transpose(..., axes.latitude, axes.longitude)
        values = array.values[..., rows - first, :][..., columns].astype(float)
        coords = {"latitude": axes.rows.values, "longitude": axes.columns.values}
        label = display_name(array) + ("" if level is None else f", {coordinate_text(self.dataset, axes.level, level)}")
        dims = (*array.dims[:-2], "latitude", "longitude")
        return xr.DataArray(values, coords, dims, name, {**array.attrs, "label": label})

    def on_points(self, latitude: np.ndarray, longitude: np.ndarray) -> "Source":
        """Return the same data on some of its grid points only; ValueError if it lacks one."""
        axes = []
        for dim, axis, values in (("latitude", self.axes.rows, latitude), ("longitude", self.axes.columns, longitude)):
            distance = np.abs(axis.values[None, :] - values[:, None])
            if dim == "longitude":
                distance = np.minimum(distance % 360, -distance % 360)
            if (missing := distance.min(axis=1) > TOLERANCE).any():
                raise ValueError(
                    f"{self.role} has no {dim} {values[missing][0]:g} ({missing.sum()} of {missing.size} of the"
                    " forecast are missing). Bring both to one grid first, for example with sc.regrid."
                )
            axes.append(CanonicalAxis(axis.order[distance.argmin(axis=1)], values))
        return replace(self, axes=replace(self.axes, rows=axes[0], columns=axes[1]))


@dataclass(frozen=True)
class ForecastSelection:
    """One forecast at some leads, and the truth, if any, at its valid times and grid points."""

    sources: list[Source]
    leads: list[str]
    valid_times: np.ndarray
    start_text: str
    valid_texts: list[str]
    units: Mapping[str, str] = field(default_factory=dict)  # for display, where the user requests them
    normals: Source | None = None  # the climatology at these leads
    _usual: dict[tuple, bool] = field(default_factory=dict)

    def read_maps(self, name: str, level: float | None, index: int) -> list[xr.DataArray]:
        """Return the map of the forecast at one of the leads, and that of the truth if any, ready to draw.

        They are anomalies if there is a climatology.
        """
        if self.normals is None:
            return self.read_full_maps(name, level, index)
        normal = self.normals.read(name, level, index)
        fields = [source.read(name, level, index) for source in self.sources]
        anomalies = [(full - normal).assign_attrs(full.attrs, anomaly=True) for full in fields]
        return [prepare_field(anomaly, level, self.units.get(name)) for anomaly in anomalies]

    def _has_usual_values(self, name: str, level: float | None) -> bool:
        """Return whether the truth, or else the forecast, has usual values at the first lead: that holds for all."""
        if (name, level) not in self._usual:
            self._usual[name, level] = has_usual_values(self.sources[-1].read(name, level, 0), level)
        return self._usual[name, level]

    def read_full_maps(self, name: str, level: float | None, index: int) -> list[xr.DataArray]:
        """Return what `read_maps` does, but never anomalies from the climatology."""
        fields = [source.read(name, level, index) for source in self.sources]
        usual = self._has_usual_values(name, level)
        return [prepare_field(full, level, self.units.get(name), usual=usual) for full in fields]


def open_source(dataset: xr.Dataset, role: str) -> Source:
    """Return a Dataset with its axes; ValueError if it is no Dataset or has no variables."""
    check_dataset(dataset, role)
    dataset = drop_single_height(dataset)
    axes = find_axes(dataset)
    if role != "truth" and "lead_time" in dataset.coords:
        axes = replace(axes, time="lead_time")
    return Source(dataset, axes, role)


def check_dataset(dataset: object, role: str) -> None:
    """Raise ValueError unless the argument is a Dataset with variables."""
    if isinstance(dataset, str | os.PathLike):
        raise ValueError(f"{role}={os.fspath(dataset)!r} is a path, not a Dataset: sc.open_dataset(path, [...])")
    if not isinstance(dataset, xr.Dataset):
        fix = f"{role}.to_dataset()" if isinstance(dataset, xr.DataArray) else f'{role}[["t2m"]]'
        raise ValueError(f"{role} is a {type(dataset).__name__}, not a Dataset. Give a Dataset, such as {fix}")
    if not dataset.data_vars:
        raise ValueError(f"{role} is a Dataset without variables. Name some when you open it.")


def choose_names(requested: str | Sequence[str] | None, names: list[str], option: str, role: str) -> list[str]:
    """Return the requested names, by default all."""
    if requested is None:
        return names
    requested = [requested] if isinstance(requested, str) else list(requested)
    if missing := [name for name in requested if name not in names]:
        raise ValueError(f"{option}={missing} is not in {role}, which has {names}.")
    if not requested:
        raise ValueError(f"{option} is empty. Name at least one of {names}, or omit it for all.")
    return requested


def choose_fields(
    source: Source, variable: str | Sequence[str] | None, level: float | Sequence[float] | None
) -> list[tuple[str, float | None]]:
    """Return the (variable, level) of each field to draw, by default all; level None where the variable has none."""
    names = choose_names(variable, [str(name) for name in source.dataset.data_vars], "variable", source.role)
    dim = source.axes.level
    with_levels = [name for name in names if dim in source.dataset[name].dims]
    levels: list = []
    if with_levels:
        available = source.dataset[dim].values.tolist()
        levels = available if level is None else np.atleast_1d(level).tolist()
        if missing := [value for value in levels if value not in available]:
            raise ValueError(f"level={missing[0]} is not in {source.role}: {dim} has {available}.")
    elif level is not None:
        raise ValueError(f"level={level} does not apply: {names} have no level dimension. Omit level.")
    return [(name, value) for name in names for value in (levels if name in with_levels else [None])]


def field_texts(fields: list[tuple[str, float | None]]) -> list[str]:
    """Return fields as texts, such as "t2m" or "temperature 500"."""
    return [name if value is None else f"{name} {value}" for name, value in fields]


def short_text(name: str, level: float | None) -> str:
    """Return a short name of a field, such as "z500" or "t2m"."""
    match = lookup(name)
    level = match[1] if match and match[1] is not None else level
    text = match[0].short_name if match else name
    separator = "" if match or level is None else " "
    return text if level is None else f"{text}{separator}{level:g}"


def choose_field(source: Source, variable: str | None, level: float | None) -> tuple[str, float | None]:
    """Return the (variable, level) of the only field; ValueError if several remain."""
    fields = choose_fields(source, variable, level)
    if len(fields) > 1:
        count = f"{len(fields)} fields, {field_texts(fields)}"
        raise ValueError(f"{source.role} has {count}, but one is drawn: set variable= and level=")
    return fields[0]


def lead_values(dataset: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Return the leads, and whether they count months; else they are timedelta64."""
    leads = _coordinate(dataset, "lead_time")
    if leads.dtype.kind == "m":
        return leads.astype("timedelta64[ns]"), False
    units = str(dataset["lead_time"].attrs.get("units", ""))
    if units.startswith("month"):
        return leads, True
    # a file opened without decode_timedelta=True has numbers and a unit
    if units in ("days", "hours", "minutes", "seconds"):
        return pd.to_timedelta(leads, unit=units).values.astype("timedelta64[ns]"), False
    rule = "It must be timedelta64, or numbers with units months, days, hours, minutes or seconds."
    raise ValueError(f"lead_time has type {leads.dtype} and units {units!r}. {rule}")


def choose_leads(dataset: xr.Dataset, lead: object) -> list[tuple[int, str]]:
    """Return the position and the text of each requested lead, by default of the last."""
    leads, months = lead_values(dataset)
    requested = _as_list(lead)
    if not requested:
        raise ValueError("lead is empty. Name at least one, or omit it for the last.")
    positions = [len(leads) - 1] if lead is None else [_lead_position(leads, months, value) for value in requested]
    return list(zip(positions, [f"+{text}" for text in lead_texts(leads[positions])], strict=True))


def _as_list(values: object) -> list:
    """Return one value or several as a list, DataArrays and arrays as their scalars."""
    if isinstance(values, xr.DataArray | np.ndarray):
        return list(np.ravel(values))
    values = list(values) if isinstance(values, list | tuple | pd.Index) else [values]
    return [value.values[()] if isinstance(value, xr.DataArray) else value for value in values]


def _lead_position(leads: np.ndarray, months: bool, lead: object) -> int:
    value: np.timedelta64 | int | None = None
    if months:
        match = re.fullmatch(r"\+?(\d+)( ?(MS|ME|M|months?))?", str(lead))
        value = int(match[1]) if match else None
    # pandas reads a bare number as nanoseconds
    elif isinstance(lead, np.timedelta64) or not isinstance(lead, int | float | np.number):
        with suppress(TypeError, ValueError):
            value = pd.Timedelta(lead).to_timedelta64()
    available = ", ".join(f"+{text}" for text in lead_texts(leads))
    if value is None:
        example = "lead=3" if months else 'lead="3D" or "12h"'
        raise ValueError(f"lead={lead!r} cannot be read: write {example}. Leads are {available}.")
    if value not in leads:
        raise ValueError(f"lead={lead!r} must be one of {available}.")
    return int(np.argmax(leads == value))


def select_forecast(
    forecast: Source, truth: xr.Dataset | None, names: Sequence[str], leads: list, init: object, latitudes: np.ndarray,
    longitudes: np.ndarray | None = None,
) -> ForecastSelection:  # fmt: skip
    """Return one forecast, by default the last whose valid times at these leads are all in the truth.

    It is on these latitudes and longitudes, by default all longitudes.
    """
    inits = _coordinate(forecast.dataset, "init_time")
    lead_positions, lead_texts = map(list, zip(*leads, strict=True))
    _coordinate(forecast.dataset, "valid_time")
    valid_times = find_valid_times(forecast.dataset).values[:, lead_positions]
    candidates = range(len(inits))[::-1] if init is None else [init_position(inits, init)]
    sources, chosen = [forecast], candidates[0]
    if truth is not None:
        sources = _match_names_and_units(forecast, truth, names)
        chosen, positions = _match_times(valid_times, candidates, sources[1], lead_texts)
        dataset = sources[1].dataset[list(names)].isel({sources[1].axes.time: positions})
        sources[1] = replace(sources[1], dataset=dataset)
    dataset = sources[0].dataset[list(names)]
    dataset = dataset.isel({"init_time": chosen, "lead_time": lead_positions}, missing_dims="ignore")
    sources[0] = replace(forecast, dataset=dataset)
    longitudes = forecast.axes.columns.values if longitudes is None else longitudes
    sources = [source.on_points(latitudes, longitudes) for source in sources]
    format = "%Y-%m" if lead_values(forecast.dataset)[1] else "%Y-%m-%d %H:%M UTC"
    valid_texts = [date_text(time, format) for time in valid_times[chosen]]
    return ForecastSelection(sources, lead_texts, valid_times[chosen], date_text(inits[chosen], format), valid_texts)


def select_normals(climatology: xr.Dataset, forecast: ForecastSelection, names: Sequence[str]) -> Source:
    """Return a climatology at the valid times and grid points of a forecast; ValueError if it does not fit."""
    check_dataset(climatology, "climatology")
    if missing := [name for name in names if name not in climatology]:
        raise ValueError(f"climatology has no {missing[0]!r}: it has {list(climatology.data_vars)}. Compute it again.")
    drawn = forecast.sources[0]
    for name in names:
        first, second = (dataset[name].attrs.get("units") for dataset in (drawn.dataset, climatology))
        if first is not None and second is not None and not same_units(str(first), str(second)):
            raise ValueError(f"{name!r} is in {first!r} in forecast and in {second!r} in climatology: convert one.")
    try:
        normals = normals_at(climatology[list(names)], xr.DataArray(forecast.valid_times, dims="lead_time"))
        axes = replace(find_axes(normals), time="lead_time")
    except ValueError as error:
        raise ValueError(f"climatology: {error}") from error
    return Source(normals, axes, "climatology").on_points(drawn.axes.rows.values, drawn.axes.columns.values)


def _match_names_and_units(forecast: Source, truth: xr.Dataset, names: Sequence[str]) -> list[Source]:
    """Return the forecast, and the truth with the names, the single level and the units of the forecast."""
    check_dataset(truth, "truth")
    try:
        truth = drop_single_height(truth)
        axes = find_axes(truth)
        dims = {dim for name in names if name in truth for dim in truth[name].dims if dim != axes.time}
        single = [dim for dim in dims if truth.sizes[dim] == 1 and dim not in forecast.dataset.dims]
        if single or not set(names) <= set(truth.data_vars):
            truth = rename(truth, names)
            axes = find_axes(truth)
    except ValueError as error:
        raise ValueError(f"truth: {error}") from error
    if axes.time is None or axes.time not in truth.dims:
        raise ValueError(f"truth has dimensions {dict(truth.sizes)} and no time: pass analyses along a time.")
    if not truth.sizes[axes.time]:
        raise ValueError(f"truth has no {axes.time}, its size is 0: pass analyses of the times that are forecast.")
    datasets = [forecast.dataset, truth]
    for name in names:
        first, second = (dataset[name].attrs.get("units") for dataset in datasets)
        if first is not None and second is not None and not same_units(str(first), str(second)):
            raise ValueError(f"{name!r} is in {first!r} in forecast and in {second!r} in truth: convert one of them.")
        if units := first or second:
            datasets = [dataset.assign({name: dataset[name].assign_attrs(units=units)}) for dataset in datasets]
    return [replace(forecast, dataset=datasets[0]), Source(datasets[1], axes, "truth")]


def _match_times(
    valid_times: np.ndarray, candidates: Sequence[int], truth: Source, leads: list[str]
) -> tuple[int, list[int]]:
    """Return the first of some forecasts whose valid times are all in the truth, and their positions there."""
    truth_times = truth.dataset[truth.axes.time].values
    if truth_times.dtype.kind != valid_times.dtype.kind:
        types = f"valid_time has type {valid_times.dtype}, truth's time {truth_times.dtype}"
        raise ValueError(f"{types}: their calendars differ.")
    if truth_times.dtype.kind == "M":  # values that compare equal whatever the resolution
        truth_times, valid_times = (times.astype("datetime64[ns]") for times in (truth_times, valid_times))
    position_of = {time: position for position, time in enumerate(truth_times.tolist())}
    for candidate in candidates:
        times = valid_times[candidate].tolist()
        if position_of.keys() >= set(times):
            return candidate, [position_of[time] for time in times]
    raise ValueError(
        f"no truth at lead {', '.join(leads)}: the forecast is valid at {span_text(valid_times[candidates].ravel())},"
        f" truth has {span_text(truth_times)}. Choose another init or lead, a longer truth, or omit truth."
    )


def _coordinate(forecast: xr.Dataset, name: str) -> np.ndarray:
    """Return the values of a coordinate of a forecast, at least one; a scalar counts as one."""
    if name not in forecast.coords:
        raise ValueError(f"forecast has no coordinate {name!r}: pass the output of a Forecaster, which has valid_time.")
    values = np.atleast_1d(forecast[name].values)
    if not values.size:
        raise ValueError(f"forecast has no {name}, its size is 0: the selection that made it matched nothing.")
    return values


def init_position(inits: np.ndarray, init: object) -> int:
    """Return the position of one initialization time, given as text, a date or a coordinate of size 1."""
    requested = _as_list(init)
    if len(requested) != 1:
        raise ValueError(f"init has {len(requested)} times, and one forecast is drawn. Give one, such as init[0]")
    init, matches = requested[0], np.array([], dtype=int)
    if inits.dtype.kind != "M":
        matches = np.flatnonzero([str(time).startswith(str(init).replace("T", " ")) for time in inits])
    # numpy reads a bare number as nanoseconds since 1970
    elif isinstance(init, str | datetime | np.datetime64):
        with suppress(ValueError):  # text that is no date matches nothing
            matches = np.flatnonzero(inits == pd.Timestamp(init).to_datetime64())
    if not len(matches):
        text = repr(init) if isinstance(init, str) else str(init)
        raise ValueError(f"init={text} is not in forecast, which has {span_text(inits)}.")
    return int(matches[0])


def date_text(time: object, format: str) -> str:
    """Return a time as text, whole hours without minutes."""
    time = pd.Timestamp(time) if isinstance(time, np.datetime64) else time
    return time.strftime(format).replace(":00 UTC", " UTC")


def span_text(times: np.ndarray) -> str:
    """Return a single time as text, or the count and the ends of several."""
    first, last = (date_text(time, "%Y-%m-%d %H:%M UTC") for time in (min(times), max(times)))
    return first if len(times) == 1 else f"{len(times)} times from {first} to {last}"
