"""SEEPS: dry, light and heavy precipitation by the climate of each place (Rodwell et al. 2010)."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import rename
from simvp_climate.data.grid import find_axes
from simvp_climate.data.variables import conversion, lookup, same_units
from simvp_climate.metrics.aggregation import pooled_score
from simvp_climate.metrics.baselines.climatologies import climatology as mean_climatology
from simvp_climate.metrics.baselines.climatologies import latitude_bands
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.categorical.thresholds import float32_bounds
from simvp_climate.metrics.definitions import METRICS, Fields, Metric
from simvp_climate.metrics.pairs import Pairs, align, match
from simvp_climate.metrics.regions import Weights

# By hours of accumulation: less precipitation than this, in m, is dry (WeatherBench 2).
_DRY_BELOW = {6: 1e-4, 24: 2.5e-4}


def seeps(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset, *, weights: Weights = "area",
    allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return SEEPS, the stable equitable error in probability space, of precipitation (Rodwell et al. 2010).

    `seeps_climatology` defines dry, light and heavy; a value equal to the heavy threshold is heavy. The error is 0.5
    times the matrix of WeatherBench 2, where p1 is the dry fraction averaged over hours and days: 0 is perfect, 1 has
    no skill. Only cells with 0.1 <= p1 <= 0.85 count.

    Parameters
    ----------
    forecast, truth, weights
        As in `rmse`, precipitation in m or a unit that converts to it.
    climatology
        As from `seeps_climatology`, or of WeatherBench 2, with names such as
        `total_precipitation_24hr_seeps_threshold` and `total_precipitation_24hr_seeps_dry_fraction`.
    allow_overlap
        Whether verified times may lie in the period of the climatology.

    Returns
    -------
    Dataset as from `rmse`, without unit. ValueError as in `rmse`, or if the climatology lacks a variable or time, or
    verified times lie in its period.
    """
    names = [str(name) for name in forecast.data_vars]
    if lacking := [name for name in names if _find_seeps_names(climatology, name) is None]:
        raise ValueError(f"the climatology has nothing on {lacking}: make it with seeps_climatology(train)")
    forecast, truth = _in_meters(forecast), _in_meters(rename(truth, names))
    periods = {"the climatology for SEEPS": climatology.attrs}
    pairs = match(forecast, truth, periods=periods, weights=weights, allow_overlap=allow_overlap)
    return pooled_score(*seeps_pairs(pairs, climatology), skipna=True)


def seeps_climatology(train: xr.Dataset, *, window_days: int = 61, dry: float | None = None) -> xr.Dataset:
    """Return how often each place is dry and its threshold of heavy precipitation, for `seeps`.

    By hour and day of the year, over a window of `window_days`, as the code of WeatherBench 2 (`SEEPSThreshold`): the
    fraction of values below `dry`, all days of the window weighted equally, and the two-thirds quantile of the other
    values, weighted by a triangle.

    Parameters
    ----------
    train
        Precipitation of the training years with a dimension `time`, in m or a unit that converts to it.
    window_days
        Width of the window, both ends of the triangle included.
    dry
        In m. None: 0.25 mm for daily steps and 0.1 mm for steps of six hours.

    Returns
    -------
    Dataset in memory with `<variable>_dry_fraction` (no unit) and `<variable>_threshold` (m), dims (hour, dayofyear,
    ...) and the attribute `dry`. ValueError if the unit is not a length, the period is less than eleven months, or
    `dry` is None for other steps.
    """
    names = [str(name) for name, variable in train.data_vars.items() if "time" in variable.dims]
    train = _in_meters(rename(train, names))
    latitude = find_axes(train).latitude
    if len(rows := latitude_bands([train], latitude)) > 1:
        bands = (train.isel({latitude: band}).load() for band in rows)
        # a band without any value has no days either
        bands_with_values = [band for band in bands if band.to_array().notnull().any()]
        if not bands_with_values:
            raise ValueError("the training period has no values")
        results = [seeps_climatology(band, window_days=window_days, dry=dry) for band in bands_with_values]
        joined = xr.concat(results, latitude, data_vars="all", coords="minimal", compat="override", join="outer")
        return joined.reindex({latitude: train[latitude]})
    times = train.indexes["time"]
    gaps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]").astype(np.int64)
    if gaps.sum() < 330 * 86400:
        raise ValueError(f"the training period, {times[0]} to {times[-1]}, is less than eleven months: extend it")
    if dry is None:
        hours_per_step = int(np.median(gaps) // 3600)
        if hours_per_step not in _DRY_BELOW:
            raise ValueError(f"a step of {hours_per_step} h has no default for dry: give it, dry=0.25e-3 for 0.25 mm")
        dry = _DRY_BELOW[hours_per_step]
    lower = float32_bounds(dry)[0]
    is_dry = (train < lower).astype(np.float32).where(train.notnull())
    template = mean_climatology(is_dry, window_days=window_days)  # for its labels, cells and attributes
    result = {}
    for name in train.data_vars:
        heavy, dry_fraction = _quantile_and_dry_fraction(train[name], template[name], lower, window_days // 2)
        result[f"{name}_threshold"] = template[name].copy(data=heavy).assign_attrs(units="m")
        result[f"{name}_dry_fraction"] = template[name].copy(data=dry_fraction).drop_attrs().assign_attrs(units="1")
    return xr.Dataset(result, attrs={**template.attrs, "dry": dry})


def _quantile_and_dry_fraction(
    precipitation: xr.DataArray, template: xr.DataArray, lower: float, half_window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the heavy threshold and the dry fraction of each hour, day and cell of the template."""
    heavy, dry_fraction = (np.full(template.shape, np.nan, np.float32) for _ in range(2))
    days, hours = (getattr(precipitation["time"].dt, name).values for name in ("dayofyear", "hour"))
    year_length = int(template["dayofyear"].max())
    for i, hour in enumerate(template["hour"].values):
        of_hour = hours == int(hour)
        values = precipitation.isel(time=np.flatnonzero(of_hour)).transpose("time", ...).values
        for j, day in enumerate(template["dayofyear"].values):
            distance = abs(days[of_hour] - day)
            distance = np.minimum(distance, year_length - distance)  # the shorter way around the year
            near = distance <= half_window
            window = values[near]
            count = np.isfinite(window).sum(axis=0)
            dry_fraction[i, j] = np.where(count, (window < lower).sum(axis=0) / np.maximum(count, 1), np.nan)
            wet = np.where(window >= lower, window, np.nan)
            heavy[i, j] = _weighted_quantile(wet, 1 - distance[near] / half_window, 2 / 3)
    return heavy, dry_fraction


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    """Return the weighted quantile over the first axis without missing values, as xarray's `weighted(...).quantile`."""
    # linear between values, with Kish's effective sample size (Akinshin 2023); all cells at once, where xarray loops
    order = np.argsort(values, axis=0)  # missing values come last, with weight 0
    sorted_values = np.take_along_axis(values, order, 0)
    sorted_weights = np.where(np.isfinite(sorted_values), weights[order], 0.0)
    total = sorted_weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # n = (sum w)^2 / sum w^2; the quantile lies at h = q (n - 1) + 1 of n equal values
        size = total**2 / (sorted_weights**2).sum(axis=0)
        share = np.concatenate([np.zeros((1, *total.shape)), np.cumsum(sorted_weights / total, axis=0)])
        h = q * (size - 1) + 1
        # distribution function of the weight between (h - 1) / n and h / n
        cumulative = np.maximum((h - 1) / size, np.minimum(h / size, share)) * size
        coefficients = np.diff(cumulative, axis=0)
    return np.where(total > 0, (np.nan_to_num(sorted_values) * coefficients).sum(axis=0), np.nan)


class _SeepsNames(NamedTuple):
    threshold: str
    dry_fraction: str
    dry_meters: float | None


def _find_seeps_names(climatology: xr.Dataset, name: str) -> _SeepsNames | None:
    """Return the names of a variable's threshold and dry fraction, and the dry limit in m if known; None without them.

    WeatherBench 2 has other names than `seeps_climatology`, with the hours of accumulation.
    """
    dry = climatology.attrs.get("dry")
    if f"{name}_threshold" in climatology:
        return _SeepsNames(f"{name}_threshold", f"{name}_dry_fraction", dry)
    meaning = lookup(name)
    for stored in dict.fromkeys([name, *([meaning[0].long_name] if meaning else [])]):
        if f"{stored}_seeps_threshold" in climatology:
            hours = re.search(r"(\d+)h", meaning[0].long_name if meaning else stored)
            dry = _DRY_BELOW.get(int(hours[1])) if hours and dry is None else dry
            return _SeepsNames(f"{stored}_seeps_threshold", f"{stored}_seeps_dry_fraction", dry)
    return None


def seeps_pairs(pairs: Pairs, climatology: xr.Dataset) -> tuple[Pairs, Metric]:
    """Return the pairs of the variables in a SEEPS climatology, heavy thresholds as climatology, and the metric."""
    names = [str(name) for name in pairs.forecast.data_vars if _find_seeps_names(climatology, str(name))]
    if not names:
        known, asked = list(climatology.data_vars), list(pairs.forecast.data_vars)
        raise ValueError(f"the climatology has {known} and nothing on {asked}: make it with seeps_climatology(train)")
    forecast = pairs.forecast[names]
    dry, thresholds, fractions = {}, {}, {}
    for name in names:
        threshold, fraction, dry_meters = _find_seeps_names(climatology, name)
        if fraction not in climatology:
            raise ValueError(f"the climatology for SEEPS has {threshold} and no {fraction}")
        if dry_meters is None:
            fix = "set it in m, climatology.attrs['dry'] = 0.25e-3"
            raise ValueError(f"the climatology for SEEPS does not define dry for {name}: {fix}")
        factor = _factor_to_meters(forecast[name])
        dry[name] = dry_meters / factor
        heavy = climatology[threshold]
        # without units it is in m, like all precipitation of WeatherBench 2
        heavy = _in_meters(heavy.to_dataset(name=name))[name] if heavy.attrs.get("units") else heavy
        thresholds[name] = heavy.astype(np.float64) / factor
        fractions[name] = climatology[fraction]
    # the thresholds take the place of a climatology, so that they are read with each block
    heavy_from, p1 = (
        align(forecast, xr.Dataset(fields), "the climatology for SEEPS", pairs.labels)
        for fields in (thresholds, fractions)
    )
    others = {name: replace(other, forecast=other.forecast[names]) for name, other in pairs.stored_baselines.items()}
    # baselines other than persistence may need all variables of the state
    whole_state = any(make is not persistence for make in pairs.callable_baselines.values())
    analysis = pairs.analysis if whole_state else pairs.analysis[names]
    kept = {"forecast": forecast, "analysis": analysis, "stored_baselines": others}
    pairs = replace(pairs, **kept, climatology=heavy_from, event_frequency=None)
    p1 = p1.mean([dim for dim in ("hour", "dayofyear") if dim in p1.dims]).compute()
    return pairs, replace(METRICS["seeps"], fields=lambda f: _seeps_error(f, dry, p1))


def _seeps_error(f: Fields, dry: dict[str, float], p1: xr.Dataset) -> tuple[xr.Dataset]:
    """Return the error of one variable in each cell, from the categories 0 (dry), 1 (light) and 2 (heavy)."""
    (name,) = map(str, f.truth.data_vars)
    heavy, p = f.climatology[name], p1[name]
    below = float32_bounds(dry[name])[0]
    predicted, observed = (
        xr.where(field[name] < below, 0, xr.where(field[name] >= heavy, 2, 1)) for field in (f.forecast, f.truth)
    )
    # Rodwell et al. (2010), as in WeatherBench 2, with p3 = (1 - p1) / 3 and p2 = 2 p3; keys (predicted, observed)
    matrix = {
        (0, 1): 1 / (1 - p), (0, 2): 4 / (1 - p),
        (1, 0): 1 / p, (1, 2): 3 / (1 - p),
        (2, 0): 1 / p + 3 / (2 + p), (2, 1): 3 / (2 + p),
    }  # fmt: skip
    error = xr.zeros_like(f.truth[name])
    for (row, column), cost in matrix.items():
        error = error + 0.5 * cost * ((predicted == row) & (observed == column))
    valid = f.forecast[name].notnull() & f.truth[name].notnull() & heavy.notnull()
    error = error.where(valid & (p >= 0.1) & (p <= 0.85)).transpose(*f.truth[name].dims)
    return (xr.Dataset({name: error}),)


def _in_meters(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset with all variables in m; those in m already are untouched."""
    factors = {name: _factor_to_meters(field) for name, field in dataset.data_vars.items()}
    converted = {name: dataset[name] * factor for name, factor in factors.items() if factor != 1}
    attrs = {name: {**dataset[name].attrs, "units": "m"} for name in converted}
    return dataset.assign({name: field.assign_attrs(attrs[name]) for name, field in converted.items()})


def _factor_to_meters(field: xr.DataArray) -> float:
    units = field.attrs.get("units", "")
    if not units:
        raise ValueError(f"{field.name} has no units: set ds[{field.name!r}].attrs['units'], 'm' or 'mm'")
    if same_units(units, "m"):
        return 1.0
    factors = conversion("tp", units, "m")
    if factors is None:
        raise ValueError(f"{field.name} is in {units!r}: convert it to m")
    return factors[0]
