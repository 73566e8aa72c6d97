"""Verification metrics: functions of a forecast and the truth, with the definitions of WeatherBench.

They take labeled Datasets and need no torch. `score` computes many of them at once, also for baselines.
"""

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.categorical.probabilities import brier_decomposition, reliability, roc, roc_area
from simvp_climate.metrics.categorical.seeps import seeps, seeps_climatology
from simvp_climate.metrics.categorical.terciles import tercile_rpss
from simvp_climate.metrics.categorical.thresholds import brier, event_frequency, frequency_bias
from simvp_climate.metrics.climate.report import climate_report, climate_table
from simvp_climate.metrics.deterministic import (
    acc,
    activity,
    bias,
    grid_noise,
    mae,
    rmse,
    small_scale_variance,
    wind_vector_rmse,
)
from simvp_climate.metrics.ensemble import crps, energy_score, rank_histogram, spread, spread_skill_ratio
from simvp_climate.metrics.indices import fit_ao, fit_nao, fit_nino34, fit_pna, fit_sam
from simvp_climate.metrics.init_scores import score_by_init
from simvp_climate.metrics.published_scores import published
from simvp_climate.metrics.score import skilful_to
from simvp_climate.metrics.skill_maps import skill_map
from simvp_climate.metrics.spectral import drift, effective_resolution, variance_by_wavenumber, zonal_spectrum
from simvp_climate.metrics.time_means import time_mean

__all__ = [
    "acc", "activity", "bias", "brier", "brier_decomposition", "climate_report", "climate_table", "crps", "drift",
    "effective_resolution", "energy_score", "event_frequency", "fit_ao", "fit_nao", "fit_nino34", "fit_pna",
    "fit_sam", "frequency_bias", "grid_noise", "latitude_weights", "mae", "published", "rank_histogram",
    "reliability", "rmse", "roc", "roc_area", "score_by_init", "seeps", "seeps_climatology", "skilful_to",
    "skill_map", "small_scale_variance", "spread", "spread_skill_ratio", "tercile_rpss", "time_mean",
    "variance_by_wavenumber", "wind_vector_rmse", "zonal_spectrum",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
