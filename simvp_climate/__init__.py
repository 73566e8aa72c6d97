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
    "Forecaster": "forecaster",
    "SimVPv2": "networks.simvp_v2",
    "SimVPv2Config": "networks.simvp_v2",
    "Task": "task",
    "TrainConfig": "settings",
    "acc": "verification.metrics",
    "activity": "verification.metrics",
    "bias": "verification.metrics",
    "brier": "verification.categories",
    "cache": "data.cache",
    "check": "data.check",
    "climatology": "verification.baselines",
    "climatology_at": "verification.baselines",
    "coverage": "verification.intervals",
    "crps": "verification.metrics",
    "drift": "verification.spectra",
    "ensemble": "ensembles",
    "event_frequency": "verification.categories",
    "fit_amplitude": "ensembles",
    "fit_calibration": "verification.calibration",
    "fit_damped_persistence": "verification.fitted",
    "fit_intervals": "verification.intervals",
    "fit_linear_regression": "verification.fitted",
    "frequency_bias": "verification.categories",
    "from_valid_time": "layouts",
    "interval_score": "verification.intervals",
    "is_first_process": "processes",
    "latitude_weights": "grid",
    "mae": "verification.metrics",
    "open_dataset": "data.store",
    "open_pretrained": "forecaster",
    "open_sample": "data.store",
    "perturbed_ensemble": "ensembles",
    "persistence": "verification.baselines",
    "plot": None,
    "published": "verification.literature",
    "rank_histogram": "verification.metrics",
    "regrid": "grid",
    "reproduce": "provenance",
    "rmse": "verification.metrics",
    "save_valid_time": "layouts",
    "score": "verification.scores",
    "score_table": "verification.tables",
    "seeps": "verification.categories",
    "seeps_climatology": "verification.categories",
    "short_names": "layouts",
    "skilful_to": "verification.scores",
    "skill_map": "verification.maps",
    "small_scale_variance": "verification.metrics",
    "split": "data.splits",
    "spread": "verification.metrics",
    "spread_skill_ratio": "verification.metrics",
    "tercile_rpss": "verification.categories",
    "to_valid_time": "layouts",
    "to_weatherbench2": "layouts",
    "train": "training",
    "variance_by_wavenumber": "verification.spectra",
    "wind_vector_rmse": "verification.metrics",
    "zonal_spectrum": "verification.spectra",
}

if TYPE_CHECKING:  # what editors and type checkers read: a test sees that it says the same as the table
    from simvp_climate import plot as plot
    from simvp_climate.data.cache import cache as cache
    from simvp_climate.data.check import check as check
    from simvp_climate.data.splits import split as split
    from simvp_climate.data.store import open_dataset as open_dataset
    from simvp_climate.data.store import open_sample as open_sample
    from simvp_climate.ensembles import ensemble as ensemble
    from simvp_climate.ensembles import fit_amplitude as fit_amplitude
    from simvp_climate.ensembles import perturbed_ensemble as perturbed_ensemble
    from simvp_climate.forecaster import Forecaster as Forecaster
    from simvp_climate.forecaster import open_pretrained as open_pretrained
    from simvp_climate.grid import latitude_weights as latitude_weights
    from simvp_climate.grid import regrid as regrid
    from simvp_climate.layouts import from_valid_time as from_valid_time
    from simvp_climate.layouts import save_valid_time as save_valid_time
    from simvp_climate.layouts import short_names as short_names
    from simvp_climate.layouts import to_valid_time as to_valid_time
    from simvp_climate.layouts import to_weatherbench2 as to_weatherbench2
    from simvp_climate.networks.simvp_v2 import SimVPv2 as SimVPv2
    from simvp_climate.networks.simvp_v2 import SimVPv2Config as SimVPv2Config
    from simvp_climate.processes import is_first_process as is_first_process
    from simvp_climate.provenance import reproduce as reproduce
    from simvp_climate.settings import TrainConfig as TrainConfig
    from simvp_climate.task import Task as Task
    from simvp_climate.training import train as train
    from simvp_climate.verification.baselines import climatology as climatology
    from simvp_climate.verification.baselines import climatology_at as climatology_at
    from simvp_climate.verification.baselines import persistence as persistence
    from simvp_climate.verification.calibration import fit_calibration as fit_calibration
    from simvp_climate.verification.categories import brier as brier
    from simvp_climate.verification.categories import event_frequency as event_frequency
    from simvp_climate.verification.categories import frequency_bias as frequency_bias
    from simvp_climate.verification.categories import seeps as seeps
    from simvp_climate.verification.categories import seeps_climatology as seeps_climatology
    from simvp_climate.verification.categories import tercile_rpss as tercile_rpss
    from simvp_climate.verification.fitted import fit_damped_persistence as fit_damped_persistence
    from simvp_climate.verification.fitted import fit_linear_regression as fit_linear_regression
    from simvp_climate.verification.intervals import coverage as coverage
    from simvp_climate.verification.intervals import fit_intervals as fit_intervals
    from simvp_climate.verification.intervals import interval_score as interval_score
    from simvp_climate.verification.literature import published as published
    from simvp_climate.verification.maps import skill_map as skill_map
    from simvp_climate.verification.metrics import acc as acc
    from simvp_climate.verification.metrics import activity as activity
    from simvp_climate.verification.metrics import bias as bias
    from simvp_climate.verification.metrics import crps as crps
    from simvp_climate.verification.metrics import mae as mae
    from simvp_climate.verification.metrics import rank_histogram as rank_histogram
    from simvp_climate.verification.metrics import rmse as rmse
    from simvp_climate.verification.metrics import small_scale_variance as small_scale_variance
    from simvp_climate.verification.metrics import spread as spread
    from simvp_climate.verification.metrics import spread_skill_ratio as spread_skill_ratio
    from simvp_climate.verification.metrics import wind_vector_rmse as wind_vector_rmse
    from simvp_climate.verification.scores import score as score
    from simvp_climate.verification.scores import skilful_to as skilful_to
    from simvp_climate.verification.spectra import drift as drift
    from simvp_climate.verification.spectra import variance_by_wavenumber as variance_by_wavenumber
    from simvp_climate.verification.spectra import zonal_spectrum as zonal_spectrum
    from simvp_climate.verification.tables import score_table as score_table

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
