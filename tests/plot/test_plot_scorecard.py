"""Scorecards."""

import matplotlib
import numpy as np
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
