"""Scores as a table to read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.windows import lead_texts
from simvp_climate.metrics.definitions import METRICS

_MAX_LEADS = 10


def score_table(
    scores: xr.Dataset, metrics: str | Sequence[str] | None = None, leads: Sequence | None = None
) -> pd.DataFrame:
    """Return scores as a table, with a row for each variable and lead and a column for each metric and system.

    Parameters
    ----------
    scores
        As returned by `score`.
    metrics
        Names of metrics in the scores. None: rmse, acc, activity and small_scale_variance, as far as present.
    leads
        Lead times in the scores. None: whole days, thinned out evenly to at most ten; all leads if none is a whole day.

    Returns
    -------
    DataFrame of numbers, rows (variable[, level, region, season], lead), columns (metric, system), without columns that
    have no value. Errors are in the unit of the variable, which follows its name. ValueError if a metric or lead is not
    in the scores.
    """
    available = [str(name) for name in scores["metric"].values]
    if metrics is None:
        metrics = [name for name, metric in METRICS.items() if metric.headline and name in available] or available
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if unknown := [name for name in metrics if name not in available]:
        raise ValueError(f"metrics {unknown} are not in the scores: they have {available}")
    selected = scores.drop_vars([name for name in scores.coords if name not in scores.dims])
    selected = selected.sel(metric=metrics).isel(lead_time=_lead_positions(scores["lead_time"], leads))
    texts = lead_texts(selected["lead_time"].values)
    dims = [str(dim) for dim in scores.dims if dim not in ("system", "metric", "lead_time")]
    rows: dict[tuple, dict[tuple, float]] = {}
    for name, values in selected.data_vars.items():
        units = scores[name].attrs.get("units", "")
        variable = f"{name} [{units}]" if units else str(name)
        variable_dims = [dim for dim in dims if dim in values.dims]
        for position in np.ndindex(*(values.sizes[dim] for dim in variable_dims)):
            slab = values.isel(dict(zip(variable_dims, position, strict=True)))
            # A variable without levels has a blank there.
            labels = [slab[dim].item() if dim in variable_dims else "" for dim in dims]
            key = [f"{label:g}" if isinstance(label, int | float) else str(label) for label in labels]
            for place, text in enumerate(texts):
                row = rows.setdefault((variable, *key, text), {})
                for metric in metrics:
                    for system in values["system"].values:
                        row[metric, str(system)] = float(slab.sel(metric=metric, system=system).isel(lead_time=place))
    index = pd.MultiIndex.from_tuples(list(rows), names=["variable", *dims, "lead"])
    table = pd.DataFrame(list(rows.values()), index=index)
    table.columns = pd.MultiIndex.from_tuples(list(table.columns), names=["metric", "system"])
    return table.dropna(axis="columns", how="all")


def _lead_positions(lead_time: xr.DataArray, leads: Sequence | None) -> list[int]:
    """Return the positions of the leads, or of at most ten whole days."""
    values = lead_time.values
    if leads is None:
        whole = np.isclose(values / np.timedelta64(1, "D") % 1, 0) if values.dtype.kind == "m" else np.zeros(0, bool)
        days = np.flatnonzero(whole)
        return days[:: -(-len(days) // _MAX_LEADS)].tolist() if len(days) else list(range(len(values)))
    positions = []
    for lead in leads:
        label = pd.Timedelta(lead).to_timedelta64() if values.dtype.kind == "m" else lead
        matches = np.flatnonzero(values == label)
        if not len(matches):
            raise ValueError(f"leads has {lead!r}, which is not in the scores: {lead_texts(values)}")
        positions.append(int(matches[0]))
    return positions
