"""Parts that the fitted baselines share: anomalies on the canonical grid, pairs of times one lead apart, forecasts."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import check_same_grid, find_axes
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import valid_times
from simvp_climate.metrics.baselines.climatologies import normals_at, time_blocks
from simvp_climate.metrics.baselines.simple_persistence import Times, persistence
from simvp_climate.metrics.pairs import on_grid_of, to_iso
from simvp_climate.metrics.regions import SPACE


def canonical_training(train: xr.Dataset, climatology: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return training data and climatology on the canonical grid, with the variables of the climatology."""
    names = [name for name in climatology.data_vars if name in train]
    if not names:
        raise ValueError(
            f"train has {list(train.data_vars)} and the climatology {list(climatology.data_vars)}: they have no "
            "variable in common. Give climatology(train)"
        )
    train = canonicalize(train, names).dataset.reset_coords(drop=True)
    climatology = on_grid_of(climatology, train, "the climatology").load()
    if not train.indexes["time"].is_unique:
        raise ValueError("train has a time twice: keep one, train.drop_duplicates('time')")
    return train.transpose("time", "level", *SPACE, missing_dims="ignore"), climatology


def _canonicalize_states(dataset: xr.Dataset, names: list[str], fitted: xr.Dataset) -> Canonical:
    """Return some variables on the canonical grid, or raise ValueError if grid or units differ from those of a fit."""
    has_levels = any("level" in fitted[name].dims for name in names)
    levels = fitted["level"].values if has_levels else None
    if has_levels and (available := find_axes(dataset).levels) is not None:
        # the data may have some of the fitted levels only
        levels = [level for level in available.values if np.abs(levels - level).min() < 1e-3]
    canonical = canonicalize(dataset, names, levels)
    states = canonical.dataset
    try:
        check_same_grid(fitted, states)
    except ValueError as error:
        raise ValueError(f"the data are on another grid than the baseline was fitted on: {error}") from error
    for name in names:
        units, fitted_units = states[name].attrs.get("units"), fitted[name].attrs.get("units")
        if units and fitted_units and not same_units(units, fitted_units):
            raise ValueError(f"{name} is in {units!r}, and the baseline was fitted in {fitted_units!r}: convert one")
    return canonical


def lagged_anomalies(
    train: xr.Dataset, climatology: xr.Dataset, lead_time: xr.DataArray
) -> Iterator[tuple[int, dict[str, np.ndarray], list[tuple]]]:
    """Yield the anomalies of blocks of time, and which of them are a lead apart.

    Each block is (position of its first time, anomalies (time, ...) by variable, pairs). `pairs` holds for each lead
    the positions in the block of the starts and of the times one lead later.
    """
    times = train.indexes["time"]
    verifying = valid_times(train["time"].rename(time="init_time"), lead_time, known=times)
    later = times.get_indexer(verifying.values.ravel()).reshape(verifying.shape)
    counts = (later >= 0).sum(axis=0)
    if (counts == 0).any():
        lead = lead_time.values[np.argmax(counts == 0)]
        raise ValueError(
            f"the lead {lead} has no pair of times in the training period, {times[0]} to {times[-1]}: it is "
            "too long, or not a multiple of the step"
        )
    largest = max(train.data_vars, key=lambda name: train[name].nbytes)
    for block in time_blocks(train[largest]):
        stop = max(block.stop, int(later[block].max()) + 1)  # the last starts of the block verify beyond it
        states = train.isel(time=slice(block.start, stop)).load()
        mean = normals_at(climatology, states["time"]).assign_coords(grid_coordinates(states))
        anomalies = {name: (states[name] - mean[name]).transpose(*train[name].dims).values for name in train.data_vars}
        pairs = []
        for column in range(lead_time.size):
            ends = later[block, column]
            starts = np.flatnonzero(ends >= 0)
            pairs.append((_as_slice(starts), _as_slice(ends[starts] - block.start)))
        yield block.start, anomalies, pairs


def fitted_period(train: xr.Dataset) -> dict[str, str]:
    """Return the attributes that record from which period a baseline was fitted."""
    return {
        "fitted_start": to_iso(train["time"].values.min()),
        "fitted_end": to_iso(train["time"].values.max()),
    }


def grid_coordinates(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the coordinates latitude, longitude and level, those that are dimensions."""
    return {name: dataset[name] for name in (*SPACE, "level") if name in dataset.dims}


def select_leads(fitted: xr.Dataset, lead_time: xr.DataArray) -> xr.Dataset:
    """Return a fit at the given leads, or raise ValueError if one was not fitted."""
    leads = fitted.indexes["lead_time"]
    positions = leads.get_indexer(lead_time.to_index())
    if (positions < 0).any():
        raise ValueError(
            f"nothing was fitted for the lead {lead_time.to_index()[positions < 0][0]}, but for {len(leads)} leads "
            f"from {leads[0]} to {leads[-1]}: fit with the leads that are forecast"
        )
    return fitted.isel(lead_time=positions).assign_coords(lead_time=lead_time)


def start_forecast(
    dataset: xr.Dataset, fitted: xr.Dataset, climatology: xr.Dataset, init_times: Times, lead_times: Times
) -> tuple[Canonical, xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the canonical data, their persistence, and the climatology at its init times and at its valid times."""
    names = list(fitted.data_vars)
    canonical = _canonicalize_states(dataset, names, fitted)
    states = canonical.dataset.reset_coords(drop=True)
    last = persistence(states, init_times, lead_times)
    climatology = on_grid_of(climatology[names], states, "the climatology of the baseline")
    return canonical, last, normals_at(climatology, last["init_time"]), normals_at(climatology, last["valid_time"])


def finish_forecast(forecast: xr.Dataset, last: xr.Dataset, canonical: Canonical, system: str) -> xr.Dataset:
    """Return a forecast with dimensions and attributes of the persistence `last`, laid out as the original data."""
    for name in forecast.data_vars:
        forecast[name] = forecast[name].transpose(*last[name].dims).assign_attrs(last[name].attrs)
    forecast = forecast.assign_coords(valid_time=last["valid_time"]).assign_attrs(last.attrs, system=system)
    return canonical.restore(forecast)


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Return consecutive positions as a slice, which numpy does not copy."""
    consecutive = len(positions) and (np.diff(positions) == 1).all()
    return slice(int(positions[0]), int(positions[-1]) + 1) if consecutive else positions
