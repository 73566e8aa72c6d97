"""Learned weather and climate forecasts on latitude-longitude grids.

    import simvp_climate as sc

Names are loaded when first used: importing the package costs neither torch nor cartopy.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("eccodes"):
    # ecCodes, which xarray loads when it opens a file, brings a PROJ library of its own: loaded first it takes the
    # place of pyproj's, and the process crashes when it ends
    import pyproj  # noqa: F401

_HOME = {
    "Forecaster": "forecasting.forecaster",
    "SimVPv2": "networks.simvp_v2",
    "SimVPv2Config": "networks.simvp_v2",
    "Task": "processing.task",
    "TrainConfig": "training.config",
    "acc": "metrics.deterministic",
    "activity": "metrics.deterministic",
    "bias": "metrics.deterministic",
    "brier": "metrics.categorical",
    "cache": "data.cache",
    "check": "quality.check",
    "climatology": "metrics.baselines.reference",
    "climatology_at": "metrics.baselines.reference",
    "coverage": "metrics.uncertainty.intervals",
    "crps": "metrics.deterministic",
    "drift": "metrics.spectral",
    "ensemble": "forecasting.ensemble",
    "event_frequency": "metrics.categorical",
    "fit_amplitude": "forecasting.ensemble",
    "fit_calibration": "metrics.uncertainty.calibration",
    "fit_damped_persistence": "metrics.baselines.statistical",
    "fit_intervals": "metrics.uncertainty.intervals",
    "fit_linear_regression": "metrics.baselines.statistical",
    "frequency_bias": "metrics.categorical",
    "from_valid_time": "data.cf_encoding",
    "interval_score": "metrics.uncertainty.intervals",
    "is_first_process": "training.distributed",
    "latitude_weights": "data.grid",
    "mae": "metrics.deterministic",
    "open_dataset": "data.store",
    "open_pretrained": "forecasting.forecaster",
    "open_sample": "data.store",
    "perturbed_ensemble": "forecasting.ensemble",
    "persistence": "metrics.baselines.reference",
    "plot": None,
    "published": "metrics.published_scores",
    "rank_histogram": "metrics.deterministic",
    "regrid": "data.grid",
    "reproduce": "forecasting.reproduce",
    "rmse": "metrics.deterministic",
    "save_valid_time": "data.cf_encoding",
    "score": "metrics.score",
    "score_table": "metrics.tables",
    "seeps": "metrics.categorical",
    "seeps_climatology": "metrics.categorical",
    "short_names": "data.cf_encoding",
    "skilful_to": "metrics.score",
    "skill_map": "metrics.skill_maps",
    "small_scale_variance": "metrics.deterministic",
    "split": "data.splits",
    "spread": "metrics.deterministic",
    "spread_skill_ratio": "metrics.deterministic",
    "tercile_rpss": "metrics.categorical",
    "to_valid_time": "data.cf_encoding",
    "to_weatherbench2": "data.cf_encoding",
    "train": "training.train",
    "variance_by_wavenumber": "metrics.spectral",
    "wind_vector_rmse": "metrics.deterministic",
    "zonal_spectrum": "metrics.spectral",
}

if TYPE_CHECKING:  # what editors and type checkers read: a test sees that it says the same as the table
    from simvp_climate import plot as plot
    from simvp_climate.data.cache import cache as cache
    from simvp_climate.data.cf_encoding import from_valid_time as from_valid_time
    from simvp_climate.data.cf_encoding import save_valid_time as save_valid_time
    from simvp_climate.data.cf_encoding import short_names as short_names
    from simvp_climate.data.cf_encoding import to_valid_time as to_valid_time
    from simvp_climate.data.cf_encoding import to_weatherbench2 as to_weatherbench2
    from simvp_climate.data.grid import latitude_weights as latitude_weights
    from simvp_climate.data.grid import regrid as regrid
    from simvp_climate.data.splits import split as split
    from simvp_climate.data.store import open_dataset as open_dataset
    from simvp_climate.data.store import open_sample as open_sample
    from simvp_climate.forecasting.ensemble import ensemble as ensemble
    from simvp_climate.forecasting.ensemble import fit_amplitude as fit_amplitude
    from simvp_climate.forecasting.ensemble import perturbed_ensemble as perturbed_ensemble
    from simvp_climate.forecasting.forecaster import Forecaster as Forecaster
    from simvp_climate.forecasting.forecaster import open_pretrained as open_pretrained
    from simvp_climate.forecasting.reproduce import reproduce as reproduce
    from simvp_climate.metrics.baselines.reference import climatology as climatology
    from simvp_climate.metrics.baselines.reference import climatology_at as climatology_at
    from simvp_climate.metrics.baselines.reference import persistence as persistence
    from simvp_climate.metrics.baselines.statistical import fit_damped_persistence as fit_damped_persistence
    from simvp_climate.metrics.baselines.statistical import fit_linear_regression as fit_linear_regression
    from simvp_climate.metrics.categorical import brier as brier
    from simvp_climate.metrics.categorical import event_frequency as event_frequency
    from simvp_climate.metrics.categorical import frequency_bias as frequency_bias
    from simvp_climate.metrics.categorical import seeps as seeps
    from simvp_climate.metrics.categorical import seeps_climatology as seeps_climatology
    from simvp_climate.metrics.categorical import tercile_rpss as tercile_rpss
    from simvp_climate.metrics.deterministic import acc as acc
    from simvp_climate.metrics.deterministic import activity as activity
    from simvp_climate.metrics.deterministic import bias as bias
    from simvp_climate.metrics.deterministic import crps as crps
    from simvp_climate.metrics.deterministic import mae as mae
    from simvp_climate.metrics.deterministic import rank_histogram as rank_histogram
    from simvp_climate.metrics.deterministic import rmse as rmse
    from simvp_climate.metrics.deterministic import small_scale_variance as small_scale_variance
    from simvp_climate.metrics.deterministic import spread as spread
    from simvp_climate.metrics.deterministic import spread_skill_ratio as spread_skill_ratio
    from simvp_climate.metrics.deterministic import wind_vector_rmse as wind_vector_rmse
    from simvp_climate.metrics.published_scores import published as published
    from simvp_climate.metrics.score import score as score
    from simvp_climate.metrics.score import skilful_to as skilful_to
    from simvp_climate.metrics.skill_maps import skill_map as skill_map
    from simvp_climate.metrics.spectral import drift as drift
    from simvp_climate.metrics.spectral import variance_by_wavenumber as variance_by_wavenumber
    from simvp_climate.metrics.spectral import zonal_spectrum as zonal_spectrum
    from simvp_climate.metrics.tables import score_table as score_table
    from simvp_climate.metrics.uncertainty.calibration import fit_calibration as fit_calibration
    from simvp_climate.metrics.uncertainty.intervals import coverage as coverage
    from simvp_climate.metrics.uncertainty.intervals import fit_intervals as fit_intervals
    from simvp_climate.metrics.uncertainty.intervals import interval_score as interval_score
    from simvp_climate.networks.simvp_v2 import SimVPv2 as SimVPv2
    from simvp_climate.networks.simvp_v2 import SimVPv2Config as SimVPv2Config
    from simvp_climate.processing.task import Task as Task
    from simvp_climate.quality.check import check as check
    from simvp_climate.training.config import TrainConfig as TrainConfig
    from simvp_climate.training.distributed import is_first_process as is_first_process
    from simvp_climate.training.train import train as train

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("simvp-climate")
    if name not in _HOME:
        raise AttributeError(f"module 'simvp_climate' has no attribute {name!r}")
    if _HOME[name] is None:
        return importlib.import_module(f"simvp_climate.{name}")
    value = getattr(importlib.import_module(f"simvp_climate.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
