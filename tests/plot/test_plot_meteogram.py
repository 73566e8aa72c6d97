"""Meteograms."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, curves, own_axes, perfect_forecast
from plot_layout import check_layout

from simvp_climate import plot
from simvp_climate.data.conversions import to_valid_time

LATITUDE, LONGITUDE = np.arange(-80.0, 81, 10), np.arange(0, 360, 10.0)


def plane(steps=12):
    """Analyses that increase by 1 K for each degree of latitude, 0.1 K for each of longitude, and with each step."""
    return analysis(LATITUDE, LONGITUDE, 280 + LATITUDE[:, None] + 0.1 * LONGITUDE, steps=steps)


def members_of(forecast, count):
    """The forecast plus -2, -1, ... K."""
    return xr.concat([forecast + k for k in range(-(count // 2), count - count // 2)], "number", coords="minimal")


def test_nearest_cell_and_interpolation():
    truth = plane()
    forecast = perfect_forecast(truth)
    figure = plot.meteogram(forecast, truth, latitude=42, longitude=-328, init="2018-01-01T06")
    (panel,) = figure.axes
    lines = curves(panel)
    # the cell at 40 N, 30 E: steps 2, 3 and 4
    np.testing.assert_allclose(lines["forecast"].get_ydata(), 280 - 273.15 + 40 + 3 + np.array([2, 3, 4]))
    np.testing.assert_allclose(lines["truth"].get_ydata(), lines["forecast"].get_ydata())
    assert figure.get_suptitle() == "40°N 30°E, from 2018-01-01 06 UTC"
    assert panel.get_xlabel() == "Valid time (2018)" and panel.get_title() == "2 metre temperature"
    options = dict(latitude=42, longitude=32, init="2018-01-01T06", method="bilinear")
    line = curves(plot.meteogram(forecast, **options).axes[0])["forecast"]
    np.testing.assert_allclose(line.get_ydata(), 280 - 273.15 + 42 + 3.2 + np.array([2, 3, 4]))
    # across Greenwich, 350 E and 0 E, with longitudes and latitudes in another order
    turned = forecast.isel(latitude=slice(None, None, -1)).roll(longitude=7, roll_coords=True)
    line = curves(plot.meteogram(turned, latitude=0, longitude=-2.5, method="bilinear").axes[0])["forecast"]
    np.testing.assert_allclose(line.get_ydata(), 280 - 273.15 + 0.25 * 35 + np.array([4, 5, 6]))


def test_truth_is_drawn_where_there_is_some():
    truth = plane(steps=6)
    forecast = perfect_forecast(plane())
    line = curves(plot.meteogram(forecast, truth, latitude=0, longitude=0).axes[0])["truth"]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="none of the valid times"):
        plot.meteogram(forecast, truth.isel(time=slice(0, 3)), latitude=0, longitude=0)


def test_few_members_are_lines_and_many_are_bands():
    forecast = members_of(perfect_forecast(plane()), 5)
    panel = plot.meteogram(forecast, latitude=0, longitude=0, units="K").axes[0]
    values = np.array([line.get_ydata() for line in panel.lines])
    np.testing.assert_allclose(values[:5, 0], 284 + np.arange(-2, 3))
    np.testing.assert_allclose(curves(panel)["mean of the members"].get_ydata(), [284, 285, 286])
    many = members_of(perfect_forecast(plane()), 11)
    figure = plot.meteogram(many, latitude=0, longitude=0, units="K")
    wide, narrow = figure.axes[0].collections
    # of -5 to 5 K, the middle 80 % lie between -4 and 4, half between -2.5 and 2.5
    assert wide.get_paths()[0].vertices[:, 1].min() == pytest.approx(284 - 4)
    assert narrow.get_paths()[0].vertices[:, 1].max() == pytest.approx(286 + 2.5)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["middle 80 % of members", "middle 50 % of members", "median of the members"]


def test_interval_and_climatology():
    truth = plane()
    forecast = perfect_forecast(truth)
    interval = xr.concat([forecast - 3, forecast + 3], pd.Index(["lower", "upper"], name="bound"), coords="minimal")
    interval["t2m"].attrs["interval_probability"] = 0.9
    hours = xr.DataArray([0, 6, 12, 18], dims="hour", name="hour")
    normal = (truth.isel(time=0, drop=True) - 1).expand_dims(hour=hours, dayofyear=np.arange(1, 367))
    options = dict(latitude=0, longitude=0, interval=interval, climatology=normal, units="K")
    figure = plot.meteogram(forecast, truth, **options)
    (panel,) = figure.axes
    vertices = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (vertices.min(), vertices.max()) == (281, 289)
    np.testing.assert_allclose(curves(panel)["climatology"].get_ydata(), [279, 279, 279])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["climatology", "90 % interval", "forecast", "truth"]
    # the members of a climatological ensemble are a band
    climate = members_of(forecast, 11)
    panel = plot.meteogram(forecast, latitude=0, longitude=0, climatology=climate, units="K").axes[0]
    assert panel.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(284 - 4)


def test_units_are_those_of_charts_or_requested():
    truth = plane()
    forecast, point = perfect_forecast(truth), dict(latitude=0, longitude=0)
    both = forecast.assign(z500=(0 * forecast.t2m + 98.0665 * 540).assign_attrs(units="m2 s-2"))
    interval = xr.concat([both - 98.0665, both + 98.0665], pd.Index(["lower", "upper"], name="bound"), coords="minimal")
    temperature, height = plot.meteogram(both, interval=interval, **point).axes
    np.testing.assert_allclose(curves(temperature)["forecast"].get_ydata(), np.array([284, 285, 286]) - 273.15)
    np.testing.assert_allclose(curves(height)["forecast"].get_ydata(), 540)
    vertices = height.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([vertices.min(), vertices.max()], [539, 541])
    assert (temperature.get_ylabel(), height.get_ylabel()) == ("[°C]", "[gpdam]")
    panel = plot.meteogram(forecast, truth, units={"t2m": "K"}, **point).axes[0]
    np.testing.assert_allclose(curves(panel)["truth"].get_ydata(), [284, 285, 286])
    # anomalies convert without an offset
    anomaly = xr.merge([forecast - 280, forecast.coords]).assign_attrs(forecast.attrs)
    anomaly["t2m"].attrs = forecast.t2m.attrs
    panel = plot.meteogram(anomaly, **point).axes[0]
    np.testing.assert_allclose(curves(panel)["forecast"].get_ydata(), [4, 5, 6])
    assert panel.get_ylabel() == "[K]"


@pytest.mark.parametrize("width", [3.5, 7, 16])
def test_texts_are_inside_and_apart(width):
    truth = analysis(*GLOBE, steps=40)
    forecast = members_of(perfect_forecast(truth, leads=20), 4)
    both = forecast.assign(z500=forecast.t2m.assign_attrs(units="m2 s-2", long_name="Geopotential at 500 hPa"))
    truth = truth.assign(z500=truth.t2m)
    check_layout(plot.meteogram(both, truth, latitude=-33.4, longitude=-70.7, width=width))


def test_unsuitable_arguments_are_refused():
    forecast = perfect_forecast(plane())
    region = forecast.sel(longitude=slice(100, 200), latitude=slice(0, 50))
    for data, options, message in (
        (forecast, {"latitude": 95}, "latitude=95.* outside the grid of forecast, -80 to 80 N"),
        (region, {"longitude": 50}, "longitude=50 is outside"),
        (forecast, {"method": "cubic"}, "'cubic' must be 'nearest' or 'bilinear'"),
        (forecast, {"variables": "q"}, "q.* is not in forecast"),
        (forecast, {"init": "1999-01-01"}, "1999-01-01.* is not in forecast"),
        (forecast, {"interval": forecast}, "no bound: pass forecaster.interval"),
        (forecast, {"units": "hPa"}, "units='hPa' of 't2m' must be a unit that 'K' converts to"),
        (forecast, {"units": {"q": "g/kg"}}, "units has 'q', which is not shown"),
        (forecast, {"ax": own_axes((1, 2))[1]}, "2 axes.* 1 panels"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.meteogram(data, **{"latitude": 0, "longitude": 0, **options})


def test_a_single_initialization():
    forecast = perfect_forecast(plane()).isel(init_time=0)
    line = curves(plot.meteogram(forecast, latitude=0, longitude=0, units="K").axes[0])["forecast"]
    np.testing.assert_allclose(line.get_ydata(), [281, 282, 283])
    assert to_valid_time(forecast).sizes["time"] == 3
