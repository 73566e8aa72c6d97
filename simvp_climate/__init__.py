"""Learned weather and climate forecasts on latitude-longitude grids.

    import simvp_climate as sc

Names are imported when first used: importing the package loads neither torch nor cartopy.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("eccodes"):
    # ecCodes, which xarray loads when it opens a file, brings its own PROJ library. Loaded first, it replaces pyproj's,
    # and the process crashes at exit.
    import pyproj  # noqa: F401

# public functions and classes, and the modules that define them
_HOME = {
    "Forecaster": "forecasting.forecaster",
    "NetworkShape": "networks.shape",
    "SimVPSphereConfig": "networks.simvp_sphere",
    "SimVPv2": "networks.simvp_v2",
    "SimVPv2Config": "networks.simvp_v2",
    "Task": "processing.task",
    "TrainConfig": "training.config",
    "at": "data.stations",
    "cache": "data.cache",
    "calibrate_noise": "forecasting.noise",
    "check": "quality.check",
    "ensemble": "forecasting.ensemble",
    "exit_on_signals": "training.signals",
    "fit_amplitude": "forecasting.ensemble",
    "is_first_process": "training.distributed",
    "open_dataset": "data.opening",
    "open_pretrained": "forecasting.pretrained",
    "open_sample": "data.opening",
    "perturbed_ensemble": "forecasting.ensemble",
    "regrid": "data.regridding",
    "reproduce": "forecasting.reproduce",
    "score": "metrics.score",
    "score_table": "metrics.tables",
    "split": "data.splits",
    "train": "training.train",
}

# modules whose functions are public
_NAMESPACES = {
    "baselines": "metrics.baselines",
    "io": "data.conversions",
    "metrics": "metrics",
    "plot": "plot",
    "uncertainty": "metrics.uncertainty",
}

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with the table
    from simvp_climate import metrics as metrics
    from simvp_climate import plot as plot
    from simvp_climate.data import conversions as io  # noqa: F401
    from simvp_climate.data.cache import cache as cache
    from simvp_climate.data.opening import open_dataset as open_dataset
    from simvp_climate.data.opening import open_sample as open_sample
    from simvp_climate.data.regridding import regrid as regrid
    from simvp_climate.data.splits import split as split
    from simvp_climate.data.stations import at as at
    from simvp_climate.forecasting.ensemble import ensemble as ensemble
    from simvp_climate.forecasting.ensemble import fit_amplitude as fit_amplitude
    from simvp_climate.forecasting.ensemble import perturbed_ensemble as perturbed_ensemble
    from simvp_climate.forecasting.forecaster import Forecaster as Forecaster
    from simvp_climate.forecasting.noise import calibrate_noise as calibrate_noise
    from simvp_climate.forecasting.pretrained import open_pretrained as open_pretrained
    from simvp_climate.forecasting.reproduce import reproduce as reproduce
    from simvp_climate.metrics import baselines as baselines
    from simvp_climate.metrics import uncertainty as uncertainty
    from simvp_climate.metrics.score import score as score
    from simvp_climate.metrics.tables import score_table as score_table
    from simvp_climate.networks.shape import NetworkShape as NetworkShape
    from simvp_climate.networks.simvp_sphere import SimVPSphereConfig as SimVPSphereConfig
    from simvp_climate.networks.simvp_v2 import SimVPv2 as SimVPv2
    from simvp_climate.networks.simvp_v2 import SimVPv2Config as SimVPv2Config
    from simvp_climate.processing.task import Task as Task
    from simvp_climate.quality.check import check as check
    from simvp_climate.training.config import TrainConfig as TrainConfig
    from simvp_climate.training.distributed import is_first_process as is_first_process
    from simvp_climate.training.signals import exit_on_signals as exit_on_signals
    from simvp_climate.training.train import train as train

__all__ = sorted(_HOME | _NAMESPACES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("simvp-climate")
    if name in _NAMESPACES:
        value = importlib.import_module(f"simvp_climate.{_NAMESPACES[name]}")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"simvp_climate.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'simvp_climate' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
