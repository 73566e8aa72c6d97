"""Draw forecasts, scores and training curves; `figure.savefig(...)` saves a figure, `ax=` draws into existing axes."""

from simvp_climate.plot.climate_reports import climate_report
from simvp_climate.plot.comparisons import compare, scores_by_init
from simvp_climate.plot.ensembles import rank_histogram, reliability, roc, spread_skill
from simvp_climate.plot.forecast_maps import animate, maps
from simvp_climate.plot.longitude_time import hovmoller
from simvp_climate.plot.meteograms import meteogram
from simvp_climate.plot.score_curves import scores
from simvp_climate.plot.scorecards import scorecard
from simvp_climate.plot.skill_maps import skill_map
from simvp_climate.plot.spectral_curves import spectra
from simvp_climate.plot.training_curves import training_curve

__all__ = [
    "animate", "climate_report", "compare", "hovmoller", "maps", "meteogram", "rank_histogram", "reliability",
    "roc", "scorecard", "scores", "scores_by_init", "skill_map", "spectra", "spread_skill", "training_curve",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
