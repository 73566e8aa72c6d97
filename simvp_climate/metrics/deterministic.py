"""Scores of single forecasts: one weighted mean over initializations and the grid, the root or ratio last.

Every function takes a forecast and analyses with the truth, and finds the truth at the forecast's `valid_time`. Lazy
inputs are read in blocks of bounded size; results are in memory. Sums are accumulated in float64.
"""

from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import rename
from simvp_climate.metrics.aggregation import pooled_score
from simvp_climate.metrics.definitions import METRICS, variance_ratio
from simvp_climate.metrics.pairs import check_vector, match
from simvp_climate.metrics.regions import Weights


def rmse(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the root mean square error of a forecast.

    sqrt(<(forecast - truth)^2>), where <> is one weighted mean over initializations and cells and the root comes last,
    as in WeatherBench 1 (its code), WeatherBench 2 and WeatherBench-X.

    Parameters
    ----------
    forecast
        Dims (init_time, lead_time, [level,] latitude, longitude), in any order and CF convention. The truth is looked
        up at its coordinate `valid_time(init_time, lead_time)`, or else at init_time + lead_time.
    truth
        Analyses with a dimension `time`, in any CF convention, on the same grid. Pairs of init and lead without an
        analysis are left out; a lead without any pair is NaN.
    weights
        "area": area of the cells (`latitude_weights`). "cos": cosine of the latitude, as in WeatherBench 1. None: equal
        weights.
    skipna
        False: cells without a value in forecast and truth at all times are a mask (land in the sea surface
        temperature) and are left out; any other missing value in a pair makes the result NaN. True: a cell counts where
        both forecast and truth have a value.

    Returns
    -------
    Dataset in memory with the variables of the forecast, in their units, dims (lead_time[, level]) and any other
    dimension of the forecast. ValueError if variables are missing from the truth, units or grids differ, no pair has a
    truth, or a mask changes.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["rmse"], skipna)


def mae(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the mean absolute error <|forecast - truth|>; arguments, result and errors as in `rmse`."""
    return pooled_score(match(forecast, truth, weights=weights), METRICS["mae"], skipna)


def bias(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the mean error <forecast - truth>; arguments, result and errors as in `rmse`."""
    return pooled_score(match(forecast, truth, weights=weights), METRICS["bias"], skipna)


def acc(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset, *,
    average: Literal["pooled", "per_init"] = "pooled", weights: Weights = "area", skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the anomaly correlation <f t> / sqrt(<f^2> <t^2>) of the anomalies f of the forecast and t of the truth.

    Anomalies are differences from the climatology at the valid time; no other mean is removed from them.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. With `skipna`, a cell counts where the climatology has a value too.
    climatology
        As returned by `baselines.climatology`, or one of WeatherBench 2.
    average
        "pooled": the three means over initializations and cells, then one ratio, as in WeatherBench-X. "per_init": the
        ratio of means over cells for every initialization, then the mean of the ratios, as in WeatherBench 2.
    allow_overlap
        Whether verified times may lie in the period of the climatology.

    Returns
    -------
    Dataset as from `rmse`, without unit, from -1 to 1; NaN where an anomaly is zero everywhere. ValueError as in
    `rmse`, or if the climatology lacks a valid time, or verified times lie in its period.
    """
    names = {"pooled": "acc", "per_init": "acc_per_init"}
    if average not in names:
        raise ValueError(f"average={average!r} is unknown: choose 'pooled' or 'per_init'")
    pairs = match(forecast, truth, climatology, weights=weights, allow_overlap=allow_overlap)
    return pooled_score(pairs, METRICS[names[average]], skipna)


def small_scale_variance(
    forecast: xr.Dataset, truth: xr.Dataset, wavenumbers: tuple[int, int] = (10, 19), *, weights: Weights = "area",
    skipna: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the variance at small scales in the forecast relative to that in the truth.

    The variance along circles of latitude in a range of zonal wavenumbers (the sum of 2 |F_k|^2, F the discrete Fourier
    transform divided by the number of longitudes), averaged like the other metrics. 1 is as sharp as the truth; a
    blurred forecast has less. `wavenumbers` are the first and the last zonal one, both included. With `skipna`, only
    circles of latitude that are complete in forecast and truth count. Arguments, result and errors as in `rmse`; no
    unit; ValueError also if the grid does not circle the globe or does not resolve the wavenumbers.
    """
    return pooled_score(match(forecast, truth, weights=weights), variance_ratio(wavenumbers), skipna)


def activity(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset, *, weights: Weights = "area",
    skipna: bool = False, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the standard deviation of the anomalies of a forecast over that of the truth.

    sqrt(<f^2> / <t^2>), f and t the anomalies of forecast and truth from the climatology at the valid time. A forecast
    that blurs what it cannot predict has less than 1. Arguments, result and errors as in `acc`; no unit.
    """
    pairs = match(forecast, truth, climatology, weights=weights, allow_overlap=allow_overlap)
    return pooled_score(pairs, METRICS["activity"], skipna)


def grid_noise(
    forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return the amplitude of the checkerboard in a forecast: noise at the scale of the grid.

    sqrt(<c^2>), where c is the forecast after the filter [-1, 2, -1] / 4 along longitude and along latitude. A
    checkerboard, values that alternate from cell to cell in both directions, has its amplitude; smooth fields have
    almost none, and uncorrelated noise has 3/8 of its standard deviation. Networks that are hardly trained or that
    upsample badly have much more than the truth. The noise of persistence, in `score(metrics=["grid_noise"])`, is that
    of analyses; `score` pools the members of an ensemble. The truth only selects the pairs that count. Arguments,
    result and errors as in `rmse`.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["grid_noise"], skipna)


def wind_vector_rmse(
    forecast: xr.Dataset, truth: xr.Dataset, components: tuple[str, str] = ("u10", "v10"), *, weights: Weights = "area",
    skipna: bool = False,
) -> xr.DataArray:  # fmt: skip
    """Return the root mean square length of the error of the wind, sqrt(<du^2 + dv^2>), as WeatherBench 2.

    `components` are the variables of the eastward and the northward wind; other arguments and errors as in `rmse`.
    Returns a DataArray `wind_vector_rmse` with the dims of a variable of `rmse`, in the unit of the wind. ValueError
    also if a component is missing, or the units of the components differ.
    """
    units = check_vector("components", components, forecast)
    east, north = components
    forecast = forecast[list(components)]
    if skipna:  # Both components count in the same cells.
        datasets = (forecast, rename(truth, components)[list(components)])
        forecast, truth = (each.where(each[east].notnull() & each[north].notnull()) for each in datasets)
    errors = rmse(forecast, truth, weights=weights, skipna=skipna)
    # Both means are over the same cells: their sum is the mean of the sum.
    length = np.sqrt(errors[east] ** 2 + errors[north] ** 2).rename("wind_vector_rmse")
    return length.assign_attrs(long_name="root mean square length of the wind error", units=units or "")
