"""Scores as a table to read."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.windows import lead_texts
from simvp_climate.metrics.definitions import METRICS
from simvp_climate.metrics.score_units import convert_scores

_MAX_LEADS = 10
WORSE = "!"  # marks a score that is worse than that of the best baseline
_LARGER_IS_BETTER = ("acc", "acc_per_init")


def score_table(
    scores: xr.Dataset, metrics: str | Sequence[str] | None = None, leads: Sequence | None = None, *,
    units: str | Mapping[str, str] | None = None, intervals: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Return scores as a table to read, or with `intervals=False` as a table of numbers.

    Parameters
    ----------
    scores
        As returned by `score`.
    metrics
        Names of metrics in the scores. None: rmse, acc, activity and small_scale_variance, as far as present. The last
        two are the sharpness: below 1 the forecast is blurred.
    leads
        Lead times in the scores. None: whole days, thinned out evenly to at most ten; all leads if none is a whole day.
    units
        Units of errors by variable, such as {"z500": "gpdam", "msl": "hPa"}; a text if there is a single variable.
        None: those of the data. Errors of temperatures in degC are in K.
    intervals
        True: a row for each variable[, level, region, season], lead and system, a column for each metric, of texts
        "93.1 [90.2, 96.4]" with the ends of the interval, if the scores have intervals. An exclamation mark follows
        where the forecast (the first system, or its calibrated version) is worse than the best of the other systems by
        a metric that has a best value, an error or an anomaly correlation, even if the intervals overlap. "-" stands
        for a missing score. False: a row for each variable[, level, region, season] and lead, a column for each metric
        and system, of numbers.

    Returns
    -------
    DataFrame of texts or numbers, without columns that have no value. Errors are in the unit of the variable, which
    follows its name; all leads are in days, or all in hours. ValueError if a metric or lead is not in the scores,
    or a unit does not convert.
    """
    scores = convert_scores(scores, units)
    metrics = _choose_metrics(scores, metrics)
    positions = _lead_positions(scores["lead_time"], leads)
    numbers = _number_table(scores, scores, metrics, positions)
    if not intervals:
        return numbers.dropna(axis="columns", how="all")
    ends = [_number_table(scores, _ends(scores, suffix), metrics, positions) for suffix in ("low", "high")]
    cells = np.vectorize(_cell_text, otypes=[object])(numbers, *ends, _worse_than_the_best_baseline(numbers, scores))
    systems = [str(system) for system in scores["system"].values]
    # (row, metric, system) to (row and system, metric)
    shape = len(numbers), len(metrics), len(systems)
    cells, present = (
        values.reshape(shape).swapaxes(1, 2).reshape(-1, len(metrics)) for values in (cells, numbers.notna().values)
    )
    keys = [(*key, system) for key in numbers.index for system in systems]
    index = pd.MultiIndex.from_tuples(keys, names=[*numbers.index.names, "system"])
    texts = pd.DataFrame(cells, index, pd.Index(metrics, name="metric"))
    return texts.iloc[np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))]


def _choose_metrics(scores: xr.Dataset, metrics: str | Sequence[str] | None) -> list[str]:
    """Return the metrics that were asked for, or the headline ones; ValueError if scores lack any."""
    available = [str(name) for name in scores["metric"].values]
    if metrics is None:
        metrics = [name for name, metric in METRICS.items() if metric.headline and name in available] or available
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    if unknown := [name for name in metrics if name not in available]:
        raise ValueError(f"metrics {unknown} are not in the scores: they have {available}")
    return metrics


def _ends(scores: xr.Dataset, suffix: str) -> xr.Dataset:
    """Return the scores with the ends of their intervals in place of the values, NaN without intervals."""
    values = {}
    for name, field in scores.data_vars.items():
        end = scores.coords.get(f"{name}_{suffix}")
        values[name] = field * np.nan if end is None else field.copy(data=end.transpose(*field.dims).values)
    return xr.Dataset(values)


def _number_table(scores: xr.Dataset, values: xr.Dataset, metrics: list[str], positions: list[int]) -> pd.DataFrame:
    """Return the values in the layout of the table of numbers; `scores` have the units."""
    selected = values.drop_vars([name for name in values.coords if name not in values.dims])
    selected = selected.sel(metric=metrics).isel(lead_time=positions)
    systems = [str(system) for system in selected["system"].values]
    rows: dict[tuple, np.ndarray] = {}
    dims = [str(dim) for dim in scores.dims if dim not in ("system", "metric", "lead_time")]
    texts = lead_texts(selected["lead_time"].values)
    for name, field in selected.data_vars.items():
        units = scores[name].attrs.get("units", "")
        variable = f"{name} [{units}]" if units else str(name)
        for labels, slab in _slabs(field, dims):
            by_lead = slab.transpose("lead_time", "metric", "system").values
            rows |= {(variable, *labels, text): row.ravel() for text, row in zip(texts, by_lead, strict=True)}
    index = pd.MultiIndex.from_tuples(list(rows), names=["variable", *dims, "lead"])
    columns = pd.MultiIndex.from_product([metrics, systems], names=["metric", "system"])
    return pd.DataFrame(np.stack(list(rows.values())), index, columns)


def _slabs(field: xr.DataArray, dims: list[str]) -> Iterator[tuple[list[str], xr.DataArray]]:
    """Yield the labels of a field along some dimensions, blank for one that it lacks, and its values there."""
    present = [dim for dim in dims if dim in field.dims]
    for position in np.ndindex(*(field.sizes[dim] for dim in present)):
        slab = field.isel(dict(zip(present, position, strict=True)))
        labels = [slab[dim].item() if dim in present else "" for dim in dims]
        yield [f"{label:g}" if isinstance(label, int | float) else str(label) for label in labels], slab


def _worse_than_the_best_baseline(numbers: pd.DataFrame, scores: xr.Dataset) -> pd.DataFrame:
    """Return for each cell whether it is a score of the forecast that is worse than the best of the other systems."""
    first, *others = (str(system) for system in scores["system"].values)
    judged = [first, f"{first}, calibrated"]
    baselines = [system for system in others if system not in judged]
    worse = pd.DataFrame(False, numbers.index, numbers.columns)
    for metric, system in numbers.columns:
        sign = 1 if metric in METRICS and METRICS[metric].smaller_is_better else -1
        if system not in judged or not baselines or (sign < 0 and metric not in _LARGER_IS_BETTER):
            continue
        best = (sign * numbers[metric][baselines]).min(axis="columns")
        worse[metric, system] = sign * numbers[metric, system] > best
    return worse


def _cell_text(value: float, low: float, high: float, is_worse: bool) -> str:
    """Return a score and its interval with three significant digits, or whole numbers from a thousand on."""
    if not np.isfinite(value):
        return "-"
    texts = [f"{x:.0f}" if abs(x) >= 999.5 else f"{x:#.3g}".removesuffix(".") for x in (value, low, high)]
    text = f"{texts[0]} [{texts[1]}, {texts[2]}]" if np.isfinite([low, high]).all() else texts[0]
    return f"{text} {WORSE}" if is_worse else text


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
