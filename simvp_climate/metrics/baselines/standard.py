"""The baselines that `score` adds by itself: all that follow from the truth, a climatology and training data."""

from collections.abc import Callable, Collection

import xarray as xr

from simvp_climate.metrics.baselines.climatologies import climatology as fit_climatology
from simvp_climate.metrics.baselines.climatologies import climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence as simple_persistence
from simvp_climate.metrics.baselines.statistical import (
    AnomalyPersistence,
    fit_damped_persistence,
    fit_linear_regression,
)
from simvp_climate.metrics.pairs import align, canonicalize_forecast, scalar_coords
from simvp_climate.metrics.points import has_grid


def standard_baselines(
    forecast: xr.Dataset, climatology: xr.Dataset | None, train: xr.Dataset | None, persistence: bool,
    named: Collection[str],
) -> tuple[xr.Dataset | None, dict[str, Callable]]:  # fmt: skip
    """Return the climatology and the functions that forecast, by name, without those that the user has `named`.

    Persistence is raw and, with a climatology of the init times, of the anomaly. Training data give the climatology, if
    there is none, damped persistence and linear regression. At stations there is raw persistence alone.
    """
    systems: dict[str, Callable] = {}
    if not has_grid(forecast):
        if train is not None:
            fix = "Pass climatology=, at the stations: sc.at(climatology, stations=observations)"
            raise ValueError(f"train= fits baselines on a grid, and the forecast has none. {fix}")
        return climatology, {"persistence": simple_persistence} if persistence else {}
    canonical, labels = canonicalize_forecast(forecast).dataset, scalar_coords(forecast)
    if train is not None:
        train = align(canonical, train, "the training data", labels)
        climatology = fit_climatology(train) if climatology is None else climatology
    if persistence:
        systems["persistence"] = simple_persistence
        if climatology is not None and _holds_init_times(climatology, forecast):
            aligned = align(canonical, climatology, "the climatology", labels)
            systems["anomaly persistence"] = AnomalyPersistence(aligned)
    if train is not None:
        assert climatology is not None
        fits = {"damped persistence": fit_damped_persistence, "linear regression": fit_linear_regression}
        fits = {name: fit for name, fit in fits.items() if name not in named}
        systems |= {name: fit(train, climatology, forecast["lead_time"]) for name, fit in fits.items()}
    return climatology, {name: system for name, system in systems.items() if name not in named or name == "persistence"}


def _holds_init_times(climatology: xr.Dataset, forecast: xr.Dataset) -> bool:
    """Return whether a climatology has values at the init times: one for the valid times alone may lack some."""
    if "init_time" not in forecast.coords:
        return False  # an error that `match` explains
    inits = xr.DataArray(forecast["init_time"].values.reshape(-1), dims="init_time")
    try:
        climatology_at(climatology.drop_vars(list(climatology.data_vars)), inits)
    except ValueError:
        return False
    return True
