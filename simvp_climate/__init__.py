"""Learned weather and climate forecasts on latitude-longitude grids.

    import simvp_climate as sc

Names are loaded when first used: importing the package costs neither torch nor cartopy.
"""

import importlib
import importlib.util

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
    "coverage": "verification.intervals",
    "crps": "verification.metrics",
    "drift": "verification.spectra",
    "ensemble": "ensembles",
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

__all__ = sorted(_HOME)


def __getattr__(name: str):
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
