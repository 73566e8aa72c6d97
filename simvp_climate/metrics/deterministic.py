"""How good a forecast is: a statistic per cell first, then the weighted mean, the root last.

Every function takes a forecast and the analyses that hold the truth, finds the truth at the `valid_time` of
the forecast, and pools over initializations and the grid. Inputs may be lazy: they are read in blocks of
bounded size, and what comes out is computed. Sums are accumulated in float64.
"""

from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import rename
from simvp_climate.metrics.aggregation import (
    _described,
    _estimate,
    _single,
    check_wavenumbers,
    row_weights,
    weighted_sums,
)
from simvp_climate.metrics.definitions import _small_scale_variance
from simvp_climate.metrics.pairs import match


def rmse(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the root mean square error of a forecast.

    sqrt(<(forecast - truth)^2>), where <> is one weighted mean over initializations and cells and the root
    comes last, as in WeatherBench 1 (its code), WeatherBench 2 and WeatherBench-X.

    Parameters
    ----------
    forecast
        Dims (init_time, lead_time, [level,] latitude, longitude), in any order and CF convention. The truth
        is looked up at its coordinate `valid_time(init_time, lead_time)`; without one, at init_time +
        lead_time.
    truth
        Analyses with a dimension `time`, in any CF convention, on the same grid. Pairs of init and lead
        without an analysis are left out; a lead without any pair is NaN.
    weights
        "area": area of the cells (`latitude_weights`); "cos": cosine of the latitude, as WeatherBench 1;
        None: every cell counts the same.
    skipna
        False: cells without a value in forecast and truth at any time (a mask, as land for the sea surface
        temperature) are left out; any other missing value in a pair makes the result NaN. True: a cell counts where
        forecast and truth are both there, in the sum and in the sum of the weights.

    Returns
    -------
    Dataset in memory with the variables of the forecast, in their units, dims (lead_time[, level]) and any other
    dimension of the forecast.

    Raises
    ------
    ValueError
        If variables are missing from the truth, units or grids differ, no pair has a truth, or a mask moves.
    """
    return _single("rmse", forecast, truth, None, weights, skipna)


def mae(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the mean absolute error <|forecast - truth|>; arguments, result and errors as in `rmse`."""
    return _single("mae", forecast, truth, None, weights, skipna)


def bias(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the mean error <forecast - truth>; arguments, result and errors as in `rmse`."""
    return _single("bias", forecast, truth, None, weights, skipna)


def acc(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset,
    *,
    kind: Literal["pooled", "per_init"] = "pooled",
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the anomaly correlation <a b> / sqrt(<a^2> <b^2>), a and b the anomalies of forecast and truth.

    Anomalies are differences from the climatology at the valid time; no other mean is removed from them.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. With `skipna`, the climatology must be there too where a cell counts.
    climatology
        As `climatology` gives it, or one of WeatherBench 2.
    kind
        "pooled": the three means over initializations and cells, then one ratio, as WeatherBench-X.
        "per_init": the ratio of means over cells for every initialization, then the mean of the ratios, as
        WeatherBench 2.
    allow_overlap
        Whether the climatology may come from a period with verified times in it.

    Returns
    -------
    Dataset as from `rmse`, without unit, from -1 to 1; NaN where an anomaly is zero throughout.

    Raises
    ------
    ValueError
        As in `rmse`, or if the climatology lacks a valid time, or verified times lie in its period, or `kind` is
        unknown.
    """
    if kind not in ("pooled", "per_init"):
        raise ValueError(f"kind={kind!r} is unknown: choose 'pooled' or 'per_init'")
    name = "acc" if kind == "pooled" else "acc_per_init"
    return _single(name, forecast, truth, climatology, weights, skipna, allow_overlap)


def small_scale_variance(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    wavenumbers: tuple[int, int] = (10, 19),
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the variance at small scales in the forecast relative to that in the truth.

    The variance along circles of latitude in the zonal wavenumbers from the first to the last of
    `wavenumbers` (2 |F_k|^2, F the discrete Fourier transform divided by the number of longitudes),
    averaged like the other statistics. 1 means as sharp as the truth, less means blurred.

    Parameters
    ----------
    forecast, truth, weights
        As in `rmse`, on a grid that goes round the globe.
    wavenumbers
        First and last zonal wavenumber, both included.
    skipna
        True: only complete circles of latitude count, complete in forecast and truth.

    Returns
    -------
    Dataset as from `rmse`, without unit.

    Raises
    ------
    ValueError
        As in `rmse`, or if the grid does not close in longitude or does not resolve the wavenumbers.
    """
    pairs = match(forecast, truth, None)
    check_wavenumbers(pairs.grid["longitude"], wavenumbers)
    metrics = {"small_scale_variance": _small_scale_variance(wavenumbers)}
    sums = weighted_sums(pairs, metrics, row_weights(pairs.grid["latitude"], weights), skipna)
    return _described(*_estimate(sums["", "small_scale_variance"], metrics["small_scale_variance"]), pairs)


def activity(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the standard deviation of the anomalies of a forecast over that of the truth.

    sqrt(<a^2> / <b^2>), a and b the anomalies of forecast and truth from the climatology at the valid time. A forecast
    that blurs what it does not know has less than 1. Arguments, result and errors as in `acc`; no unit.
    """
    return _single("activity", forecast, truth, climatology, weights, skipna, allow_overlap)


def wind_vector_rmse(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    components: tuple[str, str] = ("u10", "v10"),
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.DataArray:
    """Return the root mean square length of the error of the wind, sqrt(<du^2 + dv^2>).

    Parameters
    ----------
    components
        The variables that hold the eastward and the northward wind.
    forecast, truth, weights, skipna
        As in `rmse`.

    Returns
    -------
    DataArray `wind_vector_rmse` as one of the variables of `rmse`, in the unit of the wind.

    Raises
    ------
    ValueError
        As in `rmse`, or if a component is missing, or both differ in unit.
    """
    if lacking := [name for name in components if name not in forecast]:
        raise ValueError(
            f"the forecast has no {' and '.join(lacking)}, but {list(forecast.data_vars)}: say components="
        )
    east, north = components
    units = [forecast[name].attrs.get("units") for name in components]
    if units[0] != units[1]:
        raise ValueError(f"{east} is in {units[0]!r} and {north} in {units[1]!r}: convert one")
    if skipna:  # the same cells for both
        analyses = rename(truth, components)
        there = {name: one[east].notnull() & one[north].notnull() for name, one in (("f", forecast), ("t", analyses))}
        forecast = forecast[list(components)].where(there["f"])
        truth = analyses[list(components)].where(there["t"])
    both = rmse(forecast[list(components)], truth, weights=weights, skipna=skipna)
    # the means of both squares are over the same cells, so that their sum is the mean of the sum
    length = np.sqrt(both[east] ** 2 + both[north] ** 2).rename("wind_vector_rmse")
    return length.assign_attrs(long_name="root mean square length of the wind error", units=units[0] or "")
