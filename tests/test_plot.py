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
from simvp_climate.grid import latitude_weights
from simvp_climate.verification.baselines import persistence
from simvp_climate.verification.literature import published
from simvp_climate.verification.scores import score
from simvp_climate.verification.spectra import variance_by_wavenumber, zonal_spectrum

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
    figure = plot.history(table)
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
    figure = plot.history({"zeros": first, "sphere": second.reset_index()})  # as read from a CSV file
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
    figure = plot.history(some_history()[["loss"]] + 30)
    (axes,) = figure.axes
    assert set(curves(axes)) == {"training", "kept"} and rings(axes) == [(4, 31.0)]
    assert axes.get_yscale() == "linear"
    drawn = curves(plot.history(forecaster).axes[0])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [forecaster.provenance["epochs"][0]["loss"]])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({}, "histories is empty: give at least one"),
        ([some_history()], "histories is a list: give a Forecaster or its history, several as a dict"),
        ({"a": some_scores()}, "histories has 'a', which is a Dataset: give a Forecaster"),
        (some_history()[["valid_rmse_t2m"]], "histories is a DataFrame: give a Forecaster or its history"),
        (some_history().iloc[:0], "histories has no epoch: nothing was trained yet"),
    ],
)
def test_what_is_no_history_is_said(histories, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plot.history(histories)


def test_histories_in_different_units_are_not_drawn_together():
    other = some_history()
    other.attrs["units"] = {"valid_rmse_z500_6h": "gpm"}
    with pytest.raises(ValueError, match=r"the errors of z500 are in \['gpm', 'm2 s-2'\]: draw the runs one by one"):
        plot.history({"a": some_history(), "b": other})


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
        return score(forecast, truth, metrics=["rmse", "rmse_skill"], block=4)

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
        with pytest.raises(ValueError, match="there is no folder"):
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
        assert [panel.get_title() for panel in panels[:, 0]] == ["Forecast +6 h", "Forecast +18 h"]
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
            lambda ax: plot.history(some_history()[["loss", "valid_loss"]], ax=ax),
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
