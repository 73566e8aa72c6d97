"""Prediction intervals and calibration, fitted on a validation period."""

from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap
from simvp_climate.metrics.uncertainty.calibration import fit_calibration
from simvp_climate.metrics.uncertainty.intervals import coverage, fit_intervals, interval_score

__all__ = ["Bootstrap", "coverage", "fit_calibration", "fit_intervals", "interval_score"]


def __dir__() -> list[str]:
    return __all__
