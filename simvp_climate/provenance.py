"""Was this file made by this forecaster from these data? Make it again and compare."""

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import as_forecast, find_member, orient, rename
from simvp_climate.data.windows import lead_times
from simvp_climate.forecaster import Forecaster
from simvp_climate.layouts import from_valid_time


def reproduce(forecast: xr.Dataset, forecaster: Forecaster, dataset: xr.Dataset, *, tolerance: float = 1e-3) -> str:
    """Make a forecast again, and return in words how it compares.

    Parameters
    ----------
    forecast
        As from a forecaster, or read from its file; some initializations or leads of it will do.
    forecaster
        The one whose SHA-256 the forecast has in its attribute `forecaster_sha256`.
    dataset
        The data that it started from.
    tolerance
        How far values may differ, in standard deviations of the variable: on another machine sums round differently,
        and a long rollout lets that grow.

    Returns
    -------
    A line for each variable, and one that says whether the data are bit by bit those of the forecast.

    Raises
    ------
    ValueError
        If the forecast does not say where it comes from, is of another forecaster, or differs by more; the message says
        by how much, and whether the data are the same.
    """
    if (member := find_member(forecast)) is not None and member not in dataset.dims:
        raise ValueError(
            f"the forecast is an ensemble along {member!r}: only a single one can be made again. Make the ensemble "
            "by what its attributes say, and compare"
        )
    said = forecast.attrs.get("forecaster_sha256")
    if said is None:
        raise ValueError("the forecast has no attribute forecaster_sha256: it does not say which forecaster made it")
    if said != forecaster.digest:
        raise ValueError(
            f"the forecast was made by a forecaster with the SHA-256 {said[:12]}..., this one has "
            f"{forecaster.digest[:12]}...: give the file that it was made with"
        )
    if "forecast_reference_time" in forecast.coords and "forecast_period" in forecast.coords:
        forecast = from_valid_time(forecast)
    forecast = as_forecast(forecast)
    for dim in ("init_time", "lead_time"):
        if forecast[dim].ndim == 0:
            forecast = forecast.expand_dims(dim)
    inits, leads = forecast["init_time"].to_index(), forecast["lead_time"]
    one = lead_times(forecaster.task.step, 1)
    horizon = int(leads.values.max() / one.values[0])
    if horizon < 1 or leads.values.max() != horizon * one.values[0]:
        raise ValueError(
            f"the lead {leads.values.max()} is no multiple of the forecaster's step {forecaster.task.step}"
        )
    again = forecaster(dataset, init_times=inits, horizon=horizon)
    again = again.sel(lead_time=forecast["lead_time"])
    same_data = again.attrs["data_sha256"] == forecast.attrs.get("data_sha256")
    names = [str(name) for name in forecast.data_vars]
    levels = forecaster.task.levels
    before, now = (orient(rename(one, names, levels)) for one in (forecast, again))
    lines, worst = [], 0.0
    for name in names:
        first, second = before[name].values, now[name].transpose(*before[name].dims).values
        if (np.isnan(first) != np.isnan(second)).any():
            raise ValueError(f"{name} has values in other cells than before: the mask is another")
        difference = float(np.nanmax(abs(first - second)))
        share = difference / max(float(np.nanstd(first)), np.finfo(np.float32).tiny)
        worst = max(worst, share)
        lines.append(
            f"{name}: bit by bit the same"
            if difference == 0
            else f"{name}: differs by at most {difference:.3g}, {share:.1g} of its standard deviation"
        )
    lines.append(
        "data: bit by bit those of the forecast"
        if same_data
        else "data: not those of the whole forecast (other values, or some of its initializations)"
    )
    if worst > tolerance:
        raise ValueError(f"the forecast is not reproduced (tolerance {tolerance:g}): " + "; ".join(lines))
    return "\n".join(lines)
