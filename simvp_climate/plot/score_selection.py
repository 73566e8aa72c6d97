"""Check scores, and split them into what a panel shows."""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot import style
from simvp_climate.plot.selection import check_dataset, lead_values


def check_scores(
    scores: xr.Dataset, dimensions: Sequence[str] = ("system", "metric", "lead_time"), role: str = "scores",
    source: str = "sc.score(...)",
) -> xr.Dataset:  # fmt: skip
    """Return scores with some dimensions, by default those of `score`; ValueError if one is missing or empty."""
    check_dataset(scores, role)
    for dimension in dimensions:
        if dimension not in scores.dims:
            if dimension not in scores.coords:
                raise ValueError(f"{role} has dimensions {tuple(scores.dims)}, no {dimension!r}: pass {source}.")
            scores = scores.expand_dims(dimension)
        if not scores.sizes[dimension]:
            raise ValueError(f"{role} has {dimension} of size 0: select at least one {dimension}.")
    return scores


def lead_axis(scores: xr.Dataset) -> tuple[np.ndarray, str]:
    """Return the leads as numbers, and their unit: "days", "hours" (if the last lead is below two days) or "months"."""
    leads, in_months = lead_values(scores)
    if in_months:
        return leads, "months"
    days = leads / np.timedelta64(1, "D")
    return (days, "days") if days.max() >= 2 else (24 * days, "hours")


def lead_columns(lead_time: xr.DataArray) -> tuple[list[str], str]:
    """Return leads as short numbers, and their unit: "days" if all are whole ones, else "hours", or "months"."""
    leads, in_months = lead_values(lead_time.to_dataset(name="lead"))
    hours = leads if in_months else leads / np.timedelta64(1, "h")
    unit = "months" if in_months else "days" if (hours % 24 == 0).all() else "hours"
    return [f"{value:g}" for value in hours / (24 if unit == "days" else 1)], unit


def score_rows(
    scores: xr.Dataset, slab_dims: Sequence[str] = ("system", "metric", "lead_time")
) -> Iterator[tuple[list[str], xr.DataArray]]:
    """Yield the labels and scores, with the dimensions `slab_dims`, of each variable, level, region and season."""
    for array in scores.data_vars.values():
        dims = [dim for dim in array.dims if dim not in slab_dims]
        labels = [scores[dim].values for dim in dims]
        for position in np.ndindex(*map(len, labels)):
            index = dict(zip(dims, position, strict=True))
            texts = [style.coordinate_text(scores, str(dim), scores[dim].values[place]) for dim, place in index.items()]
            yield texts, array.isel(index)


def describe_metric(metric: str) -> tuple[str, bool, float | None]:
    """Return the label of a metric, whether it has the unit of its variable, and its reference value."""
    if metric in METRICS:
        definition = METRICS[metric]
        return definition.label, not definition.dimensionless, definition.reference
    for separator, text in (("_skill_vs_", "skill over"), ("_difference_vs_", "less that of")):
        name, matched, baseline = metric.partition(separator)
        if matched:
            label, has_units, _ = describe_metric(name)
            return f"{label} {text} {baseline.replace('_', ' ')}", has_units and "diff" in separator, 0.0
    return metric, False, None
