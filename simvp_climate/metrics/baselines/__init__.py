"""Baselines: reference forecasts that a useful forecast must beat."""

from simvp_climate.metrics.baselines.climatological_ensembles import climatological_ensemble
from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.baselines.statistical import (
    AnomalyPersistence,
    fit_damped_persistence,
    fit_linear_regression,
)

__all__ = [
    "AnomalyPersistence", "climatological_ensemble", "climatology", "climatology_at", "fit_damped_persistence",
    "fit_linear_regression", "persistence",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
