"""Maps and score curves: what is drawn where, in which color, with which words, and without a network."""

import re
import socket

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb

from simvp_climate import plot
from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.published_scores import published
from simvp_climate.metrics.score import score
from simvp_climate.metrics.spectral import variance_by_wavenumber, zonal_spectrum
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap

HOT, MIDDLE = (tuple(matplotlib.colormaps["viridis"](x)[:3]) for x in (1.0, 0.5))
GRAY = to_rgb("0.85")
GLOBE = (np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a map needs no network")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []


def analysis(lat, lon, values=None, *, steps=8, names=("latitude", "longitude")):
    """Six-hourly truth from 2018-01-01, the same field at all times, plus the number of the step."""
    lat, lon = np.asarray(lat, float), np.asarray(lon, float)
    if values is None:
        values = 280 + 20 * np.cos(np.deg2rad(lat))[:, None] + 5 * np.sin(np.deg2rad(lon))[None, :]
    time = np.datetime64("2018-01-01T00", "ns") + np.arange(steps) * np.timedelta64(6, "h")
    data = np.broadcast_to(values, (len(lat), len(lon))) + np.arange(steps)[:, None, None]
    return xr.Dataset(
        {"t2m": (("time", *names), data, {"units": "K", "long_name": "2 metre temperature"})},
        coords={
            "time": time,
            names[0]: (names[0], lat, {"units": "degrees_north"}),
            names[1]: (names[1], lon, {"units": "degrees_east"}),
        },
    )


def perfect_forecast(truth, *, inits=4, leads=3):
    """The truth itself, on (init_time, lead_time, ...)."""
    starts = truth["time"].values[:inits]
    ahead = np.arange(1, leads + 1) * np.timedelta64(6, "h")
    valid = xr.DataArray(
        starts[:, None] + ahead,
        dims=("init_time", "lead_time"),
        coords={"init_time": starts, "lead_time": ahead},
    )
    return truth.sel(time=valid).drop_vars("time").assign_coords(valid_time=valid)


def pixels(figure, dpi=100):
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255


def colors_at(figure, axes, lon, lat, dpi=100):
    """The colors of the picture at points of a map."""
    image = pixels(figure, dpi)
    x, y, _ = axes.projection.transform_points(ccrs.PlateCarree(), np.asarray(lon, float), np.asarray(lat, float)).T
    column, row = axes.transData.transform(np.stack([x, y], axis=-1)).astype(int).T
    return image[row, column]


def meshes(axes):
    return [artist for artist in axes.collections if isinstance(artist, QuadMesh)]


def near(color, expected):
    return np.abs(np.asarray(color) - expected).max(axis=-1) < 0.02


# ---- maps: places and colors -----------------------------------------------------------------------------


GRIDS = {
    "0..360": GLOBE,
    "-180..180, descending": (GLOBE[0][::-1], np.arange(-180, 180, 5.625)),
    "lat and lon, centers off the edge": (np.linspace(-90, 90, 37), np.arange(2.5, 360, 5)),
    "region, descending, across Greenwich": (np.arange(70, 29, -2.5), np.arange(-20, 106, 2.5)),
    "region across the date line": (np.arange(-30, 61, 2.5), np.arange(80, 252, 2.5)),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_one_hot_cell_is_drawn_where_it_is(grid):
    lat, lon = GRIDS[grid]
    row, column = np.abs(lat - 45).argmin(), np.abs(lon - 90).argmin()
    values = np.zeros((len(lat), len(lon)))
    values[row, column] = 1
    names = ("lat", "lon") if grid.startswith("lat") else ("latitude", "longitude")
    figure = plot.maps(perfect_forecast(analysis(lat, lon, values, names=names), inits=1, leads=1))
    axes = figure.axes[0]
    assert near(colors_at(figure, axes, [lon[column]], [lat[row]]), HOT).all()
    # two cells away all around, and no coast there
    step = 2 * abs(lat[1] - lat[0])
    around = colors_at(
        figure, axes, lon[column] + np.array([step, -step, 0, 0]), lat[row] + np.array([0, 0, step, -step])
    )
    assert near(around, MIDDLE).all()


@pytest.mark.parametrize(("first", "center"), [(0, 0), (0, 180), (0, 37), (-180, 180), (2.8125, 0)])
def test_no_seam_and_no_gap_round_the_globe(first, center):
    lat, lon = GLOBE[0], GLOBE[1] + first
    truth = analysis(lat, lon, 0, steps=2)
    figure = plot.maps(perfect_forecast(truth, inits=1, leads=1), projection=ccrs.Robinson(central_longitude=center))
    # the open Pacific, Atlantic, Africa: every tenth of a degree along latitudes with few coasts
    every = np.arange(center - 179.9, center + 179.95, 0.1)
    for latitude in (-52.3, 3.1, 46.7):
        seen = colors_at(figure, figure.axes[0], every, np.full_like(every, latitude))
        assert not near(seen, GRAY).any()
        assert not near(seen, (1, 1, 1)).any()


@pytest.mark.parametrize(
    "projection",
    [None, ccrs.Robinson(180), ccrs.EqualEarth(), ccrs.PlateCarree(), ccrs.Orthographic(150, 10)],
)
def test_cells_without_values_stay_gray(projection):
    lat, lon = GLOBE
    truth = analysis(lat, lon)
    hidden = (truth.latitude > 0) & (truth.latitude < 45) & (truth.longitude > 140) & (truth.longitude < 220)
    hidden = hidden | (truth.latitude < -70)
    figure = plot.maps(perfect_forecast(truth.where(~hidden), inits=1, leads=1), projection=projection)
    axes = figure.axes[0]
    # one layer: cartopy's second one, for cells across the edge, is where missing values get painted
    assert len([artist for artist in axes.collections if artist.get_array() is not None]) == 1
    inside = [(150, 20), (170, 30), (179, 10), (-179, 10), (-170, 30), (-150, 35), (150, -78)]
    outside = [(150, -40), (170, -30), (179, -10), (-179, -10), (-170, -30), (-150, -40), (129, 30)]
    if isinstance(projection, ccrs.Orthographic):
        inside = inside[:4]
    else:
        inside += [(lon, -80) for lon in range(10, 150, 20)]
        outside += [(-100, 0), (20, 10), (-30, 20), (75, -20)]
    assert near(colors_at(figure, axes, *zip(*inside, strict=True)), GRAY).all()
    assert not near(colors_at(figure, axes, *zip(*outside, strict=True)), GRAY).any()


def test_coastlines_are_drawn():
    truth = analysis(*GLOBE, 0, steps=2)
    figure = plot.maps(perfect_forecast(truth, inits=1, leads=1), projection=ccrs.PlateCarree())
    lon = np.arange(-10, 40, 0.05)
    # along 20 N: the Atlantic coast of Africa at 16 W is outside, the Red Sea has coasts at 37 E and 40 E
    seen = colors_at(figure, figure.axes[0], lon, np.full_like(lon, 20.0), dpi=200)
    dark = lon[seen.max(axis=-1) < 0.35]
    assert len(dark)
    assert ((dark > 36) & (dark < 41)).all()


# ---- maps: numbers and words -----------------------------------------------------------------------------


def test_three_maps_share_scales_and_say_what_they_show():
    truth = analysis(*GLOBE)
    forecast = perfect_forecast(truth, inits=4, leads=3)
    # north of 45 N lies (1 - sin 45) / 2 of the globe
    forecast["t2m"] = (forecast["t2m"] + (forecast.latitude > 45)).assign_attrs(truth["t2m"].attrs)
    figure = plot.maps(forecast.transpose(..., "init_time"), truth, lead="12h", init="2018-01-01T06")
    first, second, third = figure.axes[:3]
    assert meshes(first)[0].get_clim() == meshes(second)[0].get_clim()
    low, high = meshes(third)[0].get_clim()
    assert low == -high < 0
    assert meshes(third)[0].get_cmap().name == "RdBu_r"
    assert sorted(np.unique(meshes(third)[0].get_array().round(6))) == [0, 1]
    assert first.get_title() == "Forecast +12 h"
    assert second.get_title() == "Truth"
    assert third.get_title() == f"Forecast minus truth, RMSE {np.sqrt((1 - np.sqrt(0.5)) / 2):.3f} K"
    assert figure.get_suptitle() == "From 2018-01-01 06 UTC, valid 2018-01-01 18 UTC"
    assert [axes.get_xlabel() for axes in figure.axes[3:]] == ["2 metre temperature [K]", "Difference [K]"]
    assert figure.get_size_inches()[0] == 12


def test_truth_in_another_order_and_larger_is_matched_by_its_coordinates():
    truth = analysis(*GLOBE)
    shifted = truth.assign_coords(longitude=(truth.longitude + 180) % 360 - 180).sortby("longitude")
    region = shifted.sortby("latitude", ascending=False).sel(latitude=slice(60, 10), longitude=slice(-60, 60))
    forecast = perfect_forecast(region).rename(latitude="lat", longitude="lon")
    figure = plot.maps(forecast, truth.transpose("longitude", "time", "latitude"))
    assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 0 K"
    west, east, south, north = figure.axes[0].get_extent(ccrs.PlateCarree())
    cells = region.longitude.values, region.latitude.values
    np.testing.assert_allclose((west, east), (cells[0].min() - 2.8125, cells[0].max() + 2.8125))
    np.testing.assert_allclose((south, north), (cells[1].min() - 2.8125, cells[1].max() + 2.8125))


def test_default_is_the_last_lead_of_the_last_init_with_truth():
    truth = analysis(*GLOBE, steps=8)
    forecast = perfect_forecast(truth, inits=5, leads=3)
    figure = plot.maps(forecast, truth.isel(time=slice(0, 6)))
    assert figure.get_suptitle() == "From 2018-01-01 12 UTC, valid 2018-01-02 06 UTC"
    one = forecast.isel(init_time=1, lead_time=0)
    figure = plot.maps(one, truth, title="mine", width=7)
    assert figure.get_suptitle() == "mine"
    assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 0 K"
    assert figure.get_size_inches()[0] == 7


def test_a_row_for_each_variable_and_level():
    truth = analysis(*GLOBE)
    truth["geopotential"] = truth["t2m"].expand_dims(level=[500, 850]).assign_attrs(units="m**2 s**-2")
    truth["level"].attrs["units"] = "hPa"
    forecast = perfect_forecast(truth, inits=1, leads=1)
    figure = plot.maps(forecast)
    labels = [axes.get_xlabel() for axes in figure.axes[3:]]
    assert labels == [
        "2 metre temperature [K]",
        "2 metre temperature, 500 hPa [m² s⁻²]",
        "2 metre temperature, 850 hPa [m² s⁻²]",
    ]
    figure = plot.maps(forecast, variable="geopotential", level=850)
    assert len(figure.axes) == 2


def test_months_on_another_calendar():
    months = xr.date_range("2001-01", periods=14, freq="MS", calendar="noleap", use_cftime=True)
    truth = analysis(*GLOBE, steps=14).assign_coords(time=months)
    valid = xr.DataArray(
        np.array([[months[init + lead] for lead in (1, 2)] for init in (10, 11)]),
        dims=("init_time", "lead_time"),
        coords={"init_time": months[10:12], "lead_time": ("lead_time", [1, 2], {"units": "months"})},
    )
    forecast = truth.sel(time=valid).drop_vars("time").assign_coords(valid_time=valid)
    figure = plot.maps(forecast, truth, lead=1, init="2001-12")
    assert figure.axes[0].get_title() == "Forecast +1 month"
    assert figure.axes[2].get_title().endswith("RMSE 0 K")
    assert figure.get_suptitle() == "From 2001-12, valid 2002-01"


def test_nothing_but_gaps_is_drawn_gray():
    truth = analysis(*GLOBE, steps=2)
    figure = plot.maps(perfect_forecast(truth * np.nan, inits=1, leads=1), truth)
    assert figure.axes[2].get_title() == "Forecast minus truth, RMSE -"
    assert near(colors_at(figure, figure.axes[0], [-30, 90], [30, 45]), GRAY).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "z500"}, "variable=['z500'] not in forecast: it has ['t2m']"),
        ({"lead": "2D"}, "lead='2D' not in forecast: it has +6 h, +12 h, +18 h"),
        ({"lead": 6}, 'lead=6 cannot be read: write lead="3D" or "12h"'),
        ({"lead": "soon"}, "lead='soon' cannot be read"),
        ({"init": "2020-01-01"}, "init='2020-01-01' not in forecast: it has 4 times from 2018-01-01 00 UTC"),
        ({"level": 500}, "level=500 was given, but ['t2m'] have no level dimension"),
    ],
)
def test_what_is_not_in_the_forecast_is_named(options, message):
    forecast = perfect_forecast(analysis(*GLOBE))
    with pytest.raises(ValueError, match=re.escape(message)):
        plot.maps(forecast, **options)


def test_truth_that_does_not_fit_is_named():
    truth = analysis(*GLOBE)
    forecast = perfect_forecast(truth)
    celsius = truth.copy()
    celsius["t2m"] = truth["t2m"].assign_attrs(units="degC")
    for other, message in [
        (
            truth.isel(time=[0]),
            "no truth at lead +18 h: the forecast is valid at 4 times from 2018-01-01 18 UTC",
        ),
        (truth.isel(time=0, drop=True), "and no time"),
        (truth.rename(t2m="t"), "truth: no variable 't2m' in this dataset, which has ['t']"),
        (celsius, "'t2m' is in 'K' in forecast and in 'degC' in truth"),
        (truth.isel(latitude=slice(0, 16)), "truth has no latitude 2.8125 (16 of 32"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            plot.maps(forecast, other)
    with pytest.raises(ValueError, match=r"no coordinate 'valid_time'"):
        plot.maps(forecast.drop_vars("valid_time"))
    members = forecast.expand_dims(member=[0, 1])
    with pytest.raises(ValueError, match=r"dimension 'member' of size 2: .*forecast.isel\(member=0\)"):
        plot.maps(members)


# ---- scores ----------------------------------------------------------------------------------------------


def some_scores(hours=12, leads=6):
    numbers = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 3, leads))
    numbers[:, 2, 1] = np.nan  # the climatology has no ACC
    dims = ("system", "metric", "lead_time")
    return xr.Dataset(
        {
            "z500": (dims, numbers[0], {"units": "m2 s-2", "long_name": "geopotential at 500 hPa"}),
            "t2m": (dims, numbers[1], {"units": "K"}),
        },
        coords={
            "system": ["persistence", "SimVPv2", "climatology"],
            "metric": ["rmse", "acc", "mae"],
            "lead_time": np.arange(1, leads + 1) * np.timedelta64(hours, "h"),
        },
    )


def curves(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


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


# ---- history ---------------------------------------------------------------------------------------------


def some_history(first=8.0, epochs=4):
    """Losses that halve every epoch, those of validation until the third one."""
    loss = first * 0.5 ** np.arange(epochs)
    valid = np.where(np.arange(epochs) < 3, 1.5 * loss, first)
    columns = {"learning_rate": 0 * loss, "loss": loss, "valid_loss": valid}
    columns |= {f"valid_rmse_{name}": 100 * valid for name in ("z500_6h", "z500_24h", "t2m")}
    table = pd.DataFrame(columns, index=pd.RangeIndex(1, epochs + 1, name="epoch"))
    table.attrs["units"] = {"valid_rmse_z500_6h": "m2 s-2", "valid_rmse_z500_24h": "m2 s-2"}
    return table


def rings(axes):
    """Where the kept epochs are marked."""
    found = [line for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in found]


def test_a_history_is_drawn_as_it_is():
    table = some_history()
    figure = plot.training_curve(table)
    losses, z500, t2m = figure.axes
    drawn = curves(losses)
    assert set(drawn) == {"training", "validation", "kept"}
    np.testing.assert_array_equal(drawn["training"].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [8, 4, 2, 1])
    np.testing.assert_array_equal(drawn["validation"].get_ydata(), [12, 6, 3, 8])
    assert rings(losses) == [(3, 3.0)] and losses.get_yscale() == "log"  # 1 to 12
    assert set(curves(z500)) == {"24 h", "6 h"} and curves(z500)["24 h"].get_linestyle() == "-"
    assert rings(z500) == [(3, 300.0), (3, 300.0)] and rings(t2m) == [(3, 300.0)]
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "RMSE [m² s⁻²]", "RMSE"]
    assert [axes.get_title() for axes in figure.axes] == ["Training", "Validation, z500", "Validation, t2m"]
    assert pixels(figure).size


def test_histories_side_by_side():
    first, second = some_history(4.0), some_history(40.0, epochs=6)
    figure = plot.training_curve({"zeros": first, "sphere": second.reset_index()})  # as read from a CSV file
    losses, z500, _ = figure.axes
    assert set(curves(losses)) == {
        f"{name}, {part}" for name in ("zeros", "sphere") for part in ("training", "validation")
    } | {"kept"}
    np.testing.assert_array_equal(curves(losses)["sphere, training"].get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(curves(z500)["zeros, 6 h"].get_ydata(), 100 * first["valid_loss"])
    low, high = z500.get_ylim()
    assert low == 0 and high > 6000, "the second run must fit in"
    for name in ("zeros", "sphere"):
        colors = {line.get_color() for axes in figure.axes for label, line in curves(axes).items() if name in label}
        assert len(colors) == 1


def test_without_validation_the_last_epoch_is_kept(forecaster):
    figure = plot.training_curve(some_history()[["loss"]] + 30)
    (axes,) = figure.axes
    assert set(curves(axes)) == {"training", "kept"} and rings(axes) == [(4, 31.0)]
    assert axes.get_yscale() == "linear"
    drawn = curves(plot.training_curve(forecaster).axes[0])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [forecaster.provenance["epochs"][0]["loss"]])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({}, "histories is empty: give at least one"),
        ([some_history()], "histories is a list: give a Forecaster or its training_curve"),
        ({"a": some_scores()}, "histories has 'a', which is a Dataset: give a Forecaster"),
        (some_history()[["valid_rmse_t2m"]], "histories is a DataFrame: give a Forecaster or its training_curve"),
        (some_history().iloc[:0], "histories has no epoch: nothing was trained yet"),
    ],
)
def test_what_is_no_history_is_said(histories, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plot.training_curve(histories)


def test_histories_in_different_units_are_not_drawn_together():
    other = some_history()
    other.attrs["units"] = {"valid_rmse_z500_6h": "gpm"}
    with pytest.raises(ValueError, match=r"the errors of z500 are in \['gpm', 'm2 s-2'\]: draw the runs one by one"):
        plot.training_curve({"a": some_history(), "b": other})


class TestIntervalsAndOthers:
    def table(self):
        times = pd.date_range("2001-01-01", periods=160, freq="6h", unit="ns")
        random = np.random.default_rng(0)
        truth = xr.Dataset(
            {
                "z500": (
                    ("time", "latitude", "longitude"),
                    random.normal(54000, 900, (160, 32, 64)),
                    {"units": "m2 s-2"},
                )
            },
            {"time": times, "latitude": np.arange(-87.1875, 90, 5.625), "longitude": np.arange(0, 360, 5.625)},
        )
        leads = ["24h", "72h", "120h"]
        forecast = persistence(truth, times[:120:2], leads).assign_attrs(system="SimVPv2")
        forecast["z500"] = forecast.z500 * 0.5 + 27000
        return score(forecast, truth, metrics=["rmse", "rmse_skill"], bootstrap=Bootstrap(block=4))

    def test_intervals_are_shaded(self):
        table = self.table()
        figure = plot.scores(table, metric="rmse")
        bands = figure.axes[0].collections
        assert len(bands) == 2
        ends = bands[0].get_paths()[0].vertices[:, 1]
        own = table.z500_low.sel(system="SimVPv2", metric="rmse")
        assert ends.min() == pytest.approx(float(own.min()))
        assert not plot.scores(table.drop_vars(["z500_low", "z500_high"]), metric="rmse").axes[0].collections

    def test_skill_has_a_line_at_zero(self):
        panel = plot.scores(self.table(), metric="rmse_skill_vs_persistence").axes[0]
        assert " ".join(panel.get_ylabel().split()) == "RMSE skill over persistence"
        assert any((np.asarray(line.get_ydata()) == 0).all() and line.get_linestyle() == ":" for line in panel.lines)

    def test_others_are_letters_on_the_same_grid_only(self):
        table = self.table()
        panel = plot.scores(table, metric="rmse", published=published()).axes[0]
        lines = {line.get_label(): line for line in panel.lines}
        assert {"IFS T63", "GraphCast"} <= set(lines)
        words = {text.get_text() for text in panel.figure.legends[0].get_texts()}
        assert {"SimVPv2", "persistence", "IFS T63", "GraphCast"} <= words
        places = {(float(x), float(y)) for line in lines.values() for x, y in zip(*line.get_data(), strict=True)}
        assert (3.0, 267.61) in places and (5.0, 463.15) in places
        with pytest.raises(ValueError, match="errors on different grids cannot be compared"):
            plot.scores(table.assign_attrs(grid="72 longitudes x 36 latitudes"), published=published())


class TestSkillMap:
    def skill(self):
        latitude, longitude = GLOBE
        leads = np.array([24, 72], "m8[h]").astype("m8[ns]")
        values = np.broadcast_to(np.linspace(-1, 1, 64), (2, 32, 64)).copy()
        significant = np.zeros((2, 32, 64), bool)
        significant[1, :, :8] = True
        dims = ("lead_time", "latitude", "longitude")
        coordinates = {"lead_time": leads, "latitude": latitude, "longitude": longitude}
        variables = {
            "t2m": (dims, values, {"units": "1"}),
            "t2m_p": (dims, values),
            "t2m_significant": (dims, significant),
        }
        return xr.Dataset(variables, coordinates, {"blocks": "12 blocks of 5 initializations"})

    def test_dots_stand_where_it_is_significant(self):
        figure = plot.skill_map(self.skill(), lead=["24h", "72h"])
        first, second = figure.axes[:2]
        dots = [
            [c for c in panel.collections if not isinstance(c, QuadMesh) and len(c.get_offsets()) > 1]
            for panel in (first, second)
        ]
        assert not dots[0] and len(dots[1]) == 1
        places = dots[1][0].get_offsets()
        assert len(places) == 16 * 4 and set(places[:, 0]) == set(GLOBE[1][:8:2])
        assert first.get_title().startswith("t2m") and figure.get_suptitle() == "12 blocks of 5 initializations"

    def test_blue_is_better(self):
        panel = plot.skill_map(self.skill()).axes[0]
        mesh = next(c for c in panel.collections if isinstance(c, QuadMesh))
        low, high = (mesh.cmap(mesh.norm(x)) for x in (-0.9, 0.9))
        assert low[0] > low[2] and high[2] > high[0]

    def test_errors(self):
        with pytest.raises(ValueError, match="pass what simvp_climate.skill_map returns"):
            plot.skill_map(self.skill()[["t2m"]])
        with pytest.raises(ValueError, match="not in forecast"):
            plot.skill_map(self.skill(), lead="48h")


class TestScorecard:
    def test_says_what_the_scores_say(self):
        table = TestIntervalsAndOthers().table()
        figure = plot.scorecard(table)
        panel = figure.axes[0]
        skill = table.z500.sel(system="SimVPv2", metric="rmse_skill_vs_persistence").values
        assert [text.get_text() for text in panel.texts] == [f"{100 * value:.0f}" for value in skill]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1 d", "3 d", "5 d"]
        image = panel.images[0]
        assert image.cmap(image.norm(0.9))[2] > image.cmap(image.norm(0.9))[0]  # blue is better
        # better beyond chance at all leads
        up = [line for line in panel.lines if line.get_marker() == "^"]
        assert len(up[0].get_xdata()) == 3
        assert figure.get_suptitle() == "SimVPv2 against persistence"

    def test_sharpness_stands_beside_it(self):
        table = TestIntervalsAndOthers().table()
        activity = (table.sel(metric=["rmse"]) * 0 + 0.7).assign_coords(metric=["activity"])
        both = xr.concat([table, activity], "metric")
        panels = plot.scorecard(both).axes
        assert panels[1].get_title() == "Activity" and panels[1].texts[0].get_text() == "0.70"

    def test_regions_are_rows_and_errors(self):
        table = TestIntervalsAndOthers().table()
        regions = xr.concat([table, table], xr.DataArray(["tropics", "arctic"], dims="region", name="region"))
        panel = plot.scorecard(regions, leads=["3D"]).axes[0]
        assert [label.get_text() for label in panel.get_yticklabels()] == ["z500, tropics", "z500, arctic"]
        assert len(panel.texts) == 2
        with pytest.raises(ValueError, match="no rmse_skill_vs_climatology"):
            plot.scorecard(table, "climatology")
        with pytest.raises(ValueError, match="system='x' is not in the scores"):
            plot.scorecard(table, system="x")
        with pytest.raises(ValueError, match="lead='2D' not in forecast"):
            plot.scorecard(table, leads=["2D"])


def noisy(steps=12):
    truth = analysis(*GLOBE, steps=steps)
    return truth.assign(t2m=truth.t2m + np.random.default_rng(0).normal(size=truth.t2m.shape))


class TestSpectra:
    def test_ratios_by_lead(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        found = variance_by_wavenumber(forecast.assign(t2m=280 + 2 * (forecast.t2m - 280)), truth)
        panel = plot.spectra(found).axes[0]
        drawn = [line for line in panel.lines if len(line.get_xdata()) == 32]
        assert [line.get_label() for line in drawn] == ["+6 h", "+12 h", "+18 h"]
        np.testing.assert_allclose(drawn[0].get_ydata(), 4, rtol=1e-6)
        assert panel.get_xscale() == "log"

    def test_several_spectra(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        figure = plot.spectra({"model": zonal_spectrum(forecast), "truth": zonal_spectrum(truth)}, lead="6h")
        panel = figure.axes[0]
        assert [line.get_label() for line in panel.lines] == ["model, +6 h", "truth"]
        spectrum = zonal_spectrum(truth).t2m.weighted(latitude_weights(truth)).mean(("time", "latitude"))
        np.testing.assert_allclose(panel.lines[1].get_ydata(), spectrum[1:])
        assert panel.get_ylabel() == "Energy [K² m]"

    def test_errors(self):
        with pytest.raises(ValueError, match="no zonal_wavenumber"):
            plot.spectra(analysis(*GLOBE))
        with pytest.raises(ValueError, match="spectra is empty"):
            plot.spectra({})


class TestHovmoller:
    def test_a_wave_travels(self):
        truth = analysis(*GLOBE, steps=12)
        phase = np.deg2rad(GLOBE[1])[None, None, :] - np.arange(12)[:, None, None] * np.pi / 8
        truth["t2m"] = truth.t2m.copy(data=np.broadcast_to(np.sin(phase), truth.t2m.shape))
        figure = plot.hovmoller(perfect_forecast(truth), truth, latitudes=(0, 30), init="2018-01-01T00")
        first, second, difference = (next(iter(panel.collections)).get_array() for panel in figure.axes[:3])
        np.testing.assert_allclose(first, np.sin(phase[1:4, 0]), atol=1e-6)
        np.testing.assert_allclose(second, first)
        np.testing.assert_allclose(difference, 0, atol=1e-12)
        low, high = figure.axes[0].get_ylim()
        assert low > high  # time runs downwards
        assert figure.get_suptitle() == "From 2018-01-01 00 UTC, 0°N to 30°N"

    def test_analyses_anomalies_and_errors(self):
        truth = analysis(*GLOBE, steps=12)
        figure = plot.hovmoller(truth, anomalies=True)
        cells = next(iter(figure.axes[0].collections)).get_array()
        assert cells.shape == (12, 64)
        np.testing.assert_allclose(cells.mean(axis=1), 0, atol=1e-9)
        with pytest.raises(ValueError, match="no latitude lies in"):
            plot.hovmoller(truth, latitudes=(95, 99))
        with pytest.raises(ValueError, match="truth goes beside a forecast"):
            plot.hovmoller(truth, truth)
        with pytest.raises(ValueError, match="choose one, variable='t2m'"):
            plot.hovmoller(truth.assign(z500=truth.t2m))


class TestFilms:
    def test_a_frame_for_each_lead(self, tmp_path):
        from PIL import Image

        truth = analysis(*GLOBE, steps=12)
        film = plot.animate(perfect_forecast(truth), truth, to=tmp_path / "film.gif", progress=False, width=4)
        assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
        with Image.open(tmp_path / "film.gif") as image:
            assert image.n_frames == 3
            frames = []
            for at in range(3):
                image.seek(at)
                frames.append(np.asarray(image.convert("RGB")).astype(int))
        assert abs(frames[2] - frames[0]).max() > 50
        assert film._fig.axes[0].get_title() == "Forecast +18 h"

    def test_errors(self, tmp_path):
        forecast = perfect_forecast(analysis(*GLOBE))
        with pytest.raises(ValueError, match="ends in .gif or .mp4"):
            plot.animate(forecast, to=tmp_path / "film.avi")
        with pytest.raises(FileNotFoundError, match="no folder"):
            plot.animate(forecast, to=tmp_path / "no" / "film.gif")
        with pytest.raises(ValueError, match="a film shows one field"):
            plot.animate(forecast.assign(z500=forecast.t2m), to=tmp_path / "film.gif")
        with pytest.raises(ValueError, match="frames_per_second=0"):
            plot.animate(forecast, frames_per_second=0)


def own_axes(shape=(1, 1), projection=None):
    figure, panels = plt.subplots(*shape, subplot_kw={"projection": projection} if projection else {})
    plt.close(figure)
    return figure, panels


class TestOwnAxes:
    def test_maps(self):
        truth = analysis(*GLOBE)
        figure, panels = own_axes((2, 3), ccrs.EqualEarth())
        found = plot.maps(perfect_forecast(truth), truth, lead=["6h", "18h"], ax=panels)
        assert found is figure
        # a figure of one's own has its own title: the dates stand above the maps
        start = "from 2018-01-01 18 UTC"
        assert [panel.get_title() for panel in panels[:, 0]] == [f"Forecast +{h} h\n{start}" for h in (6, 18)]
        assert [panel.get_title() for panel in panels[:, 1]] == [f"Truth\n2018-01-02 {h:02} UTC" for h in (0, 12)]
        assert figure.get_suptitle() == ""
        with pytest.raises(ValueError, match="ax has 6 axes, and 3 are drawn"):
            plot.maps(perfect_forecast(truth), truth, ax=panels)
        with pytest.raises(ValueError, match="ax is no map"):
            plot.maps(perfect_forecast(truth), ax=own_axes()[1])
        with pytest.raises(ValueError, match="ax has a str"):
            plot.maps(perfect_forecast(truth), ax="flat")

    def test_all_others(self, tmp_path):
        table = TestIntervalsAndOthers().table()
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
        film = plot.animate(perfect_forecast(truth), ax=panel, to=tmp_path / "film.gif", progress=False)
        assert film._fig is figure and (tmp_path / "film.gif").exists()
        figure, panel = own_axes(projection=ccrs.Robinson())
        assert plot.skill_map(TestSkillMap().skill(), ax=panel) is figure
        assert panel.get_title().startswith("t2m")


def test_several_leads_are_rows_of_one_forecast_with_truth_at_all():
    truth = analysis(*GLOBE)
    forecast = perfect_forecast(truth, inits=5).isel(lead_time=slice(0, 3))
    longer = forecast.assign_coords(valid_time=forecast.valid_time + np.timedelta64(6, "h"))
    figure = plot.maps(longer, truth, lead=["6h", "18h"])
    assert [panel.get_title() for panel in figure.axes[:6:3]] == ["Forecast +6 h", "Forecast +18 h"]
    # the truth ends at 18 UTC of the second day: the last forecast with all of it starts 24 hours before
    assert figure.get_suptitle() == "From 2018-01-01 18 UTC, valid 2018-01-02 06 UTC / 2018-01-02 18 UTC"


def test_winds_and_anomalies_have_colors_around_zero():
    truth = analysis(*GLOBE)
    wind = (truth.t2m - 295).assign_attrs(units="m s-1", long_name="10 metre U wind component")
    figure = plot.maps(perfect_forecast(truth.assign(u10=wind)), variable="u10")
    mesh = next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    assert mesh.norm.vmin == -mesh.norm.vmax and mesh.cmap.name == "RdBu_r"
    figure = plot.maps(perfect_forecast(truth))
    assert next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh)).cmap.name == "viridis"


def scale_of(axes):
    return meshes(axes)[0].get_clim(), meshes(axes)[0].get_cmap().name


def with_noise(truth, size=1.0):
    random = np.random.default_rng(1)
    return truth.assign(t2m=(truth.t2m + size * random.normal(size=truth.t2m.shape)).assign_attrs(truth.t2m.attrs))


class TestScales:
    def test_leads_of_a_variable_share_their_colors(self):
        forecast = perfect_forecast(analysis(*GLOBE))
        forecast["t2m"] = (forecast.t2m + xr.DataArray([0, 5, 20], dims="lead_time")).assign_attrs(forecast.t2m.attrs)
        forecast["skt"] = forecast.t2m - 30
        figure = plot.maps(forecast, lead=["6h", "12h", "18h"])
        scales = [scale_of(panel)[0] for panel in figure.axes[:6]]
        assert len(set(scales[:3])) == len(set(scales[3:])) == 1 and scales[0] != scales[3]
        values = forecast.t2m.isel(init_time=-1).values
        np.testing.assert_allclose(scales[0], np.percentile(values, (1, 99)))
        # one variable: one bar
        figure = plot.maps(forecast, variable="t2m", lead=["6h", "12h", "18h"])
        assert len(figure.axes) == 4

    def test_rows_with_truth_share_theirs_and_differences_do(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        grown = forecast.t2m + xr.DataArray([1.0, 2.0, 8.0], dims="lead_time") * (forecast.latitude > 0)
        forecast["t2m"] = grown.assign_attrs(truth.t2m.attrs)
        figure = plot.maps(forecast, truth, lead=["6h", "18h"])
        assert len({scale_of(figure.axes[k]) for k in (0, 1, 3, 4)}) == 1
        assert scale_of(figure.axes[2]) == scale_of(figure.axes[5]) == ((-8, 8), "RdBu_r")
        assert [panel.get_xlabel() for panel in figure.axes[6:]] == ["2 metre temperature [K]", "Difference [K]"]

    def test_colors_and_limits_of_ones_own(self):
        truth = analysis(*GLOBE, steps=12)
        forecast = perfect_forecast(truth)
        own = {"cmap": "magma", "limits": (250, 310)}
        for axes in (
            plot.maps(forecast, truth, **own).axes[0],
            plot.hovmoller(forecast, truth, **own).axes[1],
            plot.hovmoller(truth, **own).axes[0],
        ):
            assert scale_of(axes) == ((250, 310), "magma")
        _, panel = own_axes(projection=ccrs.Robinson())
        film = plot.animate(forecast, ax=panel, **own)
        film._draw_was_started = True  # nobody shows it
        assert scale_of(panel) == ((250, 310), "magma")
        for draw in (plot.maps, plot.hovmoller, plot.animate):
            with pytest.raises(ValueError, match="limits=\\(310, 250\\) must be two numbers, the smaller one first"):
                draw(forecast, limits=(310, 250))
            with pytest.raises(ValueError, match="cmap='hot air' is no color map"):
                draw(forecast, cmap="hot air")
        both = forecast.assign(z500=forecast.t2m)
        with pytest.raises(ValueError, match=r"are of one field, and \['t2m', 'z500'\] are drawn"):
            plot.maps(both, limits=(0, 1))


class TestAnomalies:
    """Arithmetic keeps the attributes, so that `forecast - climatology` calls itself temperature."""

    def field(self, values, name, **attrs):
        truth = analysis(*GLOBE)
        field = truth.t2m.copy(data=np.broadcast_to(values, truth.t2m.shape)).assign_attrs(attrs)
        return perfect_forecast(truth.assign({name: field})[[name]], inits=1, leads=1)

    wave = 8 * np.sin(np.deg2rad(GLOBE[1]))[None, :] + 0 * GLOBE[0][:, None]

    @pytest.mark.parametrize(
        ("name", "units", "values"),
        [
            ("t2m", "K", wave),
            ("t2m", "K", wave + 6),  # most cells are warmer
            ("z500", "m2 s-2", 100 * wave),  # geopotential may be below zero, but not at 500 hPa
            ("tcc", "1", wave / 20),
            ("msl", "hPa", wave),  # not the units of the vocabulary
        ],
    )
    def test_what_the_variable_cannot_be_is_an_anomaly(self, name, units, values):
        figure = plot.maps(self.field(values, name, units=units, long_name="the mean"))
        (low, high), colors = scale_of(figure.axes[0])
        assert low == -high < 0 and colors == "RdBu_r"
        assert figure.axes[1].get_xlabel().startswith("The mean anomaly")

    @pytest.mark.parametrize(
        ("name", "units", "values"),
        [
            ("t2m", "degC", wave),
            ("t2m", "K", 280 + wave),
            ("z1000", "m2 s-2", 100 * wave),
            ("msl", "Pa", 1010 + wave),  # wrong units are no anomaly
            ("q", "kg kg-1", np.where(wave < -7.9, -1e-4, 0.01)),  # packing leaves some below zero
            ("something", "K", wave),
        ],
    )
    def test_what_it_can_be_is_none(self, name, units, values):
        figure = plot.maps(self.field(values, name, units=units, long_name="the mean"))
        assert scale_of(figure.axes[0])[1] == "viridis"
        assert figure.axes[1].get_xlabel().startswith("The mean [")

    def test_a_difference_from_the_climatology(self):
        truth = with_noise(analysis(*GLOBE), 3)
        forecast = perfect_forecast(truth)
        figure = plot.maps(forecast - truth.mean("time"), lead="6h")
        assert scale_of(figure.axes[0])[1] == "RdBu_r"
        assert figure.axes[1].get_xlabel() == "2 metre temperature anomaly [K]"

    def test_hovmoller_says_so(self):
        truth = analysis(*GLOBE)
        figure = plot.hovmoller(truth, anomalies=True)
        words = " ".join(figure.axes[1].get_xlabel().split())
        assert words == "2 metre temperature, anomaly from the zonal mean [K]"
        assert scale_of(figure.axes[0])[1] == "RdBu_r"


class TestRain:
    def rain(self, units="m"):
        truth = analysis(*GLOBE)
        amount = truth.t2m.copy(data=np.broadcast_to(np.linspace(0, 0.02, 64), truth.t2m.shape))
        return truth.assign(tp6h=amount.assign_attrs(units=units, long_name="precipitation"))[["tp6h"]]

    def test_meters_are_drawn_in_millimeters_from_light_to_dark(self):
        truth = self.rain()
        forecast = perfect_forecast(truth)
        forecast["tp6h"] = (forecast.tp6h + 0.001).assign_attrs(truth.tp6h.attrs)
        figure = plot.maps(forecast, truth)
        (low, high), colors = scale_of(figure.axes[0])
        assert low == 0 and high == pytest.approx(20.7, abs=0.5)
        few, much = (np.dot(matplotlib.colormaps[colors](x)[:3], (0.3, 0.6, 0.1)) for x in (0.0, 1.0))
        assert few > 0.8 and much < 0.3  # black coastlines are seen where little falls
        assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 1 mm"
        assert [panel.get_xlabel() for panel in figure.axes[3:]] == ["Precipitation [mm]", "Difference [mm]"]
        assert truth.tp6h.units == "m" and float(truth.tp6h.max()) == 0.02
        # a truth that says no units is in those of the forecast
        bare = truth.assign(tp6h=truth.tp6h.drop_attrs())
        assert plot.maps(forecast, bare).axes[2].get_title().endswith("RMSE 1 mm")
        figure = plot.hovmoller(truth)
        assert figure.axes[1].get_xlabel() == "Precipitation [mm]" and scale_of(figure.axes[0])[1] == colors

    def test_other_units_stay(self):
        assert plot.maps(perfect_forecast(self.rain("kg m-2"))).axes[1].get_xlabel() == "Precipitation [kg m⁻²]"


PACIFIC = (np.arange(-38, 10, 4.0), np.arange(140, 221, 5.0))


class TestRegionsAcrossTheDateLine:
    extent = (137.5, 222.5)

    def check(self, panel):
        middle = (self.extent[0] + self.extent[1]) / 2
        west, east = panel.get_xlim()
        np.testing.assert_allclose((west + middle, east + middle), self.extent, atol=0.01)

    def test_maps_are_no_larger_than_the_region(self):
        truth = analysis(*PACIFIC)
        figure = plot.maps(perfect_forecast(truth), truth)
        for panel in figure.axes[:3]:
            self.check(panel)
        labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert {"160°E", "180°", "160°W"} <= set(labels)
        # as -180 to 180 as well
        signed = truth.assign_coords(longitude=(truth.longitude + 180) % 360 - 180).sortby("longitude")
        self.check(plot.maps(perfect_forecast(signed)).axes[0])

    def test_films_and_skill(self):
        _, panel = own_axes(projection=ccrs.PlateCarree(180))
        film = plot.animate(perfect_forecast(analysis(*PACIFIC)), ax=panel)
        film._draw_was_started = True
        self.check(panel)
        skill = TestSkillMap().skill().sel(longitude=slice(140, 220), latitude=slice(-40, 10))
        west, east = plot.skill_map(skill).axes[0].get_xlim()
        assert east - west < 90


class TestPoles:
    def test_a_map_of_a_pole_shows_its_hemisphere(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        forecast["t2m"] = (forecast.t2m + (forecast.latitude < 20)).assign_attrs(truth.t2m.attrs)
        for projection, rmse in ((ccrs.NorthPolarStereo(), "0 K"), (ccrs.SouthPolarStereo(), "1 K")):
            figure = plot.maps(forecast, truth, projection=projection)
            panel = figure.axes[0]
            edge = projection.transform_point(0, 19 if rmse == "0 K" else -19, ccrs.PlateCarree())
            assert max(panel.get_xlim()) < abs(edge[1])
            assert figure.axes[2].get_title().endswith(f"RMSE {rmse}")  # of what is shown
            # nothing but cells inside of the circle
            turn = np.deg2rad(np.arange(0, 360, 10))
            colors = pixels(figure)
            x, y = panel.transAxes.transform(0.5 + 0.45 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)).astype(int).T
            assert not near(colors[y, x], GRAY).any() and not near(colors[y, x], (1, 1, 1)).any()


class TestHovmollerOfTruth:
    def sections(self, figure):
        return [np.ma.filled(meshes(panel)[0].get_array().astype(float), np.nan) for panel in figure.axes[:3]]

    def test_truth_is_brought_to_the_points_of_the_forecast(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        cut = truth.sel(latitude=slice(20, 80), longitude=slice(30, 100))
        forecast = perfect_forecast(cut)
        forecast["t2m"] = (forecast.t2m + 0.5).assign_attrs(truth.t2m.attrs)
        expected = self.sections(plot.hovmoller(forecast, cut))
        turned = truth.assign_coords(longitude=(truth.longitude + 180) % 360 - 180).sortby("longitude")
        for other in (truth, truth.isel(latitude=slice(None, None, -1)), turned.transpose("longitude", ...)):
            found = self.sections(plot.hovmoller(forecast, other))
            for one, two in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-12)
        np.testing.assert_allclose(expected[2], 0.5)

    def test_truth_at_other_points_is_refused_as_by_maps(self):
        truth = analysis(*GLOBE, steps=12)
        forecast = perfect_forecast(truth)
        region = perfect_forecast(truth.isel(longitude=slice(30, 50)))
        shifted = truth.assign_coords(longitude=truth.longitude + 2.8125)
        for one, other in (
            (forecast, shifted),
            (region, truth.isel(longitude=slice(0, 20))),
            (forecast, truth.isel(longitude=slice(0, 40))),
            (forecast, truth.isel(latitude=slice(0, 10))),
        ):
            for draw in (plot.maps, plot.hovmoller):
                with pytest.raises(ValueError, match="truth has no l.* bring both to one grid first"):
                    draw(one, other)

    def test_means_are_weighted_by_area_and_leave_missing_cells_out(self):
        truth = with_noise(analysis(*GLOBE, steps=12))
        truth["t2m"] = truth.t2m.where((truth.latitude < 40) | (truth.longitude > 50))
        figure = plot.hovmoller(truth, latitudes=(30, 60))
        inside = (truth.latitude >= 30) & (truth.latitude <= 60)
        weights = latitude_weights(truth.latitude).where(inside, 0)
        expected = truth.t2m.weighted(weights).mean("latitude")
        np.testing.assert_allclose(self.sections(figure)[0], expected.values)

    def test_a_field_is_not_read_for_every_time(self, monkeypatch):
        truth = analysis(*GLOBE, steps=12)
        reads = []

        class Counting(xr.backends.BackendArray):
            shape, dtype = truth.t2m.shape, truth.t2m.dtype

            def __getitem__(self, key):
                reads.append(key)
                return truth.t2m.values[key.tuple if hasattr(key, "tuple") else key]

        lazy = xr.Variable(truth.t2m.dims, xr.core.indexing.LazilyIndexedArray(Counting()), {"units": "K"})
        plot.hovmoller(truth.assign(t2m=lazy))
        assert len(reads) == 1


class TestTimesOfAHovmoller:
    def drawn(self, truth):
        figure = plot.hovmoller(truth)
        pixels(figure)
        panel = figure.axes[0]
        low, high = sorted(panel.get_ylim())
        ticks = [text.get_text() for text, y in zip(panel.get_yticklabels(), panel.get_yticks(), strict=True)
                 if low <= y <= high]  # fmt: skip
        return panel, ticks

    def at(self, times):
        one = analysis(*GLOBE, steps=1)
        return xr.concat([one] * len(times), "time").assign_coords(time=("time", times))

    @pytest.mark.parametrize(
        "times",
        [
            pd.date_range("2004-01-01", "2004-03-01", freq="6h"),
            pd.date_range("2004-01-01", "2004-01-05", freq="6h"),
            pd.date_range("2004-01-01", "2004-01-02", freq="1h"),
            pd.date_range("2001-01-01", periods=40, freq="MS"),
        ],
    )
    def test_each_tick_has_a_text_of_its_own_and_the_year_is_there(self, times):
        panel, ticks = self.drawn(self.at(times.as_unit("ns")))
        assert len(ticks) > 2 and len(set(ticks)) == len(ticks)
        assert str(times[0].year) in panel.get_ylabel()

    def test_another_calendar(self):
        months = xr.date_range("2001-01", periods=14, freq="MS", calendar="360_day", use_cftime=True)
        _, ticks = self.drawn(self.at(months))
        assert ticks[:2] == ["2001-01", "2001-03"]
        days = xr.date_range("2001-02-27", periods=4, freq="1D", calendar="360_day", use_cftime=True)
        assert self.drawn(self.at(days))[1] == ["2001-02-27", "2001-02-28", "2001-02-29", "2001-02-30"]

    def test_gaps_stay_open(self):
        times = pd.date_range("2004-01-01", periods=20, freq="6h", unit="ns")
        panel, _ = self.drawn(self.at(times.delete(slice(5, 15))))
        (mesh,) = meshes(panel)
        assert mesh.get_array().shape == (11, 64)
        missing = np.ma.getmaskarray(mesh.get_array()).all(axis=1)
        assert missing.tolist() == [False] * 5 + [True] + [False] * 5
        edges = mesh.get_coordinates()[:, 0, 1]
        assert np.diff(edges).tolist() == pytest.approx([0.25] * 5 + [2.5] + [0.25] * 5)

    def test_months_have_no_gaps_and_times_increase(self):
        panel, _ = self.drawn(self.at(pd.date_range("2001-01-01", periods=14, freq="MS", unit="ns")))
        assert not np.ma.getmaskarray(meshes(panel)[0].get_array()).any()
        times = pd.to_datetime(["2001-01-02", "2001-01-03", "2001-01-03"]).as_unit("ns")
        with pytest.raises(ValueError, match="2001-01-03 00 UTC follows 2001-01-03 00 UTC: sort them"):
            plot.hovmoller(self.at(times))


class TestLayout:
    """What a reader sees: no text lies on another one, in figures of ours and in plain ones."""

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
        table = TestIntervalsAndOthers().table()
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
        table = TestIntervalsAndOthers().table()
        table["z500"] = xr.where(table.metric == "rmse_skill_vs_persistence", -0.002, table.z500)
        table = table.assign_coords(lead_time=("lead_time", [1, 3, 5], {"units": "months"}))
        panel = plot.scorecard(table).axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1 mo", "3 mo", "5 mo"]
        assert {text.get_text() for text in panel.texts} == {"0"}


class TestWhatIsGivenInstead:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda fc: fc.t2m, "is a DataArray: give a Dataset, .*\\[\\['t2m'\\]\\]"),
            (lambda fc: None, "is a NoneType: give a Dataset"),
            (lambda fc: "forecast.nc", "='forecast.nc' is a path: give a Dataset"),
            (lambda fc: pd.DataFrame({"t2m": [1]}), "is a DataFrame: give a Dataset"),
            (lambda fc: xr.Dataset(), "is a Dataset without variables"),
        ],
    )
    def test_something_else_than_a_dataset(self, given, message):
        forecast = perfect_forecast(analysis(*GLOBE))
        for draw in (plot.maps, plot.hovmoller, plot.animate, plot.skill_map, plot.scores, plot.scorecard):
            with pytest.raises(ValueError, match=message):
                draw(given(forecast))
        if given(forecast) is not None:
            for draw in (plot.maps, plot.hovmoller, plot.animate):
                with pytest.raises(ValueError, match=message):
                    draw(forecast, given(forecast))

    def test_nothing_was_selected(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        for draw in (plot.maps, plot.hovmoller, plot.animate):
            with pytest.raises(ValueError, match="forecast has no init_time, its size is 0"):
                draw(forecast.isel(init_time=slice(0, 0)))
            with pytest.raises(ValueError, match="forecast has no lead_time, its size is 0"):
                draw(forecast.isel(lead_time=slice(0, 0)))
            with pytest.raises(ValueError, match="truth has no time, its size is 0"):
                draw(forecast, truth.isel(time=slice(0, 0)))
            with pytest.raises(ValueError, match="and no time: pass an analysis"):
                draw(forecast, truth.isel(time=0))
        with pytest.raises(ValueError, match="dataset has no time, its size is 0"):
            plot.hovmoller(truth.isel(time=slice(0, 0)))

    def test_a_forecast_is_no_scores(self):
        with pytest.raises(ValueError, match=r"no 'system': pass what simvp_climate\.score returns"):
            plot.scorecard(perfect_forecast(analysis(*GLOBE)))

    def test_leads_and_inits_as_they_come_out_of_a_forecast(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        expected = plot.maps(forecast, truth, lead="12h", init="2018-01-01T06").get_suptitle()
        for lead in (forecast.lead_time[1], forecast.lead_time.values[1], [forecast.lead_time[1]]):
            for init in (forecast.init_time[1], forecast.init_time.values[1], forecast.init_time[1:2]):
                assert plot.maps(forecast, truth, lead=lead, init=init).get_suptitle() == expected
        assert plot.maps(forecast, lead=forecast.lead_time[:2]).axes[1].get_title() == "Forecast +12 h"
        with pytest.raises(ValueError, match="init has 2 times, and one forecast is drawn"):
            plot.maps(forecast, init=forecast.init_time[:2])
        with pytest.raises(ValueError, match="init=3 not in forecast"):
            plot.maps(forecast, init=3)
        months = forecast.assign_coords(lead_time=("lead_time", [1, 2, 3], {"units": "months"}))
        assert plot.maps(months, lead=months.lead_time[1]).axes[0].get_title() == "Forecast +2 months"

    def test_a_scorecard_of_one_lead(self):
        panel = plot.scorecard(TestIntervalsAndOthers().table(), leads="3D").axes[0]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["3 d"]

    @pytest.mark.parametrize("units", [("K", "kelvin"), ("m2 s-2", "m2/s2"), ("m2 s-2", "m**2 s**-2")])
    def test_other_spellings_of_the_same_units(self, units):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth.assign(t2m=truth.t2m.assign_attrs(units=units[0])))
        other = truth.assign(t2m=truth.t2m.assign_attrs(units=units[1]))
        for draw in (plot.maps, plot.hovmoller):
            draw(forecast, other)


class TestSettingsThatWouldBeIgnored:
    def test_of_axes(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        table = TestIntervalsAndOthers().table()
        ratios = variance_by_wavenumber(perfect_forecast(noisy()), noisy())
        for draw, data in (
            (plot.maps, forecast),
            (plot.animate, forecast),
            (plot.skill_map, TestSkillMap().skill()),
            (plot.hovmoller, truth),
            (plot.scores, table),
            (plot.scorecard, table),
            (plot.spectra, ratios),
            (plot.training_curve, some_history()),
        ):
            with pytest.raises(ValueError, match="ax has a width of its own"):
                draw(data, ax=own_axes()[1], width=5)
        for draw, data in ((plot.maps, forecast), (plot.animate, forecast), (plot.skill_map, TestSkillMap().skill())):
            with pytest.raises(ValueError, match="ax has a projection of its own"):
                draw(data, ax=own_axes(projection=ccrs.Robinson())[1], projection=ccrs.Mercator())
            with pytest.raises(ValueError, match="projection='Robinson' is a str: give one of cartopy"):
                draw(data, projection="Robinson")
        with pytest.raises(ValueError, match="width=0 must be greater than 0"):
            plot.maps(forecast, width=0)

    def test_of_what_is_not_there(self):
        with pytest.raises(ValueError, match="level=500 was given, but .* have no level dimension"):
            plot.skill_map(TestSkillMap().skill(), level=500)
        with pytest.raises(ValueError, match="init='2018' was given, and dataset has no init_time"):
            plot.hovmoller(analysis(*GLOBE), init="2018")


class TestWordsOfSkillAndSpectra:
    def test_a_map_of_skill_says_against_what_and_when(self):
        skill = TestSkillMap().skill()
        said = {
            "baseline": "persistence",
            "verified_start": "2004-01-02T06:00:00",
            "verified_end": "2004-04-30T18:00:00",
        }
        figure = plot.skill_map(skill.assign_attrs(said))
        words = "Against persistence, verified 2004-01-02 to 2004-04-30, 12 blocks of 5 initializations"
        assert figure.get_suptitle().replace("\n", " ") == words
        assert figure.axes[-1].get_xlabel() == "Skill, 1 - MSE / MSE of persistence"

    def test_leads_are_written_alike(self):
        truth = noisy(steps=24)
        forecast = perfect_forecast(truth, leads=16)
        found = variance_by_wavenumber(forecast, truth)

        def words(lead):
            legend = plot.spectra(found, lead=lead).axes[0].get_legend()
            return [text.get_text() for text in legend.get_texts()]

        assert words(["6h", "24h", "48h", "72h"]) == ["+6 h", "+24 h", "+48 h", "+72 h"]
        assert words(["24h", "48h", "72h"]) == ["+1 d", "+2 d", "+3 d"]
        titles = [axes.get_title() for axes in plot.maps(forecast, lead=["1D", "3D"]).axes[:2]]
        assert titles == ["Forecast +1 d", "Forecast +3 d"]

    def test_a_ratio_that_goes_on_beyond_the_panel_is_marked(self):
        truth = noisy()
        forecast = perfect_forecast(truth)
        found = variance_by_wavenumber(forecast, truth)
        found["t2m"] = found.t2m * xr.where(found.zonal_wavenumber == 30, 100, 1)
        found["t2m"] = found.t2m * xr.where(found.zonal_wavenumber == 3, 0.001, 1)
        figure = plot.spectra(found, lead="6h")
        panel = figure.axes[0]
        up, down = ([line for line in panel.lines if line.get_marker() == marker] for marker in "^v")
        assert [line.get_xydata().tolist() for line in up + down] == [[[30, 20]], [[3, 0.05]]]
        assert to_rgb(up[0].get_color()) == to_rgb(panel.lines[0].get_color())
        assert len([line for line in plot.spectra(variance_by_wavenumber(forecast, truth)).axes[0].lines]) == 4
        before = panel.get_position().width
        pixels(figure)
        assert panel.get_position().width > 0.9 * before  # the marks take no room


class TestPublished:
    def test_only_at_the_leads_that_are_verified(self):
        table = TestIntervalsAndOthers().table()
        panel = plot.scores(table.sel(lead_time=["1D", "3D"]), metric="rmse", published=published()).axes[0]
        letters = [text for text in panel.texts if text.get_text()[0].isalpha() and len(text.get_text()) <= 2]
        assert letters and {text.xy[0] for text in letters} == {3.0}
        with pytest.raises(ValueError, match="none is a lead of the scores"):
            plot.scores(table.sel(lead_time=["1D"]), metric="rmse", published=published())

    @pytest.mark.parametrize(("part", "value"), [("region", "tropics"), ("season", "DJF"), ("month", 3)])
    def test_not_beside_scores_of_a_part_of_the_globe_or_the_year(self, part, value):
        table = TestIntervalsAndOthers().table()
        with pytest.raises(ValueError, match=f"the scores are of {part} .*{value}.* of the globe and whole years"):
            plot.scores(table.assign_coords({part: value}), metric="rmse", published=published())
        plot.scores(table.assign_coords(region="global"), metric="rmse", published=published())

    def test_letters_do_not_lie_upon_each_other_nor_outside(self):
        table = TestIntervalsAndOthers().table()
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
        table = TestIntervalsAndOthers().table()
        (legend,) = plot.scores(table, metric="rmse", published=published()).legends
        words = " ".join(legend.get_title().get_text().split())
        assert words.startswith("Letters: published, against ERA5 2017-2018")
        assert "2020 (GraphCast)" in words and "Curves: against the truth of these scores, 2001-01-0" in words

    def test_units_are_those_of_the_scores(self):
        table = TestIntervalsAndOthers().table().rename(z500="tp6h", z500_low="tp6h_low", z500_high="tp6h_high")
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
            plot.scores(TestIntervalsAndOthers().table(), metric="rmse", published=given)
