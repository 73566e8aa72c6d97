"""Was this file made by this forecaster from these data? Make it again and compare."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import as_forecast, canonicalize
from simvp_climate.data.grid import find_member
from simvp_climate.data.io import from_valid_time
from simvp_climate.data.windows import lead_times
from simvp_climate.forecasting.ensemble import ensemble, perturbed_ensemble
from simvp_climate.forecasting.forecaster import Forecaster


def reproduce(
    forecast: xr.Dataset,
    forecaster: Forecaster | Sequence[Forecaster],
    dataset: xr.Dataset,
    *,
    perturbations: xr.Dataset | None = None,
    tolerance: float = 1e-3,
) -> str:
    """Make a forecast again, and return in words how it compares.

    Parameters
    ----------
    forecast
        As from a forecaster, `ensemble` or `perturbed_ensemble`, or read from its file; some initializations, leads or
        members of it will do.
    forecaster
        The one whose SHA-256 the forecast has in its attribute `forecaster_sha256`, or all of those, in any order.
    dataset
        The data that it started from.
    perturbations
        Of a perturbed ensemble the states that its perturbations were drawn from.
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
    said = forecast.attrs.get("forecaster_sha256")
    if said is None:
        raise ValueError("the forecast has no attribute forecaster_sha256: it does not say which forecaster made it")
    given = {one.digest: one for one in ([forecaster] if isinstance(forecaster, Forecaster) else forecaster)}
    if lacking := [digest for digest in said.split() if digest not in given]:
        raise ValueError(
            f"the forecast was made by {'forecasters' if len(said.split()) > 1 else 'a forecaster'} with the SHA-256 "
            f"{lacking[0][:12]}..., and given are those of {', '.join(one[:12] + '...' for one in given)}: give the "
            "file that it was made with"
        )
    if more := [digest for digest in given if digest not in said.split()]:
        raise ValueError(f"the forecaster {more[0][:12]}... had no part in the forecast: leave it out")
    forecasters = [given[digest] for digest in said.split()]
    perturbed = "perturbed_members" in forecast.attrs
    if perturbed != (perturbations is not None):
        raise ValueError(
            "the forecast is a perturbed ensemble: give perturbations, the states it was perturbed from"
            if perturbed
            else "the forecast is no perturbed ensemble: leave perturbations out"
        )
    member = find_member(forecast)
    if member is not None and member not in dataset.dims and not perturbed and len(forecasters) == 1:
        raise ValueError(
            f"the forecast has members along {member!r}, and its attributes name one forecaster and no perturbations: "
            "give the file as ensemble or perturbed_ensemble wrote it"
        )
    forecaster = forecasters[0]
    if "forecast_reference_time" in forecast.coords and "forecast_period" in forecast.coords:
        forecast = from_valid_time(forecast)
    forecast = as_forecast(forecast)
    for dim in ("init_time", "lead_time", "number"):
        if dim in forecast.coords and forecast[dim].ndim == 0:  # one that was picked
            forecast = forecast.expand_dims(dim)
    inits, leads = forecast["init_time"].to_index(), forecast["lead_time"]
    one = lead_times(forecaster.task.step, 1)
    horizon = int(leads.values.max() / one.values[0])
    if horizon < 1 or leads.values.max() != horizon * one.values[0]:
        raise ValueError(
            f"the lead {leads.values.max()} is no multiple of the forecaster's step {forecaster.task.step}"
        )
    if perturbed:
        attrs = forecast.attrs
        settings = {"members": int(attrs["perturbed_members"]), "seed": int(attrs["perturbation_seed"])}
        again = perturbed_ensemble(
            forecaster, dataset, perturbations, float(attrs["amplitude"]), init_times=inits, horizon=horizon, **settings
        )
    elif len(forecasters) > 1:
        again = ensemble(forecasters, dataset, init_times=inits, horizon=horizon)
    else:
        again = forecaster(dataset, init_times=inits, horizon=horizon)
    again = again.sel(lead_time=forecast["lead_time"])
    if (perturbed or len(forecasters) > 1) and "number" in forecast.coords:
        again = again.sel(number=forecast["number"].values)
    same_data = again.attrs["data_sha256"] == forecast.attrs.get("data_sha256")
    names = [str(name) for name in forecast.data_vars]
    levels = forecaster.task.levels
    before, now = (canonicalize(one, names, levels).dataset for one in (forecast, again))
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
