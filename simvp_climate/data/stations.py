"""Values at points: interpolate gridded data to stations, and read tables of station observations."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import as_forecast, check_numbers
from simvp_climate.data.grid import (
    LATITUDE_ATTRS,
    LONGITUDE_ATTRS,
    TOLERANCE,
    Axes,
    check_axis,
    closes_longitude,
    find_axes,
    find_candidates,
    reaches_poles,
)
from simvp_climate.data.variables import STANDARD_GRAVITY, conversion, find_variable, lookup

STATION = "station"
# columns of tables under their names here
_COLUMNS = {
    "time": ("time", "valid_time", "date", "datetime"),
    STATION: (STATION, "station_id", "station_name", "id", "name"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "elevation": ("elevation", "altitude", "alt", "height", "surface_altitude"),
}
_ELEVATION_ATTRS = {"standard_name": "surface_altitude", "long_name": "elevation of the station", "units": "m"}


def at(
    dataset: xr.Dataset, latitude: float | Sequence[float] | None = None,
    longitude: float | Sequence[float] | None = None, *, stations: pd.DataFrame | xr.Dataset | None = None,
    names: Sequence[str] | None = None, elevation: float | Sequence[float] | None = None,
    orography: xr.Dataset | None = None, method: Literal["bilinear", "nearest"] = "bilinear",
    lapse_rate: float | None = 6.5,
) -> xr.Dataset:  # fmt: skip
    """Return a gridded dataset at points, along the dimension `station`.

    >>> sc.at(forecast, 48.1, 11.6)
    >>> sc.at(forecast, stations=table)  # of observations, or of the columns latitude, longitude, station

    Parameters
    ----------
    dataset
        A forecast, analyses, a climatology, or any other Dataset on a regular latitude-longitude grid.
    latitude, longitude
        Of one point or several, in degrees; west is negative or above 180.
    stations
        In place of both: a pandas table with the columns `latitude` and `longitude`, and perhaps `station` and
        `elevation`, or a Dataset from `station_observations`. Rows of the same station count once.
    names
        Of the points; by default those of the table, or the coordinates ("48.1N 11.6E").
    elevation
        Of the points, in m; by default that of the table, if it has one.
    orography
        The altitude of the grid: a Dataset with the variable `orography`, or `zs`. By default that of `dataset`.
    method
        "bilinear": from the four cells around a point, missing if a cell with a weight above 0 is missing. "nearest":
        the nearest row and column.
    lapse_rate
        In K per km. The 2 m temperature `t2m` is changed by -`lapse_rate` times the difference between the elevation of
        the point and that of the grid there, where both are known. 6.5 is the lapse rate of the standard atmosphere
        (ISO 2533). None: no correction, for example of anomalies, which need none.

    Returns
    -------
    Dataset with `station` in place of latitude and longitude, as the last dimension, and the coordinates of the
    stations as requested. Between the outermost rows and the poles of a global grid, values are those of the row.
    Lazy if `dataset` consists of dask arrays, else in memory.

    Raises
    ------
    ValueError
        If a point lies outside the grid, arguments contradict each other or are ignored, or names repeat.
    """
    points = _points(latitude, longitude, stations, names, elevation)
    if method not in ("bilinear", "nearest"):
        raise ValueError(f'method={method!r} must be "bilinear" or "nearest"')
    dataset = as_forecast(dataset)
    axes = find_axes(dataset)
    result = _interpolate(dataset, axes, points, method)
    temperatures = [name for name in result.data_vars if (known := lookup(str(name))) and known[0].short_name == "t2m"]
    if lapse_rate is None or not temperatures or "elevation" not in points.coords:
        for argument, value in {"elevation": elevation, "orography": orography}.items():
            if value is not None:
                fix = "It needs t2m, lapse_rate, and both elevation and orography: leave it out"
                raise ValueError(f"{argument} would be ignored: it serves to correct 2 m temperature. {fix}")
        return result
    heights = _model_heights(dataset if orography is None else orography, points, method)
    if heights is None:
        if orography is not None or elevation is not None:
            fix = 'Pass orography=sc.open_dataset(path, ["orography"]), or lapse_rate=None'
            raise ValueError(f"the altitude of the grid is unknown: there is no orography. {fix}")
        for name in temperatures:
            result[name].attrs["comment"] = "not corrected for altitude: that of the grid is unknown"
        return result
    for name in temperatures:
        units = result[name].attrs.get("units", "K")
        kelvin = conversion("t2m", "K", units)
        if kelvin is None:
            raise ValueError(f"{name} has the units {units!r}, which are no temperature. Correct them")
        change = -lapse_rate / 1000 * kelvin[0] * (points["elevation"] - heights)
        if "harmonic" in result[name].dims:  # of `Forecaster.climatology`: cycles do not change
            change = change * (result["harmonic"] == "mean")
        comment = f"corrected from the altitude of the grid to that of the station by {lapse_rate:g} K/km"
        corrected = (result[name] + change.reset_coords(drop=True)).astype(result[name].dtype)
        corrected = corrected.transpose(*result[name].dims)
        result[name] = corrected.assign_attrs(result[name].attrs, comment=comment)
    return result


def station_observations(
    table: pd.DataFrame | xr.Dataset, variables: Sequence[str] | Mapping[str, str] | None = None, *,
    units: Mapping[str, str] | None = None, round_to: str | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return observations of stations as a Dataset with dims (time, station), for `score` and the metrics.

    >>> observations = sc.io.station_observations(table, units={"t2m": "degC"})
    >>> sc.score(sc.at(forecast, stations=observations), observations)

    Parameters
    ----------
    table
        A pandas table in long form, a row for each time and station, with the columns `time` (UTC), `station`,
        `latitude`, `longitude`, perhaps `elevation` in m, and one for each variable. Or a Dataset of CF time series
        (featureType timeSeries; orthogonal, incomplete or ragged).
    variables
        Columns to keep, or a mapping that renames them, `{"t2m": "temperature"}`. None: all with numbers.
    units
        By variable; those of a Dataset are in its attributes.
    round_to
        Round times to multiples of a duration, "1h", and keep the nearest observation of each station. None: times
        stay, and only observations at the valid time of a forecast are verified.

    Returns
    -------
    Dataset with dims (time, station), the coordinates `latitude`, `longitude` and perhaps `elevation` of the stations;
    NaN where a station has no observation.

    Raises
    ------
    ValueError
        If a column is missing, a station moves or has two observations at one time, or a variable is no number.
    """
    attrs: dict[str, dict] = {}
    if isinstance(table, xr.Dataset):
        attrs = {str(name): dict(variable.attrs) for name, variable in table.data_vars.items()}
        table = _long_table(table)
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"table is a {type(table).__name__}, but must be a pandas DataFrame or a Dataset")
    table = _name_columns(table, required=("time", STATION, "latitude", "longitude"))
    others = [str(name) for name in table.columns if name not in _COLUMNS and table[name].dtype.kind in "fiub"]
    sources = variables if isinstance(variables, Mapping) else {name: name for name in variables or others}
    if missing := [source for source in sources.values() if source not in table.columns]:
        raise ValueError(f"the table has no column {missing[0]!r}, but {list(map(str, table.columns))}")
    if not sources:
        raise ValueError(f"the table has no column of numbers besides the places and times: {list(table.columns)}")
    if unknown := set(units or {}) - set(sources):
        raise ValueError(f"units has {sorted(unknown)}, which are not among the variables {list(sources)}")
    stations = _points(None, None, table, None, None)
    table = _round_times(table, round_to)
    keys = [table["time"], table[STATION]]
    if (repeated := table[["time", STATION]].duplicated()).any():
        time, station = table.loc[repeated, ["time", STATION]].iloc[0]
        fix = "Keep one: table.drop_duplicates(['time', 'station'])"
        raise ValueError(f"the station {station!r} has two observations at {time}. {fix}")
    result = xr.Dataset()
    for name, source in sources.items():
        wide = table[source].set_axis(pd.MultiIndex.from_arrays(keys, names=["time", STATION])).unstack(STATION)
        wide = wide.sort_index().reindex(columns=stations[STATION].values)
        values = wide.to_numpy(dtype=None)
        described = attrs.get(source, {}) | ({"units": units[name]} if units and name in units else {})
        described = {
            key: value for key, value in described.items() if key not in ("coordinates", "ancillary_variables")
        }
        result[name] = xr.DataArray(values, {"time": wide.index.to_numpy()}, ("time", STATION), attrs=described)
        check_numbers(name, result[name])
    result["time"].attrs = {"standard_name": "time", "axis": "T"}
    return result.assign_coords(stations.coords).assign_attrs(featureType="timeSeries")


def _points(
    latitude: object, longitude: object, stations: pd.DataFrame | xr.Dataset | None, names: object, elevation: object
) -> xr.Dataset:
    """Return the coordinates latitude, longitude and perhaps elevation of stations with unique names."""
    if (stations is None) == (latitude is None) or (latitude is None) != (longitude is None):
        raise ValueError("give either latitude and longitude, or stations: sc.at(forecast, 48.1, 11.6)")
    if stations is not None:
        if isinstance(stations, xr.Dataset):
            coords = [n for n in (*_COLUMNS["latitude"], *_COLUMNS["longitude"], *_COLUMNS["elevation"])
                      if n in stations.variables]  # fmt: skip
            stations = stations.reset_coords(drop=False)[coords].to_dataframe().reset_index()
        table = _name_columns(stations, required=("latitude", "longitude"))
        latitude, longitude = table["latitude"].to_numpy(float), table["longitude"].to_numpy(float)
        if elevation is None and "elevation" in table.columns:
            elevation = table["elevation"].to_numpy(float)
        if names is None and STATION in table.columns:
            labels = table[STATION].astype(str)
            first = ~labels.duplicated().to_numpy()
            _check_places(labels, latitude, longitude)
            names, latitude, longitude = labels[first].to_numpy(), latitude[first], longitude[first]
            elevation = elevation[first] if np.size(elevation) == first.size else elevation
    latitudes, longitudes = (np.atleast_1d(np.asarray(each, dtype=np.float64)) for each in (latitude, longitude))
    if latitudes.ndim > 1 or latitudes.shape != longitudes.shape or not latitudes.size:
        raise ValueError(f"{latitudes.size} latitudes and {longitudes.size} longitudes: give as many of both")
    for axis, values in (("latitude", latitudes), ("longitude", longitudes)):
        for value in values:
            check_axis(axis, axis, np.array([value]))
    if names is None:
        names = [_place(*place) for place in zip(latitudes, longitudes, strict=True)]
    labels = np.array([str(name) for name in np.atleast_1d(np.asarray(names))])
    if labels.size != latitudes.size or len(set(labels)) < labels.size:
        raise ValueError(f"{labels.size} names for {latitudes.size} points: give a name to each, and each once")
    coords = {STATION: (STATION, labels, {"long_name": "station", "cf_role": "timeseries_id"})}
    coords["latitude"] = (STATION, latitudes, {k: v for k, v in LATITUDE_ATTRS.items() if k != "axis"})
    coords["longitude"] = (STATION, longitudes, {k: v for k, v in LONGITUDE_ATTRS.items() if k != "axis"})
    if elevation is not None:
        heights = np.atleast_1d(np.asarray(elevation, dtype=np.float64))
        if heights.shape != latitudes.shape:
            raise ValueError(f"{heights.size} elevations for {latitudes.size} points: give one for each")
        coords["elevation"] = (STATION, heights, _ELEVATION_ATTRS)
    return xr.Dataset(coords=coords)


def _place(latitude: float, longitude: float) -> str:
    west = (longitude + 180) % 360 - 180
    return f"{abs(latitude):g}{'S' if latitude < 0 else 'N'} {abs(west):g}{'W' if west < 0 else 'E'}"


def _check_places(labels: pd.Series, latitude: np.ndarray, longitude: np.ndarray) -> None:
    """Raise ValueError if the rows of one station are at different places."""
    places = pd.DataFrame({STATION: labels.to_numpy(), "latitude": latitude, "longitude": longitude})
    extent = places.groupby(STATION).agg(lambda values: values.max() - values.min())
    if (moved := (extent > 0.01).any(axis=1)).any():
        fix = "Give each place a name of its own"
        raise ValueError(f"the station {moved.idxmax()!r} is at several places in the table. {fix}")


def _name_columns(table: pd.DataFrame, required: Sequence[str]) -> pd.DataFrame:
    """Return a table with the names of columns that this module uses, its index among them."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    lower = {str(column).lower(): column for column in reversed(list(table.columns))}
    names = {}
    for name, usual in _COLUMNS.items():
        if (column := next((lower[each] for each in usual if each in lower), None)) is not None:
            names[column] = name
    if missing := [name for name in required if name not in names.values()]:
        fix = f"Rename it: table.rename(columns={{...: {missing[0]!r}}})"
        raise ValueError(f"the table has no column {missing[0]!r}, but {list(map(str, table.columns))}. {fix}")
    table = table.rename(columns=names)
    return table.assign(station=table[STATION].astype(str)) if STATION in table.columns else table


def _round_times(table: pd.DataFrame, round_to: str | None) -> pd.DataFrame:
    """Return a table whose times are UTC without a zone, rounded, with the observation nearest to each."""
    times = pd.DatetimeIndex(pd.to_datetime(table["time"]))
    if times.hasnans:
        raise ValueError(f"{times.isna().sum()} times of the table are missing. table.dropna(subset=['time'])")
    times = (times if times.tz is None else times.tz_convert("UTC").tz_localize(None)).as_unit("ns")
    if round_to is None:
        return table.assign(time=times)
    rounded = times.round(round_to)
    table = table.assign(time=rounded).iloc[np.argsort(np.abs(times - rounded), kind="stable")]
    return table.drop_duplicates(["time", STATION])


def _long_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return CF time series of any layout of the chapter on discrete sampling geometries as a table."""
    dataset = dataset.reset_coords()
    candidates = find_candidates(dataset.set_coords([n for n in dataset.variables if dataset[n].ndim < 2]))
    latitude = next((name for name in candidates["latitude"] if dataset[name].ndim < 2), None)
    longitude = next((name for name in candidates["longitude"] if dataset[name].ndim < 2), None)
    if latitude is None or longitude is None:
        raise ValueError("the Dataset has no latitude and longitude for each station. Add them as coordinates")
    if dataset[latitude].ndim == 0:
        dataset = dataset.expand_dims(STATION)
    (dim,) = dataset[latitude].dims
    ids = [name for name, variable in dataset.variables.items() if variable.attrs.get("cf_role") == "timeseries_id"]
    labels = (
        dataset[ids[0]] if ids else dataset.get(STATION, dataset.get(dim, xr.DataArray(np.arange(dataset.sizes[dim]))))
    )
    labels = [each.decode() if isinstance(each, bytes) else str(each) for each in np.atleast_1d(labels.values)]
    dataset = dataset.drop_vars([*ids, *[n for n in (STATION, dim) if n in dataset.variables and n not in ids]])
    dataset = dataset.assign({latitude: (dim, np.atleast_1d(dataset[latitude].values))}).rename({latitude: "latitude"})
    dataset = dataset.assign({longitude: (dim, np.atleast_1d(dataset[longitude].values))}).rename(
        {longitude: "longitude"}
    )
    for (
        name,
        variable,
    ) in dataset.variables.items():  # ragged: a row for each observation, with the index of its station
        if (sample := variable.attrs.get("sample_dimension")) is not None:
            index = np.repeat(np.arange(len(labels)), variable.values)
        elif variable.attrs.get("instance_dimension") == dim:
            (sample,), index = variable.dims, variable.values
        else:
            continue
        per_station = [n for n in dataset.variables if dataset[n].dims == (dim,) and n != name]
        rows = {n: (sample, dataset[n].values[index]) for n in per_station}
        dataset = dataset.drop_vars([name, *per_station]).assign(rows)
        return dataset.assign(station=(sample, np.array(labels)[index])).to_dataframe().reset_index(drop=True)
    if dim not in dataset.dims:
        raise ValueError(f"no variable has the dimension {dim!r} of the stations")
    table = dataset.assign(station=(dim, labels)).to_dataframe().reset_index()
    return table.dropna(subset=["time"]) if "time" in table.columns else table


def point_weights(dataset: xr.Dataset, latitude: float, longitude: float) -> xr.DataArray:
    """Return the weights of all cells in the bilinear value at a point, dims (latitude, longitude)."""
    axes = find_axes(dataset)
    point = _points(latitude, longitude, None, None, None)
    weights = np.zeros((axes.rows.values.size, axes.columns.values.size))
    for row, row_weight in _corners("latitude", axes.rows.values, point, "bilinear"):
        for column, column_weight in _corners("longitude", axes.columns.values, point, "bilinear"):
            weights[axes.rows.order[row], axes.columns.order[column]] += row_weight * column_weight
    names = (axes.latitude, axes.longitude)
    return xr.DataArray(weights, {name: dataset[name] for name in names}, names)


def _interpolate(dataset: xr.Dataset, axes: Axes, points: xr.Dataset, method: str) -> xr.Dataset:
    """Return all variables at the points, the corners of a cell weighted by distance."""
    rows = _corners("latitude", axes.rows.values, points, method)
    columns = _corners("longitude", axes.columns.values, points, method)
    horizontal = {axes.latitude, axes.longitude}
    result = dataset.drop_vars([name for name, v in dataset.variables.items() if horizontal & set(v.dims)])
    for name, variable in dataset.data_vars.items():
        if not horizontal <= set(variable.dims):
            continue
        check_numbers(name, variable)
        field = variable.variable if variable.chunks else variable.variable.copy(data=variable.values)
        total = None
        for row_order, row_weight in rows:
            for column_order, column_weight in columns:
                weight = xr.Variable(STATION, row_weight * column_weight)
                places = {axes.latitude: axes.rows.order[row_order], axes.longitude: axes.columns.order[column_order]}
                corner = field.isel({dim: xr.Variable(STATION, order) for dim, order in places.items()})
                part = (corner * weight).where(weight > 0, 0)  # a missing value of weight 0 does not spread
                total = part if total is None else total + part
        total = total.transpose(..., STATION)
        dtype = variable.dtype if variable.dtype.kind == "f" else np.float64
        result[name] = total.astype(dtype)
        result[name].attrs = dict(variable.attrs)
    return result.assign_coords(points.coords).assign_attrs(dataset.attrs)


def _corners(axis: str, values: np.ndarray, points: xr.Dataset, method: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the positions on an ascending axis below and above every point, and their weights, which sum to 1."""
    targets = points[axis].values
    size, closed = len(values), axis == "longitude" and closes_longitude(values)
    if axis == "longitude":
        targets = values[0] + (targets - values[0]) % 360
        targets = np.where(targets > values[0] + 360 - TOLERANCE, targets - 360, targets)
    edges = np.append(values, values[0] + 360) if closed else values
    limit = TOLERANCE
    if method == "nearest" and size > 1:  # half a cell
        limit = max(np.diff(values).max() / 2, TOLERANCE)
    if not closed and not (axis == "latitude" and reaches_poles(values) != "no"):
        distance = np.maximum(edges[0] - targets, targets - edges[-1])
        if axis == "longitude":  # a point just west of a region is 360 degrees east of it
            targets = np.where(values[0] + 360 - targets < distance, targets - 360, targets)
            distance = np.maximum(edges[0] - targets, targets - edges[-1])
        if (outside := distance > limit).any():
            place = f"{points[STATION].values[outside][0]!s} ({points[axis].values[outside][0]:g})"
            extent = f"{axis} {edges[0]:g} to {edges[-1]:g}"
            raise ValueError(f"{outside.sum()} points lie outside the grid, {extent}, first {place}. Leave them out")
    upper = np.clip(np.searchsorted(edges, targets, side="right"), 1, max(len(edges) - 1, 1))
    lower = upper - 1
    upper = np.minimum(upper, len(edges) - 1)
    width = np.where(upper > lower, edges[upper] - edges[lower], 1.0)
    weight = np.clip((targets - edges[lower]) / width, 0, 1)
    # noise of the coordinates must not bring in a neighbor, which may have no value
    weight = np.where(np.abs(weight - np.round(weight)) * width < TOLERANCE / 10, np.round(weight), weight)
    weight = np.floor(weight + 0.5) if method == "nearest" else weight
    return [(lower % size, 1 - weight), (upper % size, weight)]


def _model_heights(dataset: xr.Dataset, points: xr.Dataset, method: str) -> xr.DataArray | None:
    """Return the altitude in m of the grid at the points, or None if the dataset has none."""
    axes = find_axes(dataset)
    for name in ("orography", "zs"):
        try:
            source, _ = find_variable(dataset, name, axes.level, axes.scalar_level)
        except ValueError:
            continue
        field = dataset[source].reset_coords(drop=True)
        field = field.isel({dim: 0 for dim in field.dims if dim not in (axes.latitude, axes.longitude)}, drop=True)
        heights = _interpolate(field.to_dataset(name=name), axes, points, method)[name]
        return heights.astype(np.float64) / (STANDARD_GRAVITY if name == "zs" else 1)
    return None
