"""The variables that a run and the truth share, on the same grid and over periods alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import canonicalize, variables_on_grid
from simvp_climate.data.display_units import display_units
from simvp_climate.data.grid import closes_longitude, find_member, latitude_weights
from simvp_climate.data.variables import lookup
from simvp_climate.metrics.baselines.climatologies import name_time
from simvp_climate.metrics.climate.periods import Timeline, find_spans, period_of, select_states, timelines
from simvp_climate.metrics.climate.sums import BINS, Grid, Method, read
from simvp_climate.metrics.pairs import align, check_units

_EXTREMES: dict[str, Method] = {"_min": "minimum", "_max": "maximum"}
_SAMPLE_BYTES = 64 * 2**20  # of the truth, for the range of the histograms
_DAY = pd.Timedelta("1D")


@dataclass(frozen=True, eq=False)
class Pair:
    """A variable of run and truth on the canonical grid, with the periods of both."""

    name: str
    run: xr.DataArray
    truth: xr.DataArray
    member: str | None
    method: Method
    timelines: tuple[Timeline, Timeline]
    is_daily: bool


def find_pairs(run: xr.Dataset, truth: xr.Dataset, notes: list[str]) -> list[Pair]:
    """Return the variables of the run that the truth has, or in whose values it has their minima or maxima."""
    run, truth = name_time(run), name_time(truth)
    names = [name for name in variables_on_grid(run) if "time" in run[name].dims]
    sources = {name: _source(name, run[name].attrs, truth) for name in names}
    if not any(sources.values()):
        raise ValueError(
            f"the run has {names}, the truth {list(truth.data_vars)}. Both need a variable of the same name: "
            "truth.rename({'old name': 'new name'})"
        )
    pairs = []
    for name, source in sources.items():
        if source is None:
            notes.append(f"{name} is not in the truth")
            continue
        # a selected variable loses the bounds
        selected = canonicalize(run[[name]].assign_coords(_bounds(run)), [name]).dataset
        true = align(selected, truth[[source]].rename({source: name}), "the truth").assign_coords(_bounds(truth))
        check_units(selected, true, "the truth", warn=False)
        pairs.append(_pair(name, selected, true, is_extreme=source != name))
    return pairs


def _bounds(dataset: xr.Dataset) -> Mapping[str, xr.DataArray]:
    """Return the bounds of the time, which may be a variable, as a coordinate to add."""
    time = dataset.variables.get("time")
    name = "time_bnds" if time is None else time.attrs.get("bounds", time.encoding.get("bounds", "time_bnds"))
    return {name: dataset[name]} if name in dataset.variables else {}


def _source(name: str, attrs: Mapping, truth: xr.Dataset) -> str | None:
    """Return the variable of the truth to compare one of the run with, or None."""
    if name in truth.data_vars:
        return name
    for suffix, method in _EXTREMES.items():
        base = name.removesuffix(suffix)
        if base != name and base in truth.data_vars and f"time: {method}" in str(attrs.get("cell_methods", "")):
            return base
    return None


def _pair(name: str, run: xr.Dataset, truth: xr.Dataset, is_extreme: bool) -> Pair:
    methods = str(run[name].attrs.get("cell_methods", ""))
    method: Method = next((m for m in _EXTREMES.values() if f"time: {m}" in methods), "mean")
    is_point = "time: point" in methods
    spans = find_spans(run, "the run", is_point)
    size, is_long = period_of(spans, "the run"), spans.days[0] >= 1
    if is_point and is_long:
        truth = select_states(run, truth)
    true_spans = find_spans(truth, "the truth", is_point and is_long)
    step, longest = float(np.median(true_spans.days)), max(float(np.median(spans.days)), 1.0)
    if step > 1.2 * longest or (is_extreme and step > 0.9 * longest):
        rule = (
            "The truth needs shorter steps than the run" if is_extreme else "The steps of the truth must not be longer"
        )
        fix = 'Average the run: sc.metrics.time_mean(run, "1MS")'
        raise ValueError(f"{name!r} has steps of {step:g} days in the truth, {longest:g} in the run. {rule}. {fix}")
    begin = spans.middle[0] - pd.Timedelta(days=spans.days[0] / 2)
    midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    both = timelines(spans, true_spans, size, begin - midnight if is_long else pd.Timedelta(0))
    return Pair(name, run[name], truth[name], find_member(run), method, both, size == _DAY)


def make_grid(pair: Pair, notes: list[str]) -> Grid:
    """Return the weights of the cells with values in run and truth, and the bins."""
    shape = tuple(pair.truth.sizes.get(dim, 1) for dim in ("level", "latitude", "longitude"))
    first = [
        _read_cells(*each, slice(0, 1), pair, shape)
        for each in zip((pair.run, pair.truth), pair.timelines, strict=True)
    ]
    valid = ~np.isnan(first[0]).all(0) & ~np.isnan(first[1]).all(0)
    if not valid.any((1, 2)).all():
        raise ValueError(f"{pair.name!r} has no cell with values in both run and truth. Leave it out")
    state_bytes = 8 * valid.size * int(pair.timelines[1].count.max())
    sample = _read_cells(pair.truth, pair.timelines[1], slice(0, max(_SAMPLE_BYTES // state_bytes, 1)), pair, shape)
    ranges = [
        (each[:, cells].min(), each[:, cells].max()) for each, cells in zip(sample.swapaxes(0, 1), valid, strict=True)
    ]
    low, high = np.nan_to_num(np.array(ranges)).T
    is_ring = closes_longitude(pair.truth["longitude"])
    if not is_ring:
        notes.append("no spectra, because the longitudes do not go round the globe")
    rows = latitude_weights(pair.truth["latitude"]).values[:, None]
    return Grid(valid * rows, low, np.where(high > low, (high - low) / BINS, 1.0), is_ring, _wet_value(pair, notes))


def _read_cells(
    data: xr.DataArray, timeline: Timeline, periods: slice, pair: Pair, shape: tuple[int, ...]
) -> np.ndarray:
    """Return values of some periods and all members, (value, level, latitude, longitude)."""
    dims = [dim for dim in ("level", "latitude", "longitude") if dim in data.dims]
    others = [dim for dim in data.dims if dim not in (*dims, "time")]
    return read(data.transpose("time", *others, *dims), timeline, periods, pair.method).reshape(-1, *shape)


def _wet_value(pair: Pair, notes: list[str]) -> float | None:
    """Return 1 mm a day in the units of the data, or None if they are no daily precipitation."""
    standard_name = str(pair.run.attrs.get("standard_name", ""))
    known = lookup(pair.name) or lookup(standard_name)
    is_rain = "precipitation" in standard_name or (known is not None and known[0].short_name.startswith("tp"))
    if not (is_rain and pair.is_daily and pair.method == "mean"):
        return None
    try:
        return 1 / display_units(pair.name, pair.run.attrs, "mm day-1").factor
    except ValueError:
        notes.append(f"no wet days of {pair.name}: {pair.run.attrs.get('units')!r} is no rate of precipitation")
        return None
