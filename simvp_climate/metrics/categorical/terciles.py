"""Terciles of slow variables: are weekly or monthly means below, near or above normal?"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.metrics.baselines.climatologies import latitude_bands
from simvp_climate.metrics.definitions import concat, ratio
from simvp_climate.metrics.pairs import Pairs, align, check_units, match, period, refuse_overlap
from simvp_climate.metrics.regions import Regions, Weights

# A month needs this many means in the training period for its terciles.
_MIN_MEANS = 6


def tercile_rpss(
    forecast: xr.Dataset, truth: xr.Dataset, train: xr.Dataset, *, windows: Sequence[tuple[int, int]],
    regions: Regions = None, weights: Weights = "area", fair: bool = True, skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the ranked probability skill score (RPSS) of tercile forecasts against probabilities of 1/3.

    1 - <RPS> / <RPS of climatology>. The terciles of each cell and calendar month come from the same means in the
    training period. The RPS of an ensemble is the fair one, sum_k (P_k - O_k)^2 - P_k (1 - P_k) / (M - 1), P and O the
    cumulative probabilities of its M members and of the truth: the expected score of an infinite ensemble of the same
    members (Ferro 2014).

    Parameters
    ----------
    forecast
        As in `rmse`. The members of an ensemble give the probabilities, a single forecast gives 0 or 1.
    truth, train
        Analyses; the training period gives the terciles.
    windows
        First and last lead of each mean, in steps from 1: [(1, 28), (29, 56)] are weeks of 6-hourly leads.
    regions, weights, skipna
        As in `score` and `rmse`.
    fair
        False: the RPS without the correction for the number of members, which penalizes small ensembles. Makes no
        difference for a single forecast or one member.
    allow_overlap
        Whether verified times may lie in the training period.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (window[, level, region]), without unit: 1 is perfect, 0
    as good as climatology; coordinates `first_lead` and `last_lead`. A fair score of few members may exceed 1.
    ValueError as in `rmse`; or if a window is outside the leads, a month has fewer than six means in the training
    period, or verified times lie in it.
    """
    if "lead_time" in forecast.coords and "lead_time" not in forecast.dims:  # one selected lead
        forecast = forecast.expand_dims("lead_time")
    windows, leads_count = list(windows), forecast.sizes.get("lead_time", 0)
    if not windows:
        raise ValueError("windows is empty: give the first and the last lead of each mean, [(1, 28)]")
    for window in windows:
        if not isinstance(window, tuple | list) or [type(step) for step in window] != [int, int]:
            raise ValueError(f"windows has {window!r}: give pairs of whole numbers, [(first lead, last lead)]")
        if not 1 <= window[0] <= window[1] <= leads_count:
            raise ValueError(f"windows has {window}: give (first, last) lead in steps from 1 to {leads_count}")
    scores = []
    for first, last in windows:
        leads = slice(first - 1, last)
        pairs = match(forecast.isel(lead_time=leads), truth, weights=weights, regions=regions)
        training = align(pairs.forecast, train, "the training period", pairs.labels)
        check_units(pairs.forecast, training, "the training period")
        if not allow_overlap:
            fitted = period("fitted", training["time"].values)
            refuse_overlap("the training period", fitted, pairs.verified_times)
        bands = latitude_bands([pairs.forecast, pairs.analysis, training], "latitude")
        sums = [_sum_weighted_rps(pairs, training, rows, fair, skipna) for rows in bands]
        rps, climatological = (sum(band.isel(system=i) for band in sums) for i in (0, 1))
        scores.append(1 - ratio(rps, climatological))
    table = concat(scores, "window").transpose("window", "level", "region", ..., missing_dims="ignore")
    for index, edge in enumerate(("first_lead", "last_lead")):
        lead_times = [forecast["lead_time"].values[window[index] - 1] for window in windows]
        table = table.assign_coords({edge: ("window", lead_times)})
    if "level" in pairs.labels:
        table = table.assign_coords(level=pairs.labels["level"])
    if lacking := [name for name in table.data_vars if not skipna and table[name].isnull().any()]:
        warnings.warn(
            f"the tercile score of {lacking} is missing where a value is missing in the forecast or the truth: "
            "skipna=True scores the other values",
            stacklevel=2,
        )
    for name in table.data_vars:
        table[name].attrs = {"units": "1", "long_name": "tercile ranked probability skill score"}
    return table


def _sum_weighted_rps(pairs: Pairs, training: xr.Dataset, rows: slice, fair: bool, skipna: bool) -> xr.Dataset:
    """Return weighted sums over initializations and rows of the RPS of forecast and climatology, (system, ...)."""
    member = pairs.member
    sums = {}
    for name in map(str, pairs.forecast.data_vars):
        truth, forecast = _window_means(pairs, name, rows)
        months = truth["month"].values
        terciles = _terciles(training[name], pairs, rows, {int(month) for month in months})
        terciles = terciles.sel(month=xr.DataArray(months, dims="init_time")).drop_vars("month")
        edges = [terciles.sel(edge=edge, drop=True) for edge in (0, 1)]
        # cumulative probabilities: below the lower tercile, below the upper tercile
        predicted = [(forecast < edge).astype(float) for edge in edges]
        if member is not None:
            predicted = [probability.mean(member) for probability in predicted]
        observed = [(truth.drop_vars("month") < edge).astype(float) for edge in edges]
        forecast_valid = forecast.notnull() if member is None else forecast.notnull().all(member)
        valid = truth.notnull() & edges[0].notnull() & edges[1].notnull() & forecast_valid
        rps = sum((p - o) ** 2 for p, o in zip(predicted, observed, strict=True))
        if fair and member is not None and (count := pairs.forecast.sizes[member]) > 1:
            # Ferro (2014): the part of the RPS that comes from the finite number of members
            rps = rps - sum(p * (1 - p) for p in predicted) / (count - 1)
        climatological = sum((p - o) ** 2 for p, o in zip((1 / 3, 2 / 3), observed, strict=True))
        left_out = ~valid if skipna else ~valid.any("init_time")  # a cell that never has a value is masked
        pooled = [dim for dim in ("init_time", "latitude", "longitude") if dim in rps.dims]
        row_weight = pairs.weights.isel(latitude=rows)
        # missing values do not count where the weight is zero: NaN times zero would be NaN
        fields = [score.where(valid).where(~left_out & (row_weight != 0), 0) for score in (rps, climatological)]
        sums[name] = xr.concat([(field * row_weight).sum(pooled, skipna=False) for field in fields], "system")
    return xr.Dataset(sums)


def _window_means(pairs: Pairs, name: str, rows: slice) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the means of truth and forecast over all leads, (init_time, ...), with the month of their middle."""
    complete = pairs.complete.all(axis=1)
    if not complete.any():
        raise ValueError("no initialization has a truth at all leads of the window")
    inits = np.flatnonzero(complete)
    positions = xr.DataArray(pairs.valid_positions[inits], dims=("init_time", "lead_time"))
    analysis = pairs.analysis[name].isel(latitude=rows).compute().drop_vars("time")
    truth = analysis.isel(time=positions).mean("lead_time", skipna=False)
    forecast = pairs.forecast[name].isel(init_time=inits, latitude=rows).compute()
    forecast = forecast.mean("lead_time", skipna=False).drop_vars("init_time", errors="ignore")
    middle = pairs.valid_time.isel(init_time=inits, lead_time=pairs.complete.shape[1] // 2)
    return truth.assign_coords(month=("init_time", middle.dt.month.values)), forecast


def _terciles(training: xr.DataArray, pairs: Pairs, rows: slice, verified_months: set[int]) -> xr.DataArray:
    """Return the lower and the upper tercile of running means over as many steps as leads, (edge, month, ...)."""
    values, length = training.isel(latitude=rows).compute(), pairs.complete.shape[1]
    if length > 1:
        _check_steps(values.indexes["time"], pairs)
    means = values.rolling(time=length).mean().isel(time=slice(length - 1, None))
    # a running mean is labeled with its last step, its middle is half a window earlier
    months = values["time"].isel(time=slice(length // 2, length // 2 + means.sizes["time"])).dt.month.values
    edges = []
    for month in range(1, 13):
        positions = np.flatnonzero(months == month)
        if len(positions) < _MIN_MEANS and (month in verified_months or len(positions)):
            raise ValueError(
                f"month {month} has {len(positions)} means of {length} steps in the training period, too few for "
                f"terciles: give a period with at least {_MIN_MEANS}"
            )
        if len(positions):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "All-NaN slice encountered")  # masked cells
                edge = means.isel(time=positions).quantile([1 / 3, 2 / 3], "time").rename(quantile="edge")
        else:
            edge = means.isel(time=[0, 0]).rename(time="edge") * np.nan
        edges.append(edge.assign_coords(edge=[0, 1]).transpose("edge", ...))
    labels = xr.DataArray(np.arange(1, 13), dims="month", name="month")
    return xr.concat(edges, labels, coords="minimal", compat="override")


def _check_steps(times: pd.Index, pairs: Pairs) -> None:
    """Raise ValueError unless leads and training times have the same even step and the latter have no gap."""
    steps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]")
    step = np.median(steps.astype(np.int64)).astype("timedelta64[s]")
    lead_steps = np.asarray(np.diff(pairs.valid_time.values[0])).astype("timedelta64[s]")
    if not (lead_steps == lead_steps[0]).all():
        raise ValueError("the leads of the window are not evenly spaced, as the means of the training period are")
    # months differ in length
    if not (lead_steps == step).all() and not (28 <= step / np.timedelta64(1, "D") <= 31):
        raise ValueError(
            f"the leads of the window are {lead_steps[0]} apart, the times of the training period {step}: give both "
            "in the same steps"
        )
    if (steps > 1.2 * step).any():
        before = times[int(np.argmax(steps > 1.2 * step))]
        raise ValueError(f"the training period has a gap after {before}: means must not run across it")
