"""Score curves, their intervals and published scores."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from matplotlib.text import Text
from plot_factories import GLOBE, analysis, curves, noisy, perfect_forecast, pixels, scores_with_intervals, some_scores

from simvp_climate import plot
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.published_scores import published
from simvp_climate.metrics.score import score


def test_panels_show_the_scores_with_labels_and_one_legend():
    scores = some_scores()
    figure = plot.scores(scores)
    assert len(figure.axes) == 4  # rmse and acc of two variables: mae is no headline metric
    for axes, (name, metric) in zip(
        figure.axes, [("z500", "rmse"), ("z500", "acc"), ("t2m", "rmse"), ("t2m", "acc")], strict=True
    ):
        drawn = curves(axes)
        systems = {"SimVPv2", "persistence"} | ({"climatology"} if metric == "rmse" else set())
        assert set(drawn) == systems
        for system, line in drawn.items():
            np.testing.assert_allclose(line.get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3])
            np.testing.assert_array_equal(line.get_ydata(), scores[name].sel(system=system, metric=metric))
    assert [axes.get_ylabel() for axes in figure.axes] == ["RMSE [m² s⁻²]", "ACC", "RMSE [K]", "ACC"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "Lead time [days]", "Lead time [days]"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]  # one for the panels of a row
    assert titles == ["Geopotential at 500 hPa", "", "t2m", ""]
    assert curves(figure.axes[0])["climatology"].get_linestyle() == "--"
    # one legend with the forecasts first, and one color for each system
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SimVPv2", "persistence", "climatology"]
    for system in ("SimVPv2", "persistence"):
        assert len({curves(axes)[system].get_color() for axes in figure.axes}) == 1
    assert pixels(figure).size


def test_levels_have_panels_and_short_leads_are_in_hours():
    scores = some_scores(hours=6, leads=4)[["t2m"]]
    both = xr.concat([scores, 2 * scores], xr.DataArray([500, 850], dims="level", name="level"))
    both["t2m"].attrs["units"] = "K"
    both["level"].attrs["units"] = "hPa"
    figure = plot.scores(both, metric="mae", width=6)
    assert [axes.get_title() for axes in figure.axes] == ["t2m, 500 hPa", "t2m, 850 hPa"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["MAE [K]"] * 2
    assert figure.axes[1].get_xlabel() == "Lead time [hours]"
    np.testing.assert_allclose(curves(figure.axes[1])["SimVPv2"].get_xdata(), [6, 12, 18, 24])
    np.testing.assert_allclose(
        curves(figure.axes[1])["SimVPv2"].get_ydata(), 2 * scores["t2m"].sel(system="SimVPv2", metric="mae")
    )
    assert figure.get_size_inches()[0] == 6


def test_variance_ratio_has_a_line_at_one_and_a_selected_metric_is_drawn():
    scores = some_scores().assign_coords(metric=["rmse", "acc", "small_scale_variance"])
    figure = plot.scores(scores.sel(metric="small_scale_variance"), variables="t2m")
    (axes,) = figure.axes
    assert axes.get_ylabel().replace("\n", " ") == "Small-scale variance ratio"
    (reference,) = [line for line in axes.lines if line.get_label().startswith("_")]
    assert set(reference.get_ydata()) == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "crps"}, "crps.* is not in scores.*'rmse', 'acc', 'mae'"),
        ({"variables": ["t2m", "q"]}, r"\['q'\] is not in scores.*'z500', 't2m'"),
        ({"variables": []}, "variables.* empty"),
    ],
)
def test_missing_metrics_and_variables_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        plot.scores(some_scores(), **options)


def test_forecasts_and_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="no 'system'"):
        plot.scores(perfect_forecast(analysis(*GLOBE)))
    with pytest.raises(ValueError, match="26 rows.* 12"):
        plot.scores(some_scores().expand_dims(level=13 * [0]).assign_coords(level=np.arange(13)))


class TestIntervalsAndSkill:
    def test_intervals_are_shaded(self):
        table = scores_with_intervals()
        figure = plot.scores(table, metric="rmse")
        bands = figure.axes[0].collections
        assert len(bands) == 2
        ends = bands[0].get_paths()[0].vertices[:, 1]
        low = table.z500_low.sel(system="SimVPv2", metric="rmse")
        assert ends.min() == pytest.approx(float(low.min()))
        assert not plot.scores(table.drop_vars(["z500_low", "z500_high"]), metric="rmse").axes[0].collections

    def test_skill_has_a_line_at_zero(self):
        panel = plot.scores(scores_with_intervals(), metric="rmse_skill_vs_persistence").axes[0]
        assert " ".join(panel.get_ylabel().split()) == "RMSE skill over persistence"
        assert any((np.asarray(line.get_ydata()) == 0).all() and line.get_linestyle() == ":" for line in panel.lines)

    def test_published_scores_are_drawn_on_the_same_grid_only(self):
        table = scores_with_intervals()
        panel = plot.scores(table, metric="rmse", published=published()).axes[0]
        lines = {line.get_label(): line for line in panel.lines}
        assert {"IFS T63", "GraphCast"} <= set(lines)
        names = {text.get_text() for text in panel.figure.legends[0].get_texts()}
        assert {"SimVPv2", "persistence", "IFS T63", "GraphCast"} <= names
        points = {(float(x), float(y)) for line in lines.values() for x, y in zip(*line.get_data(), strict=True)}
        assert {(3.0, 267.61), (5.0, 463.15)} <= points
        with pytest.raises(ValueError, match="72 longitudes.* different grids"):
            plot.scores(table.assign_attrs(grid="72 longitudes x 36 latitudes"), published=published())

    def test_bars_end_at_the_last_skilful_lead(self):
        table = scores_with_intervals()
        low = table.z500_low.copy()
        low.loc[{"metric": "rmse_skill_vs_persistence", "system": "SimVPv2"}] = [0.2, 0.1, -0.1]
        figure = plot.scores(table.assign_coords(z500_low=low), metric="rmse")
        (bar,) = [line for line in figure.axes[0].lines if line.get_linewidth() == 3]
        assert list(bar.get_xdata()) == [0, 3]
        assert not figure.axes[0].texts
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == ["SimVPv2", "persistence", "skilful: better than all baselines"]
        low.loc[{"metric": "rmse_skill_vs_persistence"}] = -0.1
        figure = plot.scores(table.assign_coords(z500_low=low), metric="rmse")
        assert len(figure.legends[0].get_texts()) == 2


class TestPublished:
    def test_only_verified_leads_are_drawn(self):
        table = scores_with_intervals()
        panel = plot.scores(table.sel(lead_time=["1D", "3D"]), metric="rmse", published=published()).axes[0]
        letters = [text for text in panel.texts if text.get_text()[0].isalpha() and len(text.get_text()) <= 2]
        assert letters and {text.xy[0] for text in letters} == {3.0}
        with pytest.raises(ValueError, match="72, 120.* none of them"):
            plot.scores(table.sel(lead_time=["1D"]), metric="rmse", published=published())

    @pytest.mark.parametrize(("dim", "value"), [("region", "tropics"), ("season", "DJF"), ("month", 3)])
    def test_scores_of_a_region_season_or_month_are_refused(self, dim, value):
        table = scores_with_intervals()
        with pytest.raises(ValueError, match=f"{dim} .*{value}.* globe"):
            plot.scores(table.assign_coords({dim: value}), metric="rmse", published=published())
        figure = plot.scores(table.assign_coords(region="global"), metric="rmse", published=published())
        assert "GraphCast" in curves(figure.axes[0])

    @pytest.mark.parametrize(
        ("attrs", "message"),
        [
            ({"title": "SIMULATED climate, 6-hourly"}, "SIMULATED climate.* real atmosphere.*Leave published out"),
            ({"title": "a control run", "comment": "simulated by a model"}, "'simulated: a control run'"),
            ({"source": "MPI-ESM1-2-LR", "experiment_id": "historical"}, "'simulated: MPI-ESM1-2-LR'"),
        ],
    )
    def test_scores_against_a_simulated_truth_are_refused(self, attrs, message):
        truth = noisy(steps=24).assign_attrs(attrs)
        forecast = persistence(truth, truth.time[:4], ["72h"])
        table = score(forecast, truth, metrics=["rmse"], bootstrap=None)
        with pytest.raises(ValueError, match=message):
            plot.scores(table, published=published())

    def test_scores_against_an_analysis_are_drawn(self):
        truth = noisy(steps=24).assign_attrs(title="ERA5")
        table = score(persistence(truth, truth.time[:4], ["72h"]), truth, metrics=["rmse"], bootstrap=None)
        assert table.attrs["truth"] == "ERA5"
        assert plot.scores(table, published=published()).axes[0].texts

    def test_letters_are_inside_the_panel_and_do_not_overlap(self):
        table = scores_with_intervals()
        for width in (None, 5):
            figure = plot.scores(table, metric="rmse", published=published(), width=width)
            pixels(figure)
            panel = figure.axes[0]
            letters = panel.texts
            rows = published().query("variable == 'z500' and metric == 'rmse' and lead_hours in [24, 72, 120]")
            assert len(letters) == (rows.grid == table.grid).sum()
            boxes = [Text.get_window_extent(text) for text in letters]
            for index, box in enumerate(boxes):
                assert panel.bbox.y0 - 3 <= box.y0 and box.y1 <= panel.bbox.y1 + 3
                assert box.x1 <= figure.bbox.x1
                for other in boxes[:index]:
                    width_overlap = min(box.x1, other.x1) - max(box.x0, other.x0)
                    height_overlap = min(box.y1, other.y1) - max(box.y0, other.y0)
                    assert min(width_overlap, height_overlap) < 2.5

    def test_the_legend_names_truth_and_years(self):
        table = scores_with_intervals()
        (legend,) = plot.scores(table, metric="rmse", published=published()).legends
        title = " ".join(legend.get_title().get_text().split())
        assert title.startswith("Letters: published, against ERA5 2017-2018")
        assert "2020 (GraphCast)" in title and "Curves: against the truth of these scores, 2001-01-0" in title

    def test_published_scores_are_converted_to_the_units_of_the_scores(self):
        table = scores_with_intervals().rename(z500="tp6h", z500_low="tp6h_low", z500_high="tp6h_high")
        table["tp6h"].attrs["units"] = "m"
        (row,) = published().query("model == 'IFS T63'").head(1).to_dict("records")
        rain = pd.DataFrame([{**row, "variable": "tp6h", "value": 2.5, "units": "mm", "lead_hours": 72}])
        panel = plot.scores(table, metric="rmse", published=rain).axes[0]
        (line,) = [line for line in panel.lines if line.get_label() == "IFS T63"]
        assert line.get_ydata()[0] == pytest.approx(0.0025)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (published().iloc[:0], "no rows"),
            ({"z500": 1}, "dict.* columns"),
            (pd.DataFrame({"model": ["a"]}), r"\['model'\].* columns"),
            (published().query("variable == 't2m'"), r"no \['rmse'\] of \['z500'\]"),
        ],
    )
    def test_unsuitable_tables_are_refused(self, table, message):
        with pytest.raises(ValueError, match=message):
            plot.scores(scores_with_intervals(), metric="rmse", published=table)


def test_dir_lists_the_figures_only():
    assert dir(plot) == sorted(plot.__all__)
    assert all(callable(getattr(plot, name)) for name in dir(plot))
