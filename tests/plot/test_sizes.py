"""Figures of curves and tables are right at every width: no text leaves the figure or lies on another."""

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import noisy, perfect_forecast, scores_with_intervals, some_history
from plot_layout import check_layout
from test_plot_ensembles import ranks, reliability, spread_scores

from simvp_climate import plot
from simvp_climate.metrics.published_scores import published
from simvp_climate.metrics.spectral import variance_by_wavenumber

LONG_NAMES = {"z500": "Geopotential at 500 hPa", "t2m": "Temperature at 2 m"}


def scores(regions=()):
    """Two variables, four metrics and five systems over eight leads, in all regions."""
    random = np.random.default_rng(0)
    metrics = ["rmse", "acc", "activity", "small_scale_variance", "rmse_skill_vs_persistence"]
    systems = ["SimVPSphere", "damped persistence", "linear regression", "persistence", "climatology"]
    coordinates = {"system": systems, "metric": metrics, "lead_time": np.arange(1, 9) * np.timedelta64(6, "h")}
    coordinates |= {"region": list(regions)} if regions else {}
    shape = [len(values) for values in coordinates.values()]
    result = xr.Dataset(coords=coordinates)
    for name, units in (("z500", "m2 s-2"), ("t2m", "K")):
        values = random.uniform(0.3, 0.9, shape)
        attrs = {"long_name": LONG_NAMES[name], "units": units}
        result[name] = (tuple(coordinates), values, attrs)
        bounds = {f"{name}_low": (tuple(coordinates), values - 0.1), f"{name}_high": (tuple(coordinates), values + 0.1)}
        result = result.assign_coords(bounds)
    return result.assign_attrs(grid="64 longitudes x 32 latitudes")


REGIONS = ("global", "tropics", "northern extratropics", "southern extratropics")
TRUTH = noisy()
FIGURES = {
    "scores": lambda width: plot.scores(scores(), width=width),
    "published": lambda width: plot.scores(
        scores_with_intervals(), metric="rmse", published=published(), width=width
    ),
    "scorecard": lambda width: plot.scorecard(scores(), width=width),
    "spectra": lambda width: plot.spectra(variance_by_wavenumber(perfect_forecast(TRUTH), TRUTH), width=width),
    "ranks": lambda width: plot.rank_histogram(ranks(), width=width),
    "reliability": lambda width: plot.reliability(reliability(), width=width),
    "spread": lambda width: plot.spread_skill(spread_scores(), width=width),
    "training": lambda width: plot.training_curve(some_history(), width=width),
}  # fmt: skip


@pytest.mark.parametrize("width", [3.5, 16])
@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_inside_and_apart(name, width):
    figure = FIGURES[name](width)
    assert figure.get_size_inches()[0] == width
    check_layout(figure)


def test_many_rows_make_a_figure_that_fits_a_page():
    table = scores(REGIONS)
    for figure in (plot.scores(table, metric=["rmse", "acc"]), plot.scorecard(table)):
        width, height = figure.get_size_inches()
        assert width <= 12 and height <= 11
        check_layout(figure)


def test_narrow_figures_have_fewer_panels_side_by_side():
    def columns(width):
        figure = plot.scores(scores(), width=width)
        return len({axes.get_subplotspec().colspan.start for axes in figure.axes}), figure

    assert [columns(width)[0] for width in (3.5, 7, 16)] == [2, 4, 4]
    # the second variable starts a new line of panels
    assert columns(3.5)[1].axes[4].get_title(loc="left") == "Temperature at 2 m"
