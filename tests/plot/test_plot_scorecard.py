"""Scorecards."""

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import scores_with_intervals

from simvp_climate import plot
from simvp_climate.metrics.published_scores import published

SCORE_NAMES = ["z500", "z500_low", "z500_high"]


class TestScorecard:
    def test_cells_show_the_skill_in_percent(self):
        table = scores_with_intervals()
        figure = plot.scorecard(table)
        panel = figure.axes[0]
        skill = table.z500.sel(system="SimVPv2", metric="rmse_skill_vs_persistence").values
        assert [text.get_text() for text in panel.texts] == [f"{100 * value:.0f}" for value in skill]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "3", "5"]
        assert panel.get_xlabel() == "Lead time [days]"
        image = panel.images[0]
        assert image.cmap(image.norm(90))[2] > image.cmap(image.norm(90))[0]  # blue is better
        # the bar has the unit of the cells, and says what triangles mean
        bar = next(axes for axes in figure.axes if axes.get_label() == "<colorbar>")
        assert [label.get_text() for label in bar.get_xticklabels()] == ["-100", "0", "100"]
        assert bar.get_xlabel() == "Skill [%], blue: better\n▲ significantly better, ▼ worse"
        # significantly better at all leads
        up = [line for line in panel.lines if line.get_marker() == "^"]
        assert len(up[0].get_xdata()) == 3
        assert figure.get_suptitle() == "SimVPv2 against persistence"

    def test_sharpness_has_its_own_panel(self):
        table = scores_with_intervals()
        activity = (table.sel(metric=["rmse"]) * 0 + 0.7).assign_coords(metric=["activity"])
        panels = plot.scorecard(xr.concat([table, activity], "metric")).axes
        assert panels[1].get_title() == "Activity" and panels[1].texts[0].get_text() == "0.70"

    def test_regions_are_rows(self):
        table = scores_with_intervals()
        regions = xr.concat([table, table], xr.DataArray(["tropics", "arctic"], dims="region", name="region"))
        panel = plot.scorecard(regions, leads=["3D"]).axes[0]
        assert [label.get_text() for label in panel.get_yticklabels()] == ["z500, tropics", "z500, arctic"]
        assert len(panel.texts) == 2

    def test_missing_skills_systems_and_leads_are_refused(self):
        table = scores_with_intervals()
        with pytest.raises(ValueError, match="no rmse_skill_vs_climatology"):
            plot.scorecard(table, "climatology")
        with pytest.raises(ValueError, match="system='x'.* not in"):
            plot.scorecard(table, system="x")
        with pytest.raises(ValueError, match="lead='2D' must be one of"):
            plot.scorecard(table, leads=["2D"])

    def test_leads_are_thinned_to_those_that_fit(self):
        table = scores_with_intervals()
        hours = np.arange(1, 13) * np.timedelta64(6, "h")
        table = table.sel(lead_time=["1D"]).isel(lead_time=[0] * 12).assign_coords(lead_time=hours)
        panel = plot.scorecard(table, width=7).axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == [str(hour) for hour in range(6, 73, 6)]
        assert panel.get_xlabel() == "Lead time [hours]"
        panel = plot.scorecard(table, width=3.5).axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == [str(hour) for hour in range(12, 73, 12)]
        # leads that were asked for are all drawn, if need be without numbers
        panel = plot.scorecard(table, leads=list(hours), width=2.5).axes[0]
        assert panel.images[0].get_array().shape == (1, 12)


class TestPublished:
    def test_models_have_rows_with_their_skill_over_the_baseline(self):
        table, others = scores_with_intervals(), published()
        others = others[others["model"].isin(["IFS T63", "GraphCast"])]
        figure = plot.scorecard(table, published=others)
        panel = figure.axes[0]
        assert [label.get_text() for label in panel.get_yticklabels()] == ["z500", "z500, IFS T63", "z500, GraphCast"]
        persistence = table.z500.sel(system="persistence", metric="rmse").values  # at 1, 3 and 5 days
        expected = [[np.nan, 1 - 267.61 / persistence[1], 1 - 463.15 / persistence[2]]]
        expected += [[np.nan, 1 - 113.4 / persistence[1], np.nan]]
        np.testing.assert_allclose(panel.images[0].get_array()[1:].filled(np.nan), 100 * np.array(expected))
        bar = next(axes for axes in figure.axes if axes.get_label() == "<colorbar>")
        note = " ".join(bar.get_xlabel().split())
        assert "Published models, against ERA5 2017-2018; ERA5 2020 (GraphCast)." in note
        assert "Others: against the truth of these scores, 2001-01-02 to" in note

    def test_rows_stand_below_their_variable_and_have_no_sharpness(self):
        table, others = scores_with_intervals(), published()
        table = xr.merge([table, table.rename({name: name.replace("z500", "t850") for name in SCORE_NAMES})])
        activity = (table.sel(metric=["rmse"]) * 0 + 0.7).assign_coords(metric=["activity"])
        others = others[others["model"] == "IFS T63"].assign(units="m2 s-2")
        skill, sharpness = plot.scorecard(xr.concat([table, activity], "metric"), published=others).axes[:2]
        names = [label.get_text() for label in skill.get_yticklabels()]
        assert names == ["z500", "z500, IFS T63", "t850", "t850, IFS T63"]
        assert np.ma.getmaskarray(sharpness.images[0].get_array()).tolist() == [[False] * 3, [True] * 3] * 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.assign_attrs(truth="SIMULATED climate"), "SIMULATED climate.* real atmosphere"),
            (lambda t: t.assign_attrs(grid="72 longitudes x 36 latitudes"), "72 longitudes.* different grids"),
            (lambda t: t.assign_coords(region="tropics"), "region .*tropics.* globe"),
            (lambda t: t.sel(lead_time=["1D"]), "72, 120.* none of them"),
            (lambda t: t.sel(system=["SimVPv2"]), "needs the rmse of 'persistence'"),
        ],
    )
    def test_scores_that_cannot_be_compared_are_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            plot.scorecard(change(scores_with_intervals()), published=published())
