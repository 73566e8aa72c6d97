"""Damped persistence: the last anomaly, damped towards climatology with lead time."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.metrics.baselines.anomalies import (
    canonical_training,
    finish_forecast,
    fitted_period,
    lagged_anomalies,
    select_leads,
    start_forecast,
)
from simvp_climate.metrics.baselines.simple_persistence import Times, as_lead_time
from simvp_climate.metrics.pairs import on_grid_of


@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """Forecast climatology(valid_time) + damping * (state - climatology(init_time)).

    `fit_damped_persistence` makes one. Call it like `persistence`, or pass it to `score` among the baselines.

    Attributes
    ----------
    climatology
        Anomalies are differences from it.
    damping
        Factor for each lead and cell, from 0 to 1, dims (lead_time, [level,] latitude, longitude).
    """

    climatology: xr.Dataset
    damping: xr.Dataset

    def __call__(self, dataset: xr.Dataset, init_times: Times, lead_times: Times) -> xr.Dataset:
        """Return the forecast; arguments, result and errors as in `persistence`.

        Also raises ValueError for a lead that was not fitted, or another grid.
        """
        names = [name for name in self.damping.data_vars if name in dataset] or list(self.damping.data_vars)
        canonical, last, normal_at_init, normal_at_valid = start_forecast(
            dataset, self.damping[names], self.climatology, init_times, lead_times
        )
        damping = select_leads(on_grid_of(self.damping[names], last, "the damping"), last["lead_time"])
        forecast = normal_at_valid + damping * (last - normal_at_init)
        return finish_forecast(forecast, last, canonical, "damped persistence")


def fit_damped_persistence(train: xr.Dataset, climatology: xr.Dataset, lead_times: Times) -> DampedPersistence:
    """Return damped anomaly persistence, fitted by regression for each cell and lead.

    The damping is the regression coefficient of the later anomaly on the first one, <a(t) a(t + lead)> / <a(t)^2> over
    the training times, clipped to 0..1.

    Parameters
    ----------
    train
        The training period, with a dimension `time`; read in blocks.
    climatology
        Of the same period, as from `climatology`.
    lead_times
        All leads to forecast later, as for `persistence`.

    Raises
    ------
    ValueError
        If a lead is longer than the period, or the climatology does not fit.
    """
    train, climatology = canonical_training(train, climatology)
    lead_time = as_lead_time(lead_times)
    products, squares, ever_valid = {}, {}, {}  # by variable; the first two (lead_time, ...), the last (...)
    for _, anomalies, pairs in lagged_anomalies(train, climatology, lead_time):
        for name, values in anomalies.items():
            valid = np.isfinite(values)
            complete = bool(valid.all())
            ever_valid[name] = ever_valid.get(name, False) | valid.any(axis=0)
            values = values if complete else np.where(valid, values, 0)
            shape = (lead_time.size, *values.shape[1:])
            product = products.setdefault(name, np.zeros(shape))
            square = squares.setdefault(name, np.zeros(shape))
            for lead, (starts, ends) in enumerate(pairs):
                start = values[starts]
                product[lead] += np.einsum("t...,t...->...", start, values[ends])
                # both means are over the pairs with both values
                start = start if complete else start * valid[ends]
                square[lead] += np.einsum("t...,t...->...", start, start)
    damping = {}
    for name, product in products.items():
        varies = squares[name] > 0
        factor = np.clip(product / np.where(varies, squares[name], 1), 0, 1)
        # an anomaly that is always zero stays zero; a cell without any value has no damping
        factor = np.where(ever_valid[name], np.where(varies, factor, 0), np.nan)
        units = {"units": train[name].attrs.get("units", "")}
        damping[name] = (("lead_time", *train[name].dims[1:]), factor, units)
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims} | {"lead_time": lead_time}
    return DampedPersistence(climatology, xr.Dataset(damping, coordinates, fitted_period(train)))
