"""Turn arrays of forecasts into labeled Datasets with the layout of the input data and global attributes."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import Canonical, bounds_offsets
from simvp_climate.data.harmonics import NAMES
from simvp_climate.data.opening import is_sample
from simvp_climate.data.windows import lead_times, valid_times
from simvp_climate.forecasting import cf_encoding
from simvp_climate.forecasting.initial_states import combine_init_digests
from simvp_climate.forecasting.request import ForecastRequest
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task

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
    variables = {}
    for name in task.forecast_variables:
        positions = [index for index, channel in enumerate(outputs.channels) if channel.variable == name]
        values, variable_dims = states[..., positions, :, :], [*dims, "level", "latitude", "longitude"]
        if outputs.channels[positions[0]].level is None:
            values, variable_dims = values[..., 0, :, :], [*dims, "latitude", "longitude"]
        else:
            coords.setdefault("level", [outputs.channels[index].level for index in positions])
        units = outputs.units[positions[0]]
        attrs = dataset[name].attrs if name in dataset else {"units": units} if units else {}
        variables[name] = (variable_dims, values, attrs)
    forecast = xr.Dataset(variables, coords)
    valid_time = valid_times(forecast["init_time"], forecast["lead_time"], known=dataset.indexes["time"])
    forecast = forecast.assign_coords(valid_time=valid_time)
    offsets = bounds_offsets(dataset)
    if offsets is None:
        return forecast
    is_pandas = valid_time.dtype.kind == "M"
    bounds = [valid_time + (offset.to_numpy() if is_pandas else offset.to_pytimedelta()) for offset in offsets]
    return forecast.assign_coords(valid_time_bnds=xr.concat(bounds, "bnds").transpose(..., "bnds"))
