"""Maps: the position, color and text of what is drawn."""

import cartopy.crs as ccrs
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
from factories import waves
from matplotlib.collections import QuadMesh
from plot_factories import (
    GLOBE,
    GRAY,
    GRIDS,
    HOT,
    MIDDLE,
    PACIFIC,
    analysis,
    colors_at,
    meshes,
    near,
    own_axes,
    perfect_forecast,
    pixels,
    scale_of,
    skill_of_the_globe,
    with_noise,
)

from simvp_climate import plot
from simvp_climate.metrics.baselines.simple_persistence import persistence


@pytest.mark.parametrize("grid", GRIDS)
def test_a_hot_cell_is_drawn_at_its_coordinates(grid):
    lat, lon = GRIDS[grid]
    row, column = np.abs(lat - 45).argmin(), np.abs(lon - 90).argmin()
    values = np.zeros((len(lat), len(lon)))
    values[row, column] = 1
    names = ("lat", "lon") if grid.startswith("lat") else ("latitude", "longitude")
    forecast = perfect_forecast(analysis(lat, lon, values, names=names), inits=1, leads=1)
    figure = plot.maps(forecast, cmap="viridis")
    axes = figure.axes[0]
    assert near(colors_at(figure, axes, [lon[column]], [lat[row]]), HOT).all()
    # two cells away all around, and no coast there
    step = 2 * abs(lat[1] - lat[0])
    around = colors_at(
        figure, axes, lon[column] + np.array([step, -step, 0, 0]), lat[row] + np.array([0, 0, step, -step])
    )
    assert near(around, MIDDLE).all()


@pytest.mark.parametrize(("first", "center"), [(0, 0), (0, 180), (0, 37), (-180, 180), (2.8125, 0)])
def test_the_globe_has_no_seam_and_no_gap(first, center):
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


def test_three_maps_share_scales_and_have_titles():
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
    assert [axes.get_xlabel() for axes in figure.axes[3:]] == ["2 metre temperature [°C]", "Difference [K]"]
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
    labels = [axes.get_xlabel().replace("\n", " ") for axes in figure.axes[3:]]
    assert labels == [
        "2 metre temperature [°C]",
        "2 metre temperature, 500 hPa [gpdam], contours every 0.02 gpdam",
        "2 metre temperature, 850 hPa [gpdam], contours every 0.02 gpdam",
    ]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["t2m, +6 h", "z500, +6 h", "z850, +6 h"]
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


def test_all_missing_fields_are_gray():
    truth = analysis(*GLOBE, steps=2)
    figure = plot.maps(perfect_forecast(truth * np.nan, inits=1, leads=1), truth)
    assert figure.axes[2].get_title() == "Forecast minus truth, RMSE -"
    assert near(colors_at(figure, figure.axes[0], [-30, 90], [30, 45]), GRAY).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable": "z500"}, r"'z500'.*is not in forecast.*'t2m'"),
        ({"lead": "2D"}, r"'2D' must be one of \+6 h, \+12 h, \+18 h"),
        ({"lead": 6}, r"lead=6 .*\"3D\""),
        ({"lead": "soon"}, r"'soon' cannot be read"),
        ({"init": "2020-01-01"}, r"'2020-01-01' is not in forecast.*4 times from 2018-01-01 00 UTC"),
        ({"level": 500}, r"level=500 .*'t2m'.*no level"),
    ],
)
def test_errors_name_what_the_forecast_lacks(options, message):
    forecast = perfect_forecast(analysis(*GLOBE))
    with pytest.raises(ValueError, match=message):
        plot.maps(forecast, **options)


def test_errors_name_why_truth_does_not_match():
    truth = analysis(*GLOBE)
    forecast = perfect_forecast(truth)
    celsius = truth.copy()
    celsius["t2m"] = truth["t2m"].assign_attrs(units="degC")
    for other, message in [
        (truth.isel(time=[0]), r"no truth at lead \+18 h.*4 times from 2018-01-01 18 UTC"),
        (truth.isel(time=0, drop=True), "truth.*no time"),
        (truth.rename(t2m="t"), r"truth: .*'t2m'.*\['t'\]"),
        (celsius, "'t2m'.*'K' in forecast.*'degC' in truth"),
        (truth.isel(latitude=slice(0, 16)), r"truth.*latitude 2\.8125 \(16 of 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            plot.maps(forecast, other)
    with pytest.raises(ValueError, match="no coordinate 'valid_time'"):
        plot.maps(forecast.drop_vars("valid_time"))
    members = forecast.expand_dims(member=[0, 1])
    with pytest.raises(ValueError, match=r"'member' of size 2.*forecast.isel\(member=0\)"):
        plot.maps(members)


def test_several_leads_are_rows_of_one_forecast():
    truth = analysis(*GLOBE)
    forecast = perfect_forecast(truth, inits=5).isel(lead_time=slice(0, 3))
    later = {name: forecast[name] + np.timedelta64(6, "h") for name in ("lead_time", "valid_time")}
    figure = plot.maps(forecast.assign_coords(later), truth, lead=["12h", "24h"])
    assert [panel.get_title() for panel in figure.axes[:6]] == [
        "Forecast", "Truth", "Forecast minus truth, RMSE 1 K", "", "", "RMSE 1 K"
    ]  # fmt: skip
    # the rows are named at the left
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes[:4]] == [["+12 h"], [], [], ["+24 h"]]
    # the truth ends at 18 UTC of the second day: the last forecast with all of it starts 24 hours before
    assert figure.get_suptitle() == "From 2018-01-01 18 UTC, valid 2018-01-02 06 UTC / 2018-01-02 18 UTC"


def test_winds_and_anomalies_have_colors_around_zero():
    truth = analysis(*GLOBE)
    wind = (truth.t2m - 295).assign_attrs(units="m s-1", long_name="10 metre U wind component")
    figure = plot.maps(perfect_forecast(truth.assign(u10=wind)), variable="u10")
    mesh = next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    assert mesh.norm.vmin == -mesh.norm.vmax and mesh.cmap.name == "RdBu_r"
    figure = plot.maps(perfect_forecast(truth.rename(t2m="something")))
    assert next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh)).cmap.name == "viridis"


class TestScales:
    def test_leads_of_a_variable_share_their_colors(self):
        forecast = perfect_forecast(analysis(*GLOBE))
        forecast["t2m"] = (forecast.t2m + xr.DataArray([0, 5, 20], dims="lead_time")).assign_attrs(forecast.t2m.attrs)
        forecast["skt"] = forecast.t2m - 30
        figure = plot.maps(forecast, lead=["6h", "12h", "18h"])
        scales = [scale_of(panel)[0] for panel in figure.axes[:6]]
        assert len(set(scales[:3])) == len(set(scales[3:])) == 1 and scales[0] != scales[3]
        values = forecast.t2m.isel(init_time=-1).values
        np.testing.assert_allclose(scales[0], np.percentile(values - 273.15, (1, 99)))
        # one variable: one bar
        figure = plot.maps(forecast, variable="t2m", lead=["6h", "12h", "18h"])
        assert len(figure.axes) == 4

    def test_rows_with_truth_share_scales_of_values_and_differences(self):
        truth = analysis(*GLOBE)
        forecast = perfect_forecast(truth)
        grown = forecast.t2m + xr.DataArray([1.0, 2.0, 8.0], dims="lead_time") * (forecast.latitude > 0)
        forecast["t2m"] = grown.assign_attrs(truth.t2m.attrs)
        figure = plot.maps(forecast, truth, lead=["6h", "18h"])
        assert len({scale_of(figure.axes[k]) for k in (0, 1, 3, 4)}) == 1
        assert scale_of(figure.axes[2]) == scale_of(figure.axes[5]) == ((-8, 8), "RdBu_r")
        assert [panel.get_xlabel() for panel in figure.axes[6:]] == ["2 metre temperature [°C]", "Difference [K]"]

    def test_colors_and_limits_of_the_user(self):
        truth = analysis(*GLOBE, steps=12)
        forecast = perfect_forecast(truth)
        own = {"cmap": "magma", "limits": (250, 310), "units": "K"}
        for axes in (
            plot.maps(forecast, truth, **own).axes[0],
            plot.hovmoller(forecast, truth, **own).axes[1],
            plot.hovmoller(truth, **own).axes[0],
        ):
            assert scale_of(axes) == ((250, 310), "magma")
        _, panel = own_axes(projection=ccrs.Robinson())
        film = plot.animate(forecast, ax=panel, **own)
        film._draw_was_started = True  # silences the warning of an animation that is never shown
        assert scale_of(panel) == ((250, 310), "magma")
        for draw in (plot.maps, plot.hovmoller, plot.animate):
            with pytest.raises(ValueError, match=r"limits=\(310, 250\).*smaller first"):
                draw(forecast, limits=(310, 250))
            with pytest.raises(ValueError, match="cmap='hot air'.*color map"):
                draw(forecast, cmap="hot air")
        both = forecast.assign(z500=forecast.t2m)
        with pytest.raises(ValueError, match=r"limits=\(0, 1\).*one field.*z500"):
            plot.maps(both, limits=(0, 1))


class TestAnomalies:
    """Arithmetic keeps the attributes, so `forecast - climatology` keeps the long name of temperature."""

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
    def test_values_outside_the_range_of_the_variable_are_anomalies(self, name, units, values):
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
    def test_values_within_the_range_are_no_anomalies(self, name, units, values):
        figure = plot.maps(self.field(values, name, units=units, long_name="the mean"))
        assert scale_of(figure.axes[0])[1] in ("viridis", "RdYlBu_r", "GnBu_r", "YlGnBu")
        assert figure.axes[1].get_xlabel().startswith("The mean [")

    def test_a_difference_from_the_climatology(self):
        truth = with_noise(analysis(*GLOBE), 3)
        forecast = perfect_forecast(truth)
        with xr.set_options(keep_attrs=True):  # the default of xarray since November 2025
            anomaly = forecast - truth.mean("time")
        figure = plot.maps(anomaly, lead="6h")
        assert scale_of(figure.axes[0])[1] == "RdBu_r"
        assert figure.axes[1].get_xlabel() == "2 metre temperature anomaly [K]"

    def test_hovmoller_labels_anomalies(self):
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
        mesh = meshes(figure.axes[0])[0]
        # steps of 1, 2 and 5 beyond percentile 99, 20.7 mm
        assert list(mesh.norm.boundaries) == [0, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
        few, some, much = (np.dot(mesh.to_rgba(x)[:3], (0.3, 0.6, 0.1)) for x in (0.1, 0.3, 40))
        assert few > 0.999 and some > 0.8 and much < 0.3  # black coastlines are seen where little falls
        assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 1 mm"
        assert [panel.get_xlabel() for panel in figure.axes[3:]] == ["Precipitation [mm]", "Difference [mm]"]
        assert truth.tp6h.units == "m" and float(truth.tp6h.max()) == 0.02
        # a truth that says no units is in those of the forecast
        bare = truth.assign(tp6h=truth.tp6h.drop_attrs())
        assert plot.maps(forecast, bare).axes[2].get_title().endswith("RMSE 1 mm")
        figure = plot.hovmoller(truth)
        assert figure.axes[1].get_xlabel() == "Precipitation [mm]"
        assert meshes(figure.axes[0])[0].norm.boundaries[-1] == 20

    @pytest.mark.parametrize(("units", "requested", "label"), [("kg m-2", None, "mm"), ("m", "mm/day", "mm/day")])
    def test_other_units(self, units, requested, label):
        forecast = perfect_forecast(self.rain(units))
        figure = plot.maps(forecast, units=requested)
        assert figure.axes[1].get_xlabel() == f"Precipitation [{label}]"
        factor = 4000 if requested else 1
        np.testing.assert_allclose(meshes(figure.axes[0])[0].get_array().max(), 0.02 * factor)


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
        skill = skill_of_the_globe().sel(longitude=slice(140, 220), latitude=slice(-40, 10))
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


@pytest.mark.parametrize("who", ["forecast", "truth", "both"])
def test_a_height_of_one_is_no_level(who):
    height = xr.DataArray([2.0], dims="height", attrs={"units": "m", "standard_name": "height", "axis": "Z"})
    truth = waves(times=12)[["t2m"]]
    forecast = persistence(truth, truth.time[4:6], ["6h", "12h"])
    expected = plot.maps(forecast, truth, lead="12h")
    if who != "truth":
        forecast = forecast.assign(t2m=forecast.t2m.expand_dims(height=height, axis=2))
    if who != "forecast":
        truth = truth.assign(t2m=truth.t2m.expand_dims(height=height, axis=1))
    figure = plot.maps(forecast, truth, lead="12h")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [axes.get_title() for axes in expected.axes]
    assert not any("2 hPa" in text.get_text() for text in figure.findobj(plt.Text))
