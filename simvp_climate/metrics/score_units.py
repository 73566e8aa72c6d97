"""Scores in other units."""

from collections.abc import Mapping

import xarray as xr

from simvp_climate.data.display_units import display_units, requested_units
from simvp_climate.metrics.definitions import METRICS


def has_units(metric: str) -> bool:
    """Return whether a metric in scores has the unit of its variable, as errors and their differences do."""
    name, is_difference, _ = metric.partition("_difference_vs_")
    return name in METRICS and not METRICS[name].dimensionless and (is_difference != "" or name == metric)


def convert_scores(scores: xr.Dataset, units: str | Mapping[str, str] | None) -> xr.Dataset:
    """Return scores, with their intervals, in other units of the variables; see `display_units`.

    Errors and their differences convert without an offset, so those of temperatures in degC are in K. Dimensionless
    metrics stay. ValueError if the units of a variable do not convert, or `units` names a variable that scores lack.
    """
    with_units = [has_units(str(name)) for name in scores["metric"].values]
    chosen = xr.DataArray(with_units, dims="metric")
    for name, unit in requested_units(units, [str(name) for name in scores.data_vars]).items():
        target = display_units(name, scores[name].attrs, unit)
        factor = xr.where(chosen, target.factor, 1.0)
        converted = {
            key: (scores[key] * factor).transpose(*scores[key].dims).assign_attrs(scores[key].attrs).variable
            for key in (name, f"{name}_low", f"{name}_high")
            if key in scores
        }
        coordinates = {key: converted.pop(key) for key in list(converted) if key != name}
        scores = scores.assign(converted).assign_coords(coordinates)
        scores[name].attrs["units"] = target.of_differences
    return scores
