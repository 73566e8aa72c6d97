"""Turn arrays of forecasts into labeled Datasets with the layout of the input data and global attributes."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import Canonical, bounds_offsets
from simvp_climate.data.harmonics import NAMES
from simvp_climate.data.opening import is_sample
from simvp_climate.data.windows import lead_times, to_iso, valid_times
from simvp_climate.forecasting import cf_encoding
from simvp_climate.forecasting.initial_states import combine_init_digests
from simvp_climate.forecasting.request import ForecastRequest
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task

NUMBER_ATTRS = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
_REFERENCES = {
    "SimVPv2": "Tan et al., SimVPv2, arXiv:2211.12509",
    "SimVPSphere": "developed from SimVPv2, Tan et al., arXiv:2211.12509",
}


def label(
    forecaster: Any, request: ForecastRequest, histories: np.ndarray, states: np.ndarray, digests: list[str]
) -> xr.Dataset:
    """Return forecasts as a Dataset with the names, grid, order and attributes of their initial data.

    `states` are (init, lead, member, channel, latitude, longitude) in the units of the data, from `histories` (init,
    history); `digests` has one digest of the data for each initialization.
    """
    inits, canonical = request.init_times(histories), request.canonical
    forecast = _canonical_forecast(states, canonical, inits, forecaster.task, forecaster.output_statistics)
    attributes = origin_attributes(forecaster, canonical.original)
    attributes |= {"init_start": str(inits.min()), "init_end": str(inits.max())}
    forecast = forecast.assign_attrs(attributes, data_sha256=combine_init_digests(digests))
    return cf_encoding.encode(canonical.restore(forecast), canonical.axes)


def label_run(request: Any, values: np.ndarray | None, rows: slice = slice(None)) -> xr.Dataset:
    """Return periods of a run (`run.RunRequest`) as a Dataset with the names, grid and attributes of its initial data.

    `values` are (period, statistic, member, channel, latitude, longitude) in the units of the data; None stands for
    lazy NaN, which takes no memory. `rows` are the positions of the periods.
    """
    forecaster, canonical, periods = request.forecaster, request.request.canonical, request.periods
    if values is None:
        shape = (len(periods.labels[rows]), *request.shape)
        values = dask.array.full(shape, np.float32(np.nan), chunks=shape, dtype=np.float32)
    outputs, dims = forecaster.output_statistics, ["time"]
    coords: dict[str, Any] = {"time": ("time", periods.labels[rows], dict(canonical.dataset["time"].attrs))}
    if periods.bounds is not None:
        coords["time"][2]["bounds"] = "time_bnds"
        coords["time_bnds"] = (("time", "bnds"), periods.bounds[rows])
    if request.members is None:
        values = values[:, :, 0]
    else:
        dims.append("number")
        coords["number"] = ("number", np.arange(request.members, dtype=np.int32), NUMBER_ATTRS)
    coords |= {name: canonical.dataset[name] for name in ("latitude", "longitude")}
    variables = {}
    for index, statistic in enumerate(request.statistics):
        for name, (channel_dims, array, attrs) in _split(values[:, index], dims, canonical, outputs, coords).items():
            method = "point" if periods.is_point else {"mean": "mean", "min": "minimum", "max": "maximum"}[statistic]
            suffix = "" if statistic == "mean" else f"_{statistic}"
            variables[f"{name}{suffix}"] = (channel_dims, array, {**attrs, "cell_methods": f"time: {method}"})
    attributes = origin_attributes(forecaster, canonical.original)
    attributes |= {
        "title": f"Run of {', '.join(forecaster.task.forecast_variables)} by {type(forecaster.network).__name__}",
        "history": str(attributes["history"]).replace("forecast by", "run by"),
        "run_start": to_iso(request.start[0]),
    }
    if forecaster.task.prescribed:
        attributes["prescribed"] = " ".join(forecaster.task.prescribed)
    if request.conserve:
        attributes["conserved_global_means"] = " ".join(request.conserve)
    if request.members is not None:
        attributes |= {"members": request.members, "member_seed": request.seed}
    run = xr.Dataset(variables, coords).assign_attrs(attributes)
    time = canonical.axes.time
    run = canonical.restore(run)
    return cf_encoding.encode_run(run.rename({time: "time"}) if time in run.dims else run, canonical.axes)


def _split(
    values: np.ndarray, dims: list[str], canonical: Canonical, outputs: Normalizer, coords: dict[str, Any]
) -> dict[str, tuple[list[str], np.ndarray, dict]]:
    """Return the variables in states (..., channel, latitude, longitude): dimensions, values and attributes of each.

    The levels are added to `coords`.
    """
    variables = {}
    for name in dict.fromkeys(channel.variable for channel in outputs.channels):
        positions = [index for index, channel in enumerate(outputs.channels) if channel.variable == name]
        array, variable_dims = values[..., positions, :, :], [*dims, "level", "latitude", "longitude"]
        if outputs.channels[positions[0]].level is None:
            array, variable_dims = array[..., 0, :, :], [*dims, "latitude", "longitude"]
        else:
            coords.setdefault("level", [outputs.channels[index].level for index in positions])
        units = outputs.units[positions[0]]
        attrs = canonical.dataset[name].attrs if name in canonical.dataset else {"units": units} if units else {}
        variables[name] = (variable_dims, array, attrs)
    return variables


def origin_attributes(forecaster: Any, dataset: xr.Dataset) -> dict[str, str | int]:
    """Return the global attributes that name the forecaster and the data of a forecast."""
    task, provenance, package = forecaster.task, forecaster.provenance, version("simvp-climate")
    network = type(forecaster.network).__name__
    attributes: dict[str, str | int] = {
        "Conventions": "CF-1.8",
        "title": f"Forecast of {', '.join(task.forecast_variables)} by {network}",
        "source": f"{network} (simvp_climate {package}), trained {provenance['training']}",
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} forecast by simvp_climate {package}",
        "system": network,
        "forecaster_sha256": forecaster.digest,
        "simvp_climate_version": package,
    }
    if forecaster.source is not None:
        attributes["forecaster_source"] = forecaster.source
    if network in _REFERENCES:
        attributes["references"] = _REFERENCES[network]
    if (seed := provenance.get("config", {}).get("seed")) is not None:
        attributes["seed"] = int(seed)
    if (commit := provenance.get("commit")) is not None:
        attributes["training_commit"] = commit
    encodings = [dataset.encoding, *(variable.encoding for variable in dataset.data_vars.values())]
    if source := next((encoding["source"] for encoding in encodings if encoding.get("source")), None):
        # the path of the sample depends on where the package is installed
        attributes["data_source"] = "open_sample()" if is_sample(source) else str(source)
    return attributes


def label_climatology(forecaster: Any) -> xr.Dataset:
    """Return the harmonics of a forecaster as a Dataset, (harmonic, [level,] latitude, longitude)."""
    harmonics, normalizer = forecaster.harmonics, forecaster.normalizer
    if harmonics is None:
        raise ValueError(
            "this forecaster has no climatology: its file is from an older version, or the climatology was too large. "
            "Compute one: sc.baselines.climatology(train)"
        )
    coords: dict[str, Any] = {"harmonic": list(NAMES)}
    coords |= {"latitude": forecaster.latitude, "longitude": forecaster.longitude}
    variables = {}
    for name in dict.fromkeys(channel.variable for channel in normalizer.channels):
        positions = [index for index, channel in enumerate(normalizer.channels) if channel.variable == name]
        values, dims = harmonics.coefficients[:, positions], ("harmonic", "level", "latitude", "longitude")
        if normalizer.channels[positions[0]].level is None:
            values, dims = values[:, 0], ("harmonic", "latitude", "longitude")
        else:
            coords.setdefault("level", [normalizer.channels[index].level for index in positions])
        units = normalizer.units[positions[0]]
        variables[name] = (dims, values, {"units": units} if units else {})
    attrs = {
        "climatology_method": "mean, three harmonics of the year and one of the day",
        "climatology_start": harmonics.start,
        "climatology_end": harmonics.end,
        "climatology_months": list(harmonics.months),
    }
    return xr.Dataset(variables, coords, attrs)


def _canonical_forecast(
    states: np.ndarray, canonical: Canonical, inits: pd.Index, task: Task, outputs: Normalizer
) -> xr.Dataset:
    """Return the states as a Dataset under canonical names, on the canonical grid, with their valid times."""
    dataset, dims = canonical.dataset, ["init_time", "lead_time"]
    coords = {"init_time": ("init_time", inits), "lead_time": lead_times(task.step, states.shape[1])}
    if canonical.member is None:
        states = states[:, :, 0]
    else:
        dims.append(canonical.member)
    copied = (canonical.member, "latitude", "longitude", "level")
    coords |= {name: dataset[name] for name in copied if name in dataset.dims and name in dataset.coords}
    variables = _split(states, dims, canonical, outputs, coords)
    forecast = xr.Dataset(variables, coords)
    valid_time = valid_times(forecast["init_time"], forecast["lead_time"], known=dataset.indexes["time"])
    forecast = forecast.assign_coords(valid_time=valid_time)
    offsets = bounds_offsets(dataset)
    if offsets is None:
        return forecast
    is_pandas = valid_time.dtype.kind == "M"
    bounds = [valid_time + (offset.to_numpy() if is_pandas else offset.to_pytimedelta()) for offset in offsets]
    return forecast.assign_coords(valid_time_bnds=xr.concat(bounds, "bnds").transpose(..., "bnds"))
