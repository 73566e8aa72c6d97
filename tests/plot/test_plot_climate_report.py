"""Figures of climate reports: what is drawn, and that no text is cut or lies on another."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from matplotlib.collections import QuadMesh
from plot_factories import colors_at, pixels
from plot_layout import check_layout

from simvp_climate import plot
from simvp_climate.metrics.climate.report import climate_report

LATITUDE, LONGITUDE = np.arange(-82.5, 90, 15), np.arange(0, 360, 15.0)


def monthly(years, start, seed, bias=0.0):
    """Return monthly temperatures at 500 hPa, and their geopotential at two levels."""
    times = pd.date_range(start, periods=12 * years, freq="MS", unit="ns")
    random = np.random.default_rng(seed)
    cycle = np.cos(2 * np.pi * (times.month.values - 7) / 12)[:, None, None] * np.sin(np.deg2rad(LATITUDE))[:, None]
    values = 280 + 10 * cycle + random.normal(size=(len(times), len(LATITUDE), len(LONGITUDE))) + bias
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    t2m = xr.DataArray(values, coords, tuple(coords), attrs={"units": "K"})
    z = xr.concat([190 * t2m, 60 * t2m], pd.Index([500.0, 850.0], name="level")).transpose("time", "level", ...)
    z["level"].attrs = {"units": "hPa"}
    return xr.Dataset({"t2m": t2m, "z": z.assign_attrs(units="m2 s-2")})


@pytest.fixture(scope="module")
def report():
    east = xr.DataArray(np.where(LONGITUDE < 180, 2.0, -2.0), {"longitude": LONGITUDE}, "longitude")
    members = [monthly(6, "2011", seed) for seed in (1, 2)]
    members = [each.assign(t2m=(each.t2m + east).assign_attrs(units="K")) for each in members]
    run = xr.concat(members, pd.Index([0, 1], name="number")).transpose("time", "number", ...)
    return climate_report(run.assign_attrs(system="SimVPSphere"), monthly(4, "2001", 0))


@pytest.mark.parametrize("width", [3.5, 7, 12])
@pytest.mark.parametrize("field", [{"variable": "t2m"}, {"variable": "z", "level": 500.0}])
def test_no_text_is_cut_or_lies_on_another(report, field, width):
    figure = plot.climate_report(report, **field, width=width)
    check_layout(figure)
    # the figure has that width, and something is drawn
    assert figure.get_size_inches()[0] == width and pixels(figure).std() > 0.05


def test_the_map_is_of_all_members_with_dots_where_significant(report):
    figure = plot.climate_report(report, variable="t2m", width=7)
    panel = figure.axes[0]
    warm, cold = colors_at(figure, panel, [60, -60], [2, 2])
    assert warm[0] > warm[2] and cold[2] > cold[0]
    dots = [c for c in panel.collections if not isinstance(c, QuadMesh) and len(c.get_offsets()) > 1]
    assert len(dots[0].get_offsets()) == int(report.t2m_bias_significant.sel(member="all").sum()) > 100
    assert figure.get_suptitle().replace("\n", " ").startswith("t2m of SimVPSphere: 2011-01-01 to 2017-01-01 (6 years")


def test_panels_show_the_numbers_of_the_report(report):
    figure = plot.climate_report(report, variable="t2m")
    panels = {axes.get_title().split(",")[0].replace("\n", " "): axes for axes in figure.axes}
    zonal = panels["Zonal mean"].lines[0].get_ydata()
    expected = (report.t2m_zonal_mean.sel(member="all") - report.t2m_zonal_mean_truth).values
    np.testing.assert_allclose(zonal, expected)
    amplitude = next(axes for axes in figure.axes if axes.get_title() == "Annual cycle, amplitude")
    np.testing.assert_allclose(amplitude.lines[0].get_ydata(), report.t2m_amplitude_ratio.sel(member="all"))
    low, high = (float(report[f"t2m_amplitude_ratio_truth_{end}"].sel(band=75)) for end in ("min", "max"))
    gray = amplitude.collections[0].get_paths()[0].vertices
    at_75 = gray[gray[:, 0] == 75, 1]
    np.testing.assert_allclose([at_75.min(), at_75.max()], [low, high])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["run", "members", "truth", "single years of the truth", "variance of annual means"]


def test_a_run_without_members():
    single = climate_report(monthly(1, "2011", 1), monthly(2, "2001", 0))
    figure = plot.climate_report(single, variable="t2m", width=7)
    check_layout(figure)
    assert "2012-01-01 (1 year), truth" in figure.get_suptitle().replace("\n", " ")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["run", "truth", "single years of the truth"]
    panel = next(axes for axes in figure.axes if axes.get_title() == "Annual global mean")
    np.testing.assert_allclose(panel.lines[0].get_ydata(), single.t2m_global_mean_truth)


def test_panels_without_data_are_left_out(report):
    names = ("bias", "bias_significant", "rmse", "zonal_mean", "zonal_mean_truth")
    part = report[[f"t2m_{name}" for name in names]].sel(member="all", drop=True)
    titles = [axes.get_title() for axes in plot.climate_report(part, title="mine").axes if axes.get_title()]
    assert len(titles) == 2 and titles[1] == "Zonal mean"


def test_errors(report):
    with pytest.raises(ValueError, match=r"has \['t2m', 'z'\], but one is drawn. Choose: variable='t2m'"):
        plot.climate_report(report)
    with pytest.raises(ValueError, match="variable='sst' is not in the report"):
        plot.climate_report(report, variable="sst")
    with pytest.raises(ValueError, match=r"level=700.0 of 'z' must be one of \[500.0, 850.0\]"):
        plot.climate_report(report, variable="z", level=700.0)
    with pytest.raises(ValueError, match="level=500 does not apply: t2m has no levels"):
        plot.climate_report(report, variable="t2m", level=500)
    with pytest.raises(ValueError, match=r"Pass the output of sc\.metrics\.climate_report"):
        plot.climate_report(report[["t2m_rmse"]])
