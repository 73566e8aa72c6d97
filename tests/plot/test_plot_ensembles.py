"""Figures of ensembles: ranks, reliability of probabilities, spread and error."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import own_axes, pixels, some_scores

from simvp_climate import plot

LEADS = pd.to_timedelta([6, 12, 18, 24], unit="h").to_numpy()


def ranks(*, levels=None, intervals=True):
    """Return shares of four ranks: a flat histogram at the first lead, then more and more in the last."""
    values = np.stack([[0.25 - 0.05 * lead] * 3 + [0.25 + 0.15 * lead] for lead in range(4)], axis=1)
    result = xr.Dataset(
        {"t2m": (("rank", "lead_time"), values, {"units": "1", "long_name": "2 metre temperature"})},
        {"rank": np.arange(4), "lead_time": LEADS},
    )
    if intervals:
        result = result.assign_coords(t2m_low=result.t2m.variable - 0.05, t2m_high=result.t2m.variable + 0.05)
    return result if levels is None else result.expand_dims(level=levels)


def reliability():
    """Return probabilities that are too bold, in bins of which one is empty, and a sharp forecast."""
    probability = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    quantities = [probability, 0.1 + 0.8 * probability, [0.5, 0.1, 0.0, 0.1, 0.3]]
    values = np.repeat(np.array(quantities)[:, :, None], 4, axis=2)
    values[:2, 2] = np.nan
    attrs = {"units": "1", "threshold": 300.0, "threshold_units": "K"}
    result = xr.Dataset(
        {"t2m": (("quantity", "probability", "lead_time"), values, attrs)},
        {
            "quantity": ["forecast_probability", "observed_frequency", "share"],
            "probability": probability,
            "lead_time": LEADS,
        },
    )
    return result.assign_coords(t2m_low=result.t2m.variable - 0.05, t2m_high=result.t2m.variable + 0.05)


def spread_scores():
    """Return the scores of two ensembles and of persistence, which has no members."""
    values = np.ones((3, 3, 4))
    values[:, 0] = [[1, 2, 3, 4], [4, 4, 4, 4], [5, 5, 5, 5]]
    values[:, 1] = [[0.5, 1, 2.4, 4], [4, 4, 4, 4], [np.nan] * 4]
    values[:, 2] = [[0.5, 0.5, 0.8, 1], [7, 1, 1, 1], [np.nan] * 4]
    return xr.Dataset(
        {"t2m": (("system", "metric", "lead_time"), values, {"units": "K"})},
        {
            "system": ["crps", "climatological ensemble", "persistence"],
            "metric": ["rmse", "spread", "spread_skill_ratio"],
            "lead_time": LEADS,
        },
    )


class TestRankHistogram:
    def test_bars_have_the_shares_beside_a_flat_line(self):
        figure = plot.rank_histogram(ranks())
        assert [axes.get_title() for axes in figure.axes] == [f"2 metre temperature, +{h} h" for h in (6, 18, 24)]
        last = figure.axes[2]
        np.testing.assert_allclose([bar.get_height() for bar in last.patches], [0.1, 0.1, 0.1, 0.7])
        np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in last.patches], [0, 1, 2, 3])
        assert set(last.lines[0].get_ydata()) == {0.25}
        (intervals,) = last.collections
        np.testing.assert_allclose([segment[:, 1] for segment in intervals.get_segments()][3], [0.65, 0.75])
        assert figure.axes[0].get_ylabel() == "Share of cases [%]" and last.get_ylabel() == ""
        assert figure.axes[0].yaxis.get_major_formatter()(0.25, 0) == "25"

    def test_levels_and_one_lead(self):
        figure = plot.rank_histogram(ranks(levels=[500, 850], intervals=False), lead="12h", width=6)
        assert [axes.get_title() for axes in figure.axes] == [
            f"2 metre temperature, level {level}, +12 h" for level in (500, 850)
        ]
        assert figure.get_size_inches()[0] == 6 and not figure.axes[0].collections
        single = plot.rank_histogram(ranks().isel(lead_time=2))
        np.testing.assert_allclose(single.axes[0].patches[3].get_height(), 0.55)

    def test_narrow_figures_wrap_their_texts(self):
        figure = plot.rank_histogram(ranks(), width=3.5)
        assert figure.axes[0].get_title().replace("\n", " ") == "2 metre temperature, +6 h"
        assert not figure.axes[0].get_title().endswith("\nh") and pixels(figure).size
        titles = [axes.title.get_window_extent() for axes in figure.axes]
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(titles))

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match=r"no 'rank': pass sc.metrics.rank_histogram"):
            plot.rank_histogram(reliability())
        with pytest.raises(ValueError, match="q.* is not in ranks"):
            plot.rank_histogram(ranks(), variables="q")
        with pytest.raises(ValueError, match="3 panels"):
            plot.rank_histogram(ranks(), ax=own_axes()[1])


class TestReliability:
    def test_curves_skip_empty_bins(self):
        figure = plot.reliability(reliability(), lead=["6h", "24h"])
        (panel,) = figure.axes
        assert panel.get_title() == "t2m above 300 K"
        (curve,) = [line for line in panel.lines if line.get_label() == "+6 h"]
        np.testing.assert_allclose(curve.get_xdata(), [0, 0.25, 0.75, 1])
        np.testing.assert_allclose(curve.get_ydata(), [0.1, 0.3, 0.7, 0.9])
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["+6 h", "+24 h"]
        # the frequency of the event: 0.5 0.1 + 0.1 0.3 + 0.1 0.7 + 0.3 0.9
        assert any(np.allclose(line.get_ydata(), 0.42) for line in panel.lines)
        assert any(list(line.get_xdata()) == list(line.get_ydata()) == [0, 1] for line in panel.lines)
        assert len(panel.collections) == 2  # the intervals

    def test_the_frequency_of_the_event_leaves_out_leads_without_truth(self):
        partial = reliability().where(reliability().lead_time != LEADS[-1])
        (panel,) = plot.reliability(partial, lead="6h").axes
        (line,) = [line for line in panel.lines if line.get_linestyle() == "--"]
        assert list(line.get_ydata()) == pytest.approx([0.42, 0.42])

    def test_a_small_panel_has_the_shares(self):
        (panel,) = plot.reliability(reliability(), lead="6h").axes
        (inset,) = panel.child_axes
        np.testing.assert_allclose(inset.lines[0].get_ydata(), [0.5, 0.1, 0.1, 0.3])
        assert inset.get_yscale() == "log"

    def test_own_axes_and_errors(self):
        figure, panel = own_axes()
        assert plot.reliability(reliability(), ax=panel) is figure
        assert panel.get_legend() is not None and not figure.legends
        with pytest.raises(ValueError, match=r"no 'quantity': pass sc.metrics.reliability"):
            plot.reliability(ranks())


def test_roc_curves_end_without_warnings():
    values = np.repeat(np.array([[1, 0.8, 0.5], [1, 0.4, 0.0]])[:, :, None], 4, axis=2)
    coordinates = {"rate": ["hit_rate", "false_alarm_rate"], "probability": [0, 0.5, 1], "lead_time": LEADS}
    curves = xr.Dataset(
        {"t2m": (tuple(coordinates), values, {"threshold": 300.0, "threshold_units": "K"})}, coordinates
    )
    figure = plot.roc(curves, lead="6h")
    (panel,) = figure.axes
    assert (panel.get_title(), panel.get_xlabel()) == ("t2m above 300 K", "False alarm rate")
    (curve,) = [line for line in panel.lines if line.get_label() == "+6 h"]
    np.testing.assert_allclose(curve.get_xdata(), [1, 0.4, 0, 0])
    np.testing.assert_allclose(curve.get_ydata(), [1, 0.8, 0.5, 0])
    with pytest.raises(ValueError, match=r"no 'rate': pass sc.metrics.roc"):
        plot.roc(ranks())


class TestSpreadSkill:
    def test_curves_of_the_ensembles(self):
        figure = plot.spread_skill(spread_scores())
        left, right = figure.axes
        assert left.get_ylabel() == "RMSE and spread [K]" and right.get_ylabel() == "Spread / skill"
        assert [line.get_linestyle() for line in left.lines] == ["-", "--", "-", "--"]
        np.testing.assert_allclose(left.lines[0].get_ydata(), [1, 2, 3, 4])
        np.testing.assert_allclose(left.lines[1].get_ydata(), [0.5, 1, 2.4, 4])
        np.testing.assert_allclose(right.lines[0].get_ydata(), [0.5, 0.5, 0.8, 1])
        assert set(right.lines[-1].get_ydata()) == {1}
        assert right.get_ylim()[1] == 2 and right.get_ylim()[0] < 0.5
        (legend,) = figure.legends
        texts = ["crps", "climatological ensemble", "RMSE of the ensemble mean", "spread"]
        assert [text.get_text() for text in legend.get_texts()] == texts

    def test_one_ensemble_in_own_axes(self):
        figure, panels = own_axes((1, 2))
        assert plot.spread_skill(spread_scores().isel(system=[0, 2]), ax=panels) is figure
        texts = [text.get_text() for text in panels[0].get_legend().get_texts()]
        assert texts == ["RMSE of the ensemble mean", "spread"]

    def test_scores_without_members_are_refused(self):
        with pytest.raises(ValueError, match=r"no \['spread', 'spread_skill_ratio'\]: sc.score"):
            plot.spread_skill(some_scores())
        with pytest.raises(ValueError, match="none with members"):
            plot.spread_skill(spread_scores().sel(system=["persistence"]))
