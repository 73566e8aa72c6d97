"""Scores of every initialization on its own: when a forecast fails."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import lay_out, weighted_sums
from simvp_climate.metrics.baselines.simple_persistence import persistence as simple_persistence
from simvp_climate.metrics.definitions import METRICS, Metric, concat, means_of
from simvp_climate.metrics.pairs import match, period
from simvp_climate.metrics.regions import Regions, Weights


def score_by_init(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset | None = None, *,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None, metrics: Sequence[str] = ("rmse",),
    regions: Regions = None, persistence: bool = True, weights: Weights = "area", skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the scores of a forecast and its baselines for every initialization, pooled over the grid only.

    Other parameters as in `score`; the metrics are those of `score` that need no thresholds, without comparisons.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (system, metric, init_time, lead_time[, level, region]),
    units as in `score`. Pairs without truth are NaN. ValueError as in `score`. `sc.plot.scores_by_init` draws it.
    """
    known = [name for name, metric in METRICS.items() if metric.fields or metric.grid_sums]
    if isinstance(metrics, str) or not metrics or set(metrics) - set(known):
        raise ValueError(f"metrics={metrics!r} must be a list of names of {known}.")
    chosen = {name: METRICS[name] for name in metrics}
    others = ({"persistence": simple_persistence} if persistence else {}) | dict(baselines or {})
    title = str(forecast.attrs.get("system", "forecast"))
    names = {"": title} | {name: name for name in [*others, *["climatology"] * (climatology is not None)]}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two systems are called {title!r}: forecast.assign_attrs(system='my model').")
    for name, metric in chosen.items():
        if metric.needs == "climatology" and climatology is None:
            raise ValueError(f"{name} needs a climatology: score_by_init(forecast, truth, climatology(train)).")
    pairs = match(
        forecast, truth, climatology, baselines=others, weights=weights, regions=regions, allow_overlap=allow_overlap
    )
    derived = {} if climatology is None else {"climatology": lambda block: block.climatology}
    sums = weighted_sums(pairs, chosen, skipna, pool_members=True, derived_systems=derived)
    metric_names = xr.DataArray(np.array(list(chosen)), dims="metric", name="metric")
    system_names = xr.DataArray(np.array(list(names.values())), dims="system", name="system")
    tables = [concat([_values(sums[key, label], metric, key) for label, metric in chosen.items()], metric_names)
              for key in names]  # fmt: skip
    result = lay_out(concat(tables, system_names), pairs, "system", "metric", "init_time")
    for name in result.data_vars:
        result[name].attrs = pairs.attrs(str(name))
    grid = " x ".join(f"{pairs.grid[dim].size} {dim}s" for dim in ("longitude", "latitude"))
    return result.assign_attrs(grid=grid, **period("verified", pairs.verified_times))


def _values(sums: xr.Dataset, metric: Metric, system: str) -> xr.Dataset:
    """Return a metric from its sums of every pair; NaN for a climatology that is compared with itself."""
    means, _ = means_of(sums)
    values = metric.combine(*means)
    return values * np.nan if system == "climatology" and metric.undefined_for_climatology else values
