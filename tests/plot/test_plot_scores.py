"""Score curves, their intervals and published scores."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, curves, perfect_forecast, pixels, scores_with_intervals, some_scores

from simvp_climate import plot
from simvp_climate.metrics.published_scores import published


def test_scores_are_drawn_as_they_are():
    scores = some_scores()
    figure = plot.scores(scores)
    assert len(figure.axes) == 4  # rmse and acc of two variables: mae is not asked for
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
    assert figure.axes[0].get_title() == "Geopotential at 500 hPa"
    assert curves(figure.axes[0])["climatology"].get_linestyle() == "--"
    # one legend, forecasts first, and one color for a system throughout
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SimVPv2", "persistence", "climatology"]
    for system in ("SimVPv2", "persistence"):
        assert len({curves(axes)[system].get_color() for axes in figure.axes}) == 1
    assert pixels(figure).size


def test_scores_of_levels_in_hours():
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


def test_variance_ratio_is_compared_with_one_and_selected_scores_still_draw():
    scores = some_scores().assign_coords(metric=["rmse", "acc", "small_scale_variance"])
    figure = plot.scores(scores.sel(metric="small_scale_variance"), variables="t2m")
    (axes,) = figure.axes
    assert axes.get_ylabel().replace("\n", " ") == "Small-scale variance ratio"
    (reference,) = [line for line in axes.lines if line.get_label().startswith("_")]
    assert set(reference.get_ydata()) == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "crps"}, "metric=['crps'] not in scores: it has ['rmse', 'acc', 'mae']"),
        ({"variables": ["t2m", "q"]}, "variables=['q'] not in scores: it has ['z500', 't2m']"),
        ({"variables": []}, "variables is empty"),
    ],
)
def test_what_is_not_in_the_scores_is_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plot.scores(some_scores(), **options)


def test_a_forecast_is_not_scores():
    with pytest.raises(ValueError, match=r"no 'system': pass what simvp_climate\.score returns"):
        plot.scores(perfect_forecast(analysis(*GLOBE)))
    with pytest.raises(ValueError, match=r"26 rows of panels are more than 12"):
        plot.scores(some_scores().expand_dims(level=13 * [0]).assign_coords(level=np.arange(13)))


class TestIntervalsAndOthers:
    def test_intervals_are_shaded(self):
        table = scores_with_intervals()
        figure = plot.scores(table, metric="rmse")
        bands = figure.axes[0].collections
        assert len(bands) == 2
        ends = bands[0].get_paths()[0].vertices[:, 1]
        own = table.z500_low.sel(system="SimVPv2", metric="rmse")
        assert ends.min() == pytest.approx(float(own.min()))
        assert not plot.scores(table.drop_vars(["z500_low", "z500_high"]), metric="rmse").axes[0].collections

    def test_skill_has_a_line_at_zero(self):
        panel = plot.scores(scores_with_intervals(), metric="rmse_skill_vs_persistence").axes[0]
        assert " ".join(panel.get_ylabel().split()) == "RMSE skill over persistence"
        assert any((np.asarray(line.get_ydata()) == 0).all() and line.get_linestyle() == ":" for line in panel.lines)

    def test_others_are_letters_on_the_same_grid_only(self):
        table = scores_with_intervals()
        panel = plot.scores(table, metric="rmse", published=published()).axes[0]
        lines = {line.get_label(): line for line in panel.lines}
        assert {"IFS T63", "GraphCast"} <= set(lines)
        words = {text.get_text() for text in panel.figure.legends[0].get_texts()}
        assert {"SimVPv2", "persistence", "IFS T63", "GraphCast"} <= words
        places = {(float(x), float(y)) for line in lines.values() for x, y in zip(*line.get_data(), strict=True)}
        assert (3.0, 267.61) in places and (5.0, 463.15) in places
        with pytest.raises(ValueError, match="errors on different grids cannot be compared"):
            plot.scores(table.assign_attrs(grid="72 longitudes x 36 latitudes"), published=published())


class TestPublished:
    def test_only_at_the_leads_that_are_verified(self):
        table = scores_with_intervals()
        panel = plot.scores(table.sel(lead_time=["1D", "3D"]), metric="rmse", published=published()).axes[0]
        letters = [text for text in panel.texts if text.get_text()[0].isalpha() and len(text.get_text()) <= 2]
        assert letters and {text.xy[0] for text in letters} == {3.0}
        with pytest.raises(ValueError, match="none is a lead of the scores"):
            plot.scores(table.sel(lead_time=["1D"]), metric="rmse", published=published())

    @pytest.mark.parametrize(("part", "value"), [("region", "tropics"), ("season", "DJF"), ("month", 3)])
    def test_not_beside_scores_of_a_part_of_the_globe_or_the_year(self, part, value):
        table = scores_with_intervals()
        with pytest.raises(ValueError, match=f"the scores are of {part} .*{value}.* of the globe and whole years"):
            plot.scores(table.assign_coords({part: value}), metric="rmse", published=published())
        plot.scores(table.assign_coords(region="global"), metric="rmse", published=published())

    def test_letters_do_not_lie_upon_each_other_nor_outside(self):
        table = scores_with_intervals()
        for width in (None, 5):
            figure = plot.scores(table, metric="rmse", published=published(), width=width)
            pixels(figure)
            panel = figure.axes[0]
            letters = [text for text in panel.texts if text.get_text() != "skilful"]
            own = published()
            own = own[(own.variable == "z500") & (own.metric == "rmse") & own.lead_hours.isin([24, 72, 120])]
            assert len(letters) == (own.grid == table.grid).sum()  # none is left out
            boxes = [text.get_window_extent() for text in letters]
            for number, box in enumerate(boxes):
                assert panel.bbox.y0 - 3 <= box.y0 and box.y1 <= panel.bbox.y1 + 3
                assert box.x1 <= figure.bbox.x1
                for other in boxes[:number]:
                    wide = min(box.x1, other.x1) - max(box.x0, other.x0)
                    high = min(box.y1, other.y1) - max(box.y0, other.y0)
                    assert min(wide, high) < 2.5

    def test_the_legend_says_what_truth_and_years(self):
        table = scores_with_intervals()
        (legend,) = plot.scores(table, metric="rmse", published=published()).legends
        words = " ".join(legend.get_title().get_text().split())
        assert words.startswith("Letters: published, against ERA5 2017-2018")
        assert "2020 (GraphCast)" in words and "Curves: against the truth of these scores, 2001-01-0" in words

    def test_units_are_those_of_the_scores(self):
        table = scores_with_intervals().rename(z500="tp6h", z500_low="tp6h_low", z500_high="tp6h_high")
        table["tp6h"].attrs["units"] = "m"
        (row,) = published().query("model == 'IFS T63'").head(1).to_dict("records")
        rain = pd.DataFrame([{**row, "variable": "tp6h", "value": 2.5, "units": "mm", "lead_hours": 72}])
        panel = plot.scores(table, metric="rmse", published=rain).axes[0]
        (line,) = [line for line in panel.lines if line.get_label() == "IFS T63"]
        assert line.get_ydata()[0] == pytest.approx(0.0025)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (published().iloc[:0], "published has no rows"),
            ({"z500": 1}, "published is dict: give sc.metrics.published"),
            (pd.DataFrame({"model": ["a"]}), r"published is \['model'\]: give sc.metrics.published"),
            (published().query("variable == 't2m'"), r"nothing in published is \['rmse'\] of \['z500'\]"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, given, message):
        with pytest.raises(ValueError, match=message):
            plot.scores(scores_with_intervals(), metric="rmse", published=given)
