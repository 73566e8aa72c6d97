"""simvp_climate with little work to do, for the short form of the notebooks: the same names, a few steps of training.

Trainings take four batches, forecasts start once a week at most, ensembles have at most two members, runs last
thirteen months at most, and fitted baselines see the last half year of the training period.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd

import simvp_climate

_FIT_STATES = 730


def __getattr__(name: str) -> Any:
    return getattr(simvp_climate, name)


def train(*data: Any, valid: Any, config: Any, **settings: Any) -> Any:
    few = {"limit_train_batches": 4, "epochs": min(config.epochs, 2)}
    if valid is not None:
        few["validation_windows"] = 8
    return simvp_climate.train(*data, valid=valid, config=replace(config, **few), **settings)


def perturbed_ensemble(*data: Any, every: str, members: int, **settings: Any) -> Any:
    return simvp_climate.perturbed_ensemble(*data, every=_seldom(every), members=min(members, 2), **settings)


def fit_amplitude(*data: Any, every: str, members: int, **settings: Any) -> Any:
    return simvp_climate.fit_amplitude(*data, every=_seldom(every), members=min(members, 2), **settings)


def _fit_on_few(fit: Any) -> Any:
    def fit_short(train: Any, *arguments: Any) -> Any:
        return fit(train.isel(time=slice(-_FIT_STATES, None)), *arguments)

    return fit_short


_fits = {name: getattr(simvp_climate.baselines, name) for name in dir(simvp_climate.baselines)}
_fits |= {name: _fit_on_few(_fits[name]) for name in ("fit_damped_persistence", "fit_linear_regression")}
baselines = SimpleNamespace(**_fits)


def _seldom(every: str) -> str:
    return f"{max(pd.Timedelta(every), pd.Timedelta('7D')).total_seconds() / 3600:g}h"


def _shorten(method: Any) -> Any:
    def shortened(self: Any, dataset: Any, *, every: str, members: int | None = None, **settings: Any) -> Any:
        return method(self, dataset, every=_seldom(every), members=members and min(members, 2), **settings)

    return shortened


_run = simvp_climate.Forecaster.run


def _run_shortly(self: Any, dataset: Any, start: Any, until: Any, **settings: Any) -> Any:
    thirteen_months = pd.Timestamp(start) + pd.DateOffset(months=13, hours=6)
    return _run(self, dataset, start, min(pd.Timestamp(until), thirteen_months), **settings)


simvp_climate.Forecaster.run = _run_shortly
simvp_climate.Forecaster.__call__ = _shorten(simvp_climate.Forecaster.__call__)
simvp_climate.Forecaster.hindcast = _shorten(simvp_climate.Forecaster.hindcast)
