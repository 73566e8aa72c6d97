"""Which variable, level, lead and initialization is drawn, and one field of it on its grid."""

import os
import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import Axes, closes_longitude
from simvp_climate.data.variables import same_units
from simvp_climate.plot.colors import shown
from simvp_climate.plot.style import MAX_ROWS, coordinate_text, display_name

_SAME_POINT = 1e-3  # degrees: some files keep coordinates in single precision


def check_dataset(given: object, role: str) -> None:
    """Raise ValueError if what is to be drawn is no Dataset, or one without variables."""
    if isinstance(given, xr.DataArray):
        name = given.name or "t2m"
        raise ValueError(f"{role} is a DataArray: give a Dataset, {role}[[{name!r}]] or {role}.to_dataset()")
    if isinstance(given, str | os.PathLike):
        raise ValueError(
            f"{role}={os.fspath(given)!r} is a path: give a Dataset, sc.open_dataset(path, [...]) or "
            "xarray.open_dataset(path, decode_timedelta=True)"
        )
    if not isinstance(given, xr.Dataset):
        raise ValueError(f'{role} is a {type(given).__name__}: give a Dataset, such as {role}[["t2m"]]')
    if not given.data_vars:
        raise ValueError(f"{role} is a Dataset without variables: name some when you open it")


def choose_names(wanted: str | Sequence[str] | None, names: list[str], option: str, where: str) -> list[str]:
    """Return the names asked for, all of them by default."""
    if wanted is None:
        return names
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{option}={missing} not in {where}: it has {names}.")
    if not wanted:
        raise ValueError(f"{option} is empty: name at least one of {names}, or leave it out for all.")
    return wanted


def choose_rows(
    forecast: xr.Dataset, level_name: str | None, variable: str | Sequence[str] | None, level: object
) -> list[tuple[str, object]]:
    """Return the (variable, level) of each row of maps; level None where the variable has none."""
    rows: list[tuple[str, object]] = []
    names = choose_names(variable, [str(name) for name in forecast.data_vars], "variable", "forecast")
    layered = [name for name in names if level_name in forecast[name].dims]
    if level is not None and not layered:
        raise ValueError(f"level={level} was given, but {names} have no level dimension: leave it out.")
    for name in names:
        if name not in layered:
            rows.append((name, None))
            continue
        known = forecast[level_name].values
        for value in known if level is None else np.atleast_1d(level):
            if value not in known:
                raise ValueError(f"level={value:g} not in forecast: {level_name} has {known.tolist()}.")
            rows.append((name, value))
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{len(rows)} rows of maps are more than {MAX_ROWS}: choose with variable=... or level=...")
    return rows


def values_of(forecast: xr.Dataset, name: str) -> np.ndarray:
    """Return the values of a coordinate of a forecast, at least one; ValueError if it has none of this name."""
    if name not in forecast.coords:
        raise ValueError(
            f"forecast has no coordinate {name!r}: it has {list(forecast.coords)}. Pass what a Forecaster"
            " returns, dims (init_time, lead_time, ...) with valid_time."
        )
    values = np.atleast_1d(forecast[name].values)
    if not values.size:
        raise ValueError(f"forecast has no {name}, its size is 0: nothing was selected, so there is nothing to draw.")
    return values


def lead_values(dataset: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Return the leads as timedelta64, or as numbers and True where they count months."""
    values = values_of(dataset, "lead_time")
    if values.dtype.kind == "m":
        return values.astype("timedelta64[ns]"), False
    units = str(dataset["lead_time"].attrs.get("units", ""))
    if units.startswith("month"):
        return values, True
    # a file opened without decode_timedelta=True has numbers and a unit
    if units in ("days", "hours", "minutes", "seconds"):
        return pd.to_timedelta(values, unit=units).values.astype("timedelta64[ns]"), False
    raise ValueError(
        f"lead_time has type {values.dtype} and units {units!r}: it must be timedelta64, or numbers with"
        " units months, days, hours, minutes or seconds."
    )


def lead_text_of(lead: object, months: bool) -> str:
    """Return how to write a lead: "+3 d", "+12 h" or "+2 months"."""
    if months:
        return f"+{lead:g} month" + ("" if lead == 1 else "s")
    hours = lead / np.timedelta64(1, "h")
    return f"+{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"+{hours:g} h"


def lead_texts_alike(leads: Sequence, months: bool) -> list[str]:
    """Return how to write leads that stand in one list: all in days where these are whole, else all in hours."""
    if months:
        return [lead_text_of(lead, True) for lead in leads]
    hours = [lead / np.timedelta64(1, "h") for lead in leads]
    in_days = all(one % 24 == 0 for one in hours)
    return [f"+{one / 24:g} d" if in_days else f"+{one:g} h" for one in hours]


def choose_lead(forecast: xr.Dataset, lead: object) -> tuple[int, str]:
    """Return the position of a lead and how to write it."""
    leads, months = lead_values(forecast)
    texts = [lead_text_of(one, months) for one in leads]
    lead = lead.values[()] if isinstance(lead, xr.DataArray) else lead
    if lead is None:
        return len(leads) - 1, texts[-1]
    if months:
        number = re.fullmatch(r"\+?(\d+)( ?(MS|ME|M|months?))?", str(lead))
        wanted = int(number.group(1)) if number else None
        example = "lead=3"
    else:
        example = 'lead="3D" or "12h"'
        try:
            # a bare number would silently be nanoseconds
            numeric = isinstance(lead, int | float | np.number) and not isinstance(lead, np.timedelta64)
            wanted = None if numeric else pd.Timedelta(lead).to_timedelta64()
        except (TypeError, ValueError):
            wanted = None
    if wanted is None:
        raise ValueError(f"lead={lead!r} cannot be read: write {example}. It has {', '.join(texts)}.")
    found = np.flatnonzero(leads == wanted)
    if not len(found):
        raise ValueError(f"lead={lead!r} not in forecast: it has {', '.join(texts)}.")
    return int(found[0]), texts[found[0]]


def time_values(truth: xr.Dataset, name: str | None) -> np.ndarray:
    """Return the times of the truth; ValueError if it has none."""
    if name is None or name not in truth.dims:
        raise ValueError(f"truth has dimensions {dict(truth.sizes)} and no time: pass an analysis with one.")
    if not truth.sizes[name]:
        raise ValueError(f"truth has no {name}, its size is 0: pass an analysis of the times that are forecast.")
    return truth[name].values


def choose_init(
    forecast: xr.Dataset, init: object, leads: Sequence[tuple[int, str]], truth_times: np.ndarray | None
) -> tuple[int, list, list[int | None]]:
    """Return the position of an init, its valid times at some leads, and the positions of those in the truth."""
    starts = values_of(forecast, "init_time")
    values_of(forecast, "valid_time")
    columns = []
    for index, _ in leads:
        valid = forecast["valid_time"]
        valid = valid.isel(lead_time=index) if "lead_time" in valid.dims else valid
        columns.append(np.atleast_1d(valid.values))
    candidates = list(range(len(starts)))[::-1]
    if init is not None:
        init = np.asarray(init.values).reshape(-1) if isinstance(init, xr.DataArray) else init
        if isinstance(init, np.ndarray | list | tuple | pd.Index):
            if len(init) != 1:
                raise ValueError(f"init has {len(init)} times, and one forecast is drawn: give one, such as init[0]")
            init = init[0]
        found = _find_time(starts, init)
        if found is None:
            words = repr(init) if isinstance(init, str) else str(init)
            raise ValueError(f"init={words} not in forecast: it has {span_text(starts)}.")
        candidates = [found]
    if truth_times is None:
        return candidates[0], [valid[candidates[0]] for valid in columns], [None] * len(columns)
    if truth_times.dtype.kind != columns[0].dtype.kind:
        raise ValueError(
            f"valid_time has type {columns[0].dtype}, truth's time {truth_times.dtype}: their calendars differ."
        )
    where = {time: index for index, time in enumerate(_comparable(truth_times))}
    for candidate in candidates:
        places = [where.get(_comparable(valid)[candidate]) for valid in columns]
        if None not in places:
            return candidate, [valid[candidate] for valid in columns], places
    moments = span_text(np.concatenate([valid[candidates] for valid in columns]))
    raise ValueError(
        f"no truth at lead {', '.join(text for _, text in leads)}: the forecast is valid at {moments}, truth has "
        f"{span_text(truth_times)}. Choose another init or lead, a longer truth, or leave truth out."
    )


def choose_leads(forecast: xr.Dataset, lead: object) -> list[tuple[int, str]]:
    """Return the positions of one lead or several, and how to write them."""
    if isinstance(lead, xr.DataArray | np.ndarray):
        values = np.asarray(lead.values if isinstance(lead, xr.DataArray) else lead)
        lead = list(values) if values.ndim else values[()]
    several = lead if isinstance(lead, list | tuple | pd.Index) else [lead]
    if not len(several):
        raise ValueError("lead is empty: name at least one, or leave it out for the last.")
    found = [choose_lead(forecast, one) for one in several]
    if len(found) == 1:
        return found
    leads, months = lead_values(forecast)
    texts = lead_texts_alike([leads[at] for at, _ in found], months)
    return [(at, text) for (at, _), text in zip(found, texts, strict=True)]


def _comparable(times: np.ndarray) -> list:
    """Return times that compare equal whatever the resolution they are stored in."""
    return times.astype("datetime64[ns]").tolist() if times.dtype.kind == "M" else times.tolist()


def _find_time(times: np.ndarray, wanted: object) -> int | None:
    if times.dtype.kind == "M":
        try:
            # a bare number would silently be nanoseconds since 1970
            if not isinstance(wanted, str | datetime | np.datetime64):
                return None
            found = np.flatnonzero(times == pd.Timestamp(wanted).to_datetime64())
        except ValueError:
            return None
    else:
        text = str(wanted).replace("T", " ")
        found = np.flatnonzero([str(time).startswith(text) for time in times])
    return int(found[0]) if len(found) else None


def date_text(time: object, calendar: str) -> str:
    """Return a time in words, whole hours without minutes."""
    time = pd.Timestamp(time) if isinstance(time, np.datetime64) else time
    return time.strftime(calendar).replace(":00 UTC", " UTC")


def span_text(times: np.ndarray) -> str:
    """Return one time, or the number and the ends of several, in words."""
    first, last = (date_text(time, "%Y-%m-%d %H:%M UTC") for time in (min(times), max(times)))
    return first if len(times) == 1 else f"{len(times)} times from {first} to {last}"


def select(dataset: xr.Dataset, name: str, axes: Axes, level: object, at: dict, role: str) -> xr.DataArray:
    """Return one variable of a Dataset at a level and at positions along other dimensions; nothing is read.

    Positions may be single ones, or arrays for a dimension that stays.
    """
    if name not in dataset.data_vars:
        raise ValueError(f"variable {name!r} not in {role}: it has {list(dataset.data_vars)}.")
    array = dataset[name]
    array = array.isel({dim: index for dim, index in at.items() if dim in array.dims})
    if level is not None:
        if axes.level not in array.dims:
            raise ValueError(f"{name!r} in {role} has no level dimension: it has {array.dims}.")
        found = np.flatnonzero(dataset[axes.level].values == level)
        if not len(found):
            raise ValueError(f"level={level:g} not in {role}: it has {dataset[axes.level].values.tolist()}.")
        array = array.isel({axes.level: int(found[0])})
    stays = [dim for dim, index in at.items() if np.ndim(index)]
    if left_over := [dim for dim in array.dims if dim not in (axes.latitude, axes.longitude, *stays)]:
        dim = left_over[0]
        raise ValueError(
            f"{name!r} in {role} also has dimension {dim!r} of size {array.sizes[dim]}: choose or average"
            f" first, {role}.isel({dim}=0) or {role}.mean({dim!r}, keep_attrs=True)."
        )
    if {axes.latitude, axes.longitude} - set(array.dims):
        raise ValueError(f"{name!r} in {role} has {array.dims}: a map needs latitude and longitude.")
    return array


def grid_of(dataset: xr.Dataset, axes: Axes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the coordinates of the points as they are drawn, and the positions in the Dataset that these have.

    Latitude ascends, longitude runs from the western edge on: for the globe from 0; for a region without a jump, past
    360 if need be.
    """
    latitude = np.asarray(dataset[axes.latitude].values, dtype=float)
    longitude = np.asarray(dataset[axes.longitude].values, dtype=float) % 360
    rows, columns = np.argsort(latitude), np.argsort(longitude)
    longitude = longitude[columns]
    if not closes_longitude(longitude):
        start = (int(np.argmax(np.diff(longitude, append=longitude[0] + 360))) + 1) % len(longitude)
        columns, longitude = np.roll(columns, -start), np.roll(longitude, -start)
        longitude = longitude + 360 * (longitude < longitude[0])
    return {"latitude": latitude[rows], "longitude": longitude}, {"latitude": rows, "longitude": columns}


def field_at(dataset: xr.Dataset, name: str, axes: Axes, level: object, at: dict, role: str) -> xr.DataArray:
    """Return one map as it is drawn, dims (latitude, longitude) ordered as by `grid_of`, units as by `shown`."""
    array = select(dataset, name, axes, level, at, role)
    points, places = grid_of(dataset, axes)
    values = array.transpose(axes.latitude, axes.longitude).values
    values = values[np.ix_(places["latitude"], places["longitude"])].astype(float)
    field = xr.DataArray(values, points, ("latitude", "longitude"), name, what(array, dataset, axes, level))
    return shown(field, level)


def what(array: xr.DataArray, dataset: xr.Dataset, axes: Axes, level: object) -> dict:
    """Return the attributes of a field, with `what` for its name and level in words."""
    return {
        **array.attrs,
        "what": display_name(array) + ("" if level is None else f", {coordinate_text(dataset, axes.level, level)}"),
    }


def in_same_units(forecast: xr.Dataset, truth: xr.Dataset, name: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Return forecast and truth; one that says no units of a variable has those of the other.

    Raises ValueError if they say different units. Other spellings of one unit are the same.
    """
    units = [dataset[name].attrs.get("units") for dataset in (forecast, truth)]
    if None not in units:
        if not same_units(str(units[0]), str(units[1])):
            raise ValueError(
                f"{name!r} is in {units[0]!r} in forecast and in {units[1]!r} in truth: convert one of them."
            )
        return forecast, truth
    known = {"units": units[0] or units[1]} if any(units) else {}
    forecast, truth = (one.assign({name: one[name].assign_attrs(known)}) for one in (forecast, truth))
    return forecast, truth


def positions_of(points: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return where the grid points of a forecast are among those of the truth; ValueError if one is not there."""
    picked = {}
    for dim in ("latitude", "longitude"):
        apart = np.abs(others[dim][None, :] - points[dim][:, None])
        if dim == "longitude":
            apart = np.minimum(apart % 360, -apart % 360)
        picked[dim] = apart.argmin(axis=1)
        if (missing := apart.min(axis=1) > _SAME_POINT).any():
            raise ValueError(
                f"truth has no {dim} {points[dim][missing][0]:g} ({missing.sum()} of {missing.size} of"
                " the forecast are missing): bring both to one grid first, truth is not interpolated here."
            )
    return picked


def at_points_of(field: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return `other` at the grid points of `field`, which it must have: nothing is interpolated."""
    grids = [{dim: one[dim].values for dim in ("latitude", "longitude")} for one in (field, other)]
    return other.isel(positions_of(*grids)).assign_coords(field.coords)
