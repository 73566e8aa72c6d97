"""Options that all figures share: the user's axes, layout, invalid arguments."""

import cartopy.crs as ccrs
import matplotlib
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from plot_factories import (
    GLOBE,
    analysis,
    noisy,
    own_axes,
    perfect_forecast,
    pixels,
    scores_with_intervals,
    skill_of_the_globe,
    some_history,
    with_noise,
)

from simvp_climate import plot
from simvp_climate.data.windows import valid_times
from simvp_climate.metrics.spectral import variance_by_wavenumber


class TestUserAxes:
    def test_maps(self):
        truth = analysis(*GLOBE)
        figure, panels = own_axes((2, 3), ccrs.EqualEarth())
        found = plot.maps(perfect_forecast(truth), truth, lead=["6h", "18h"], ax=panels)
        assert found is figure
        # the user's figure keeps its title, so the dates stand above the maps
        start = "from 2018-01-01 18 UTC"
        assert [panel.get_title() for panel in panels[:, 0]] == [f"Forecast +{h} h\n{start}" for h in (6, 18)]
        assert [panel.get_title() for panel in panels[:, 1]] == [f"Truth\n2018-01-02 {h:02} UTC" for h in (0, 12)]
        assert figure.get_suptitle() == ""
        with pytest.raises(ValueError, match="6 axes.* 3 panels"):
            plot.maps(perfect_forecast(truth), truth, ax=panels)
        with pytest.raises(ValueError, match="no map.*projection"):
            plot.maps(perfect_forecast(truth), ax=own_axes()[1])
        with pytest.raises(ValueError, match="ax has a str"):
            plot.maps(perfect_forecast(truth), ax="flat")

    def test_all_others(self, tmp_path):
        table = scores_with_intervals()
        truth = noisy()
        calls = [
            lambda ax: plot.scores(table, metric="rmse", ax=ax),
            lambda ax: plot.scorecard(table, ax=ax),
            lambda ax: plot.spectra(variance_by_wavenumber(perfect_forecast(truth), truth), ax=ax),
            lambda ax: plot.hovmoller(truth, ax=ax),
            lambda ax: plot.training_curve(some_history()[["loss", "valid_loss"]], ax=ax),
        ]
        for call in calls:
            figure, panel = own_axes()
            assert call(panel) is figure
            assert panel.lines or panel.images or panel.collections
            pixels(figure)
        figure, panel = own_axes(projection=ccrs.Robinson())
        film = plot.animate(perfect_forecast(truth), ax=panel, path=tmp_path / "film.gif", progress=False)
        assert film._fig is figure and (tmp_path / "film.gif").exists()
        figure, panel = own_axes(projection=ccrs.Robinson())
        assert plot.skill_map(skill_of_the_globe(), ax=panel) is figure
        assert panel.get_title().startswith("t2m")


class TestLayout:
    """No text overlaps another, in new figures and in the user's."""

    def boxes(self, figure):
        pixels(figure)
        found = []
        for axes in figure.axes:
            low, high = sorted(axes.get_xlim())  # matplotlib keeps labels of ticks beyond, which are not drawn
            ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
            texts = [axes.title, axes.xaxis.label, *ticks, *axes.get_yticklabels()]
            found += [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
            if not axes.get_title() and not axes.get_yticklabels():
                found.append(("", axes.get_window_extent()))
        found += [(figure.get_suptitle(), figure._suptitle.get_window_extent())] if figure.get_suptitle() else []
        return found

    def check(self, figure):
        found = self.boxes(figure)
        figure_box = figure.bbox
        for number, (text, box) in enumerate(found):
            assert box.x0 >= -1 and box.x1 <= figure_box.x1 + 1 and box.y0 >= -1, f"{text} is cut"
            for other, other_box in found[:number]:
                wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
                high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
                assert min(wide, high) < 1.5, f"{text!r} lies on {other!r}"
        bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
        ticks = [label.get_window_extent() for axes in figure.axes if axes not in bars
                 for label in axes.get_xticklabels() if label.get_text()]  # fmt: skip
        for bar in bars:
            box = bar.get_window_extent()
            assert not [tick for tick in ticks if tick.y0 < box.y1 - 1 and tick.y1 > box.y0 + 1
                        and tick.x0 < box.x1 and tick.x1 > box.x0]  # fmt: skip

    def table(self, rows=1):
        table = scores_with_intervals()
        sharp = [(0.8 + 0 * table.sel(metric=["rmse"])).assign_coords(metric=[name])
                 for name in ("activity", "small_scale_variance")]  # fmt: skip
        table = xr.concat([table, *sharp], "metric").assign_attrs(table.attrs)
        return table.assign({f"q{k}": table.z500 for k in range(rows - 1)})

    @pytest.mark.parametrize("rows", [1, 2, 5])
    @pytest.mark.parametrize("leads", [None, "3D"])
    def test_scorecards(self, rows, leads):
        self.check(plot.scorecard(self.table(rows), leads=leads))

    def test_scorecards_in_plain_axes(self):
        figure, panels = plt.subplots(1, 3, figsize=(14, 3))
        plt.close(figure)
        self.check(plot.scorecard(self.table(), ax=panels))
        assert panels[0].get_title().replace("\n", " ") == "SimVPv2, skill over persistence, RMSE"

    def test_sections_in_plain_axes(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        for size in ((6.4, 4.8), (12, 4)):
            figure, panels = plt.subplots(1, 3, figsize=size)
            plt.close(figure)
            self.check(plot.hovmoller(perfect_forecast(truth), truth, ax=panels))

    def test_maps_in_plain_axes(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        figure, panels = plt.subplots(1, 3, figsize=(14, 3), subplot_kw={"projection": ccrs.Robinson()})
        plt.close(figure)
        plot.maps(perfect_forecast(truth), truth, ax=panels)
        pixels(figure)
        for bar in figure.axes[3:]:
            box = bar.get_window_extent()
            assert all(box.y1 <= panel.get_window_extent().y0 + 1 for panel in panels)

    def test_months_and_nothing_below_zero(self):
        table = scores_with_intervals()
        table["z500"] = xr.where(table.metric == "rmse_skill_vs_persistence", -0.002, table.z500)
        table = table.assign_coords(lead_time=("lead_time", [1, 3, 5], {"units": "months"}))
        panel = plot.scorecard(table).axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "3", "5"]
        assert panel.get_xlabel() == "Lead time [months]"
        assert {text.get_text() for text in panel.texts} == {"0"}


class TestInvalidDatasets:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda fc: fc.t2m, "DataArray.*to_dataset"),
            (lambda fc: None, "NoneType, not a Dataset"),
            (lambda fc: "forecast.nc", "'forecast.nc' is a path.*open_dataset"),
            (lambda fc: pd.DataFrame({"t2m": [1]}), "DataFrame, not a Dataset"),
            (lambda fc: xr.Dataset(), "without variables"),
        ],
    )
    def test_other_types_are_refused(self, given, message):
        forecast = perfect_forecast(analysis(*GLOBE))
        for draw in (plot.maps, plot.hovmoller, plot.animate, plot.skill_map, plot.scores, plot.scorecard):
            with pytest.raises(ValueError, match=message):
                draw(given(forecast))
        if given(forecast) is not None:
            for draw in (plot.maps, plot.hovmoller, plot.animate):
                with pytest.raises(ValueError, match=message):
                    draw(forecast, given(forecast))

    def test_empty_selections_are_refused(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        for draw in (plot.maps, plot.hovmoller, plot.animate):
            with pytest.raises(ValueError, match="forecast.*init_time.*size is 0"):
                draw(forecast.isel(init_time=slice(0, 0)))
            with pytest.raises(ValueError, match="forecast.*lead_time.*size is 0"):
                draw(forecast.isel(lead_time=slice(0, 0)))
            with pytest.raises(ValueError, match="truth.*time.*size is 0"):
                draw(forecast, truth.isel(time=slice(0, 0)))
            with pytest.raises(ValueError, match="truth.*no time"):
                draw(forecast, truth.isel(time=0))
        with pytest.raises(ValueError, match="dataset.*time.*size is 0"):
            plot.hovmoller(truth.isel(time=slice(0, 0)))

    def test_a_forecast_is_refused_as_scores(self):
        with pytest.raises(ValueError, match="no 'system'"):
            plot.scorecard(perfect_forecast(analysis(*GLOBE)))

    def test_leads_and_inits_taken_from_a_forecast(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        expected = plot.maps(forecast, truth, lead="12h", init="2018-01-01T06").get_suptitle()
        for lead in (forecast.lead_time[1], forecast.lead_time.values[1], [forecast.lead_time[1]]):
            for init in (forecast.init_time[1], forecast.init_time.values[1], forecast.init_time[1:2]):
                assert plot.maps(forecast, truth, lead=lead, init=init).get_suptitle() == expected
        assert plot.maps(forecast, lead=forecast.lead_time[:2]).axes[1].get_title() == "Forecast +12 h"
        with pytest.raises(ValueError, match="init has 2 times"):
            plot.maps(forecast, init=forecast.init_time[:2])
        with pytest.raises(ValueError, match="init=3 "):
            plot.maps(forecast, init=3)
        months = forecast.assign_coords(lead_time=("lead_time", [1, 2, 3], {"units": "months"}))
        months = months.assign_coords(valid_time=valid_times(months.init_time, months.lead_time))
        assert plot.maps(months, lead=months.lead_time[1]).axes[0].get_title() == "Forecast +2 months"

    def test_a_scorecard_of_one_lead(self):
        panel = plot.scorecard(scores_with_intervals(), leads="3D").axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["3"]

    @pytest.mark.parametrize("units", [("K", "kelvin"), ("m2 s-2", "m2/s2"), ("m2 s-2", "m**2 s**-2")])
    def test_other_spellings_of_the_same_units(self, units):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth.assign(t2m=truth.t2m.assign_attrs(units=units[0])))
        other = truth.assign(t2m=truth.t2m.assign_attrs(units=units[1]))
        for draw in (plot.maps, plot.hovmoller):
            draw(forecast, other)


class TestSettingsWithoutEffect:
    def test_of_axes(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        table = scores_with_intervals()
        ratios = variance_by_wavenumber(perfect_forecast(noisy()), noisy())
        for draw, data in (
            (plot.maps, forecast),
            (plot.animate, forecast),
            (plot.skill_map, skill_of_the_globe()),
            (plot.hovmoller, truth),
            (plot.scores, table),
            (plot.scorecard, table),
            (plot.spectra, ratios),
            (plot.training_curve, some_history()),
        ):
            with pytest.raises(ValueError, match="ax has its own width"):
                draw(data, ax=own_axes()[1], width=5)
        for draw, data in ((plot.maps, forecast), (plot.animate, forecast), (plot.skill_map, skill_of_the_globe())):
            with pytest.raises(ValueError, match="ax has its own projection"):
                draw(data, ax=own_axes(projection=ccrs.Robinson())[1], projection=ccrs.Mercator())
            with pytest.raises(ValueError, match="projection='Robinson'.*cartopy"):
                draw(data, projection="Robinson")
        with pytest.raises(ValueError, match="width=0 "):
            plot.maps(forecast, width=0)

    def test_of_missing_dimensions(self):
        with pytest.raises(ValueError, match="level=500.*no level"):
            plot.skill_map(skill_of_the_globe(), level=500)
        with pytest.raises(ValueError, match="init='2018'.*no init_time"):
            plot.hovmoller(analysis(*GLOBE), init="2018")


class TestTextsOfSkillAndSpectra:
    def test_skill_map_names_baseline_and_period(self):
        skill = skill_of_the_globe()
        said = {
            "baseline": "persistence",
            "verified_start": "2004-01-02T06:00:00",
            "verified_end": "2004-04-30T18:00:00",
        }
        figure = plot.skill_map(skill.assign_attrs(said))
        words = "Against persistence, verified 2004-01-02 to 2004-04-30, 12 blocks of 5 initializations"
        assert figure.get_suptitle().replace("\n", " ") == words
        assert figure.axes[-1].get_xlabel() == "Skill, 1 - MSE / MSE of persistence"

    def test_leads_share_a_unit(self):
        truth = noisy(steps=24)
        forecast = perfect_forecast(truth, leads=16)
        found = variance_by_wavenumber(forecast, truth)

        def words(lead):
            (legend,) = plot.spectra(found, lead=lead).legends
            return [text.get_text() for text in legend.get_texts()][1:]

        assert words(["6h", "24h", "48h", "72h"]) == ["+6 h", "+24 h", "+48 h", "+72 h"]
        assert words(["24h", "48h", "72h"]) == ["+1 d", "+2 d", "+3 d"]
        titles = [axes.get_title() for axes in plot.maps(forecast, lead=["1D", "3D"]).axes[:2]]
        assert titles == ["Forecast +1 d", "Forecast +3 d"]

    def test_ratios_outside_the_panel_are_marked(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        found = variance_by_wavenumber(forecast, truth)
        found["t2m"] = found.t2m * xr.where(found.zonal_wavenumber == 30, 100, 1)
        found["t2m"] = found.t2m * xr.where(found.zonal_wavenumber == 3, 0.001, 1)
        figure = plot.spectra(found, lead="6h")
        panel = figure.axes[1]
        up, down = ([line for line in panel.lines if line.get_marker() == marker] for marker in "^v")
        assert [line.get_xydata().tolist() for line in up + down] == [[[30, 20]], [[3, 0.05]]]
        assert to_rgb(up[0].get_color()) == to_rgb(panel.lines[0].get_color())
        assert len([line for line in plot.spectra(variance_by_wavenumber(forecast, truth)).axes[1].lines]) == 4
        before = panel.get_position().width
        pixels(figure)
        assert panel.get_position().width > 0.9 * before  # the marks take no room
