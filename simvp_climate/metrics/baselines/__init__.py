"""Baselines: reference forecasts that a useful forecast must beat."""

from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.damped_persistence import fit_damped_persistence
from simvp_climate.metrics.baselines.linear_regression import fit_linear_regression
from simvp_climate.metrics.baselines.simple_persistence import persistence

__all__ = ["climatology", "climatology_at", "fit_damped_persistence", "fit_linear_regression", "persistence"]


def __dir__() -> list[str]:
    return __all__
