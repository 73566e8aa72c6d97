"""Scorecards."""

import matplotlib
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import scores_with_intervals

from simvp_climate import plot


class TestScorecard:
    def test_cells_show_the_skill_in_percent(self):
        table = scores_with_intervals()
        figure = plot.scorecard(table)
        panel = figure.axes[0]
        skill = table.z500.sel(system="SimVPv2", metric="rmse_skill_vs_persistence").values
        assert [text.get_text() for text in panel.texts] == [f"{100 * value:.0f}" for value in skill]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1 d", "3 d", "5 d"]
        image = panel.images[0]
        assert image.cmap(image.norm(0.9))[2] > image.cmap(image.norm(0.9))[0]  # blue is better
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
