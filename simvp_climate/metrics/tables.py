"""Scores as a table to read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.metrics.alignment import lead_text

_METRICS = ("rmse", "acc", "activity", "small_scale_variance")
_MOST_LEADS = 10


def score_table(
    scores: xr.Dataset, metrics: str | Sequence[str] | None = None, leads: Sequence | None = None
) -> pd.DataFrame:
    """Return scores as a table, a row for each variable and lead, a column for each metric and system.

    Parameters
    ----------
    scores
        As from `score`.
    metrics
        Some of theirs; None: those of rmse, acc, activity and small_scale_variance that are there.
    leads
        Some of the lead times; None: whole days, or where these are more than ten every second, third, ... one, or all
        leads where none is a whole day.

    Returns
    -------
    DataFrame of numbers, rows (variable[, level, region, season], lead), columns (metric, system), without columns that
    have no value. Errors are in the unit of the variable, which stands beside its name.

    Raises
    ------
    ValueError
        If a metric or lead is not there.
    """
    known = [str(name) for name in scores["metric"].values]
    if metrics is None:
        metrics = [name for name in _METRICS if name in known] or known
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if unknown := [name for name in metrics if name not in known]:
        raise ValueError(f"metrics {unknown} are not in the scores: they have {known}")
    chosen = _leads(scores["lead_time"], leads)
    part = scores.drop_vars([name for name in scores.coords if name not in scores.dims])
    part = part.sel(metric=metrics).isel(lead_time=chosen)
    words = [lead_text(lead) for lead in part["lead_time"].values]
    others = [str(dim) for dim in scores.dims if dim not in ("system", "metric", "lead_time")]
    rows: dict[tuple, dict[tuple, float]] = {}
    for name, values in part.data_vars.items():
        own = [dim for dim in others if dim in values.dims]
        units = scores[name].attrs.get("units", "")
        label = f"{name} [{units}]" if units else str(name)
        for place in np.ndindex(*(values.sizes[dim] for dim in own)):
            at = dict(zip(own, place, strict=True))
            one = values.isel(at)
            # a variable without levels beside one with some has nothing there
            key = [_text(one[dim]) if dim in own else "" for dim in others]
            for number, word in enumerate(words):
                row = rows.setdefault((label, *key, word), {})
                for metric in metrics:
                    for system in values["system"].values:
                        row[metric, str(system)] = float(one.sel(metric=metric, system=system).isel(lead_time=number))
    index = pd.MultiIndex.from_tuples(list(rows), names=["variable", *others, "lead"])
    table = pd.DataFrame(list(rows.values()), index=index)
    table.columns = pd.MultiIndex.from_tuples(list(table.columns), names=["metric", "system"])
    return table.dropna(axis="columns", how="all")


def _leads(lead_time: xr.DataArray, leads: Sequence | None) -> list[int]:
    values = lead_time.values
    if leads is None:
        if values.dtype.kind != "m":
            return list(range(len(values)))
        days = values / np.timedelta64(1, "D")
        whole = np.flatnonzero(np.isclose(days % 1, 0))
        if not len(whole):
            return list(range(len(values)))
        return whole[:: -(-len(whole) // _MOST_LEADS)].tolist()
    found = []
    for lead in leads:
        wanted = pd.Timedelta(lead).to_timedelta64() if values.dtype.kind == "m" else lead
        at = np.flatnonzero(values == wanted)
        if not len(at):
            raise ValueError(f"leads has {lead!r}, the scores {[lead_text(one) for one in values]}")
        found.append(int(at[0]))
    return found


def _text(label: xr.DataArray) -> str:
    return f"{label.item():g}" if label.dtype.kind in "iuf" else str(label.item())
