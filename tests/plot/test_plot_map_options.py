"""Options of maps with known answers: units, palettes, contours, arrows, regions, anomalies, borders."""

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
from matplotlib.contour import QuadContourSet
from matplotlib.quiver import Quiver
from plot_factories import GLOBE, analysis, colors_at, meshes, perfect_forecast, scale_of, with_noise

from simvp_climate import plot
from simvp_climate.metrics.baselines.climatologies import climatology


def only(axes, kind):
    (artist,) = (artist for artist in axes.collections if isinstance(artist, kind))
    return artist


def variables(**fields):
    """Return a truth with fields of (values, units)."""
    truth = analysis(*GLOBE, 0, steps=2)
    truth = truth.copy(data={"t2m": np.zeros(truth.t2m.shape)})
    made = {
        name: (truth.t2m.drop_attrs() + values).assign_attrs(units=units) for name, (values, units) in fields.items()
    }
    return truth.drop_vars("t2m").assign(made)


def one_forecast(truth):
    return perfect_forecast(truth, inits=1, leads=1)


def latitudes():
    return xr.DataArray(GLOBE[0], {"latitude": GLOBE[0]}, ("latitude",))


class TestUnits:
    def test_fields_have_offsets_and_errors_have_none(self):
        truth = variables(t2m=(300 + latitudes() / 10, "K"), msl=(1e5 + 10 * latitudes(), "Pa"))
        forecast = one_forecast(truth)
        forecast["t2m"] = (forecast.t2m + 2).assign_attrs(units="K")
        forecast["msl"] = (forecast.msl - 300).assign_attrs(units="Pa")
        figure = plot.maps(forecast, truth)
        np.testing.assert_allclose(np.ravel(meshes(figure.axes[1])[0].get_array())[0], 300 - 8.71875 - 273.15)
        assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 2 K"
        assert figure.axes[5].get_title() == "RMSE 3 hPa"
        np.testing.assert_allclose(meshes(figure.axes[2])[0].get_array(), 2)
        labels = [axes.get_xlabel() for axes in figure.axes[6:]]
        assert labels[:2] == ["t2m [°C]", "Difference [K]"] and labels[3] == "Difference [hPa]"
        figure = plot.maps(forecast, truth, units={"msl": "Pa", "t2m": "K"}, contours=False)
        assert figure.axes[5].get_title() == "RMSE 300 Pa"
        assert [axes.get_xlabel() for axes in figure.axes[6::2]] == ["t2m [K]", "msl [Pa]"]

    def test_a_spread_is_no_temperature(self):
        spread = one_forecast(variables(t2m=(2 + latitudes() / 1000, "K")))
        assert plot.maps(spread).axes[1].get_xlabel() == "t2m [K]"
        np.testing.assert_allclose(meshes(plot.maps(spread).axes[0])[0].get_array(), 2, atol=0.1)

    def test_a_forecast_that_diverged_has_the_units_of_the_truth(self):
        truth = variables(t2m=(280 + latitudes() / 10, "K"))
        forecast = one_forecast(truth)
        forecast["t2m"] = (forecast.t2m + 1000).assign_attrs(units="K")
        figure = plot.maps(forecast, truth)
        assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 1e+03 K"
        assert np.ravel(meshes(figure.axes[0])[0].get_array()).min() > 900
        assert figure.axes[3].get_xlabel() == "t2m [°C]"

    def test_of_films_and_sections(self):
        truth = variables(t2m=(300 + latitudes() / 10, "K"))
        assert plot.hovmoller(truth, units="K").axes[1].get_xlabel() == "t2m [K]"
        assert plot.hovmoller(truth).axes[1].get_xlabel() == "t2m [°C]"
        film = plot.animate(one_forecast(truth), units="K", width=3)
        film._draw_was_started = True  # silences the warning of an animation that is never shown
        assert film._fig.axes[1].get_xlabel() == "t2m [K]"

    def test_errors(self):
        forecast = one_forecast(variables(t2m=(300, "K"), msl=(1e5, "Pa")))
        with pytest.raises(ValueError, match="units='hPa' must be of one variable"):
            plot.maps(forecast, units="hPa")
        with pytest.raises(ValueError, match="units='hPa' of 't2m'"):
            plot.maps(forecast, variable="t2m", units="hPa")
        with pytest.raises(ValueError, match="'msl', which is not shown"):
            plot.maps(forecast, variable="t2m", units={"msl": "hPa"})


@pytest.mark.parametrize(
    ("name", "units", "values", "colors", "differences"),
    [
        ("t850", "K", 280.0, "RdYlBu_r", "RdBu_r"),
        ("z500", "m2 s-2", 54000.0, "GnBu_r", "RdBu_r"),
        ("q700", "kg kg-1", 0.005, "YlGnBu", "BrBG"),
        ("tcc", "1", 0.5, "Blues_r", "RdBu_r"),
        ("something", "K", 280.0, "viridis", "RdBu_r"),
    ],
)
def test_variables_have_palettes(name, units, values, colors, differences):
    truth = variables(**{name: (values * (1 + latitudes() / 1000), units)})
    figure = plot.maps(one_forecast(truth), truth)
    assert scale_of(figure.axes[0])[1] == colors and scale_of(figure.axes[2])[1] == differences
    if name == "tcc":
        assert scale_of(figure.axes[0])[0] == (0, 100)


class TestContours:
    # gpdam: the contour of 500 + x is at latitude x
    height = ((500 + latitudes()) * 98.0665, "m2 s-2")

    def test_lie_at_their_values_all_around_the_globe(self):
        forecast = one_forecast(variables(z500=self.height))
        figure = plot.maps(forecast, projection=ccrs.PlateCarree())
        lines = only(figure.axes[0], QuadContourSet)
        assert lines.levels.tolist() == list(range(420, 588, 12))
        for level, path in zip(lines.levels, lines.get_paths(), strict=True):
            x, y = path.vertices.T
            np.testing.assert_allclose(y, level - 500, atol=0.02)
            assert x.min() < -179 and x.max() > 179
        assert figure.axes[1].get_xlabel() == "z500 [gpdam], contours every 12 gpdam"

    def test_of_another_variable_at_its_level(self):
        truth = variables(t850=(280 + latitudes() / 10, "K"))
        levels = xr.concat([self.height[0], self.height[0] * 2], xr.DataArray([500, 300], dims="level", name="level"))
        truth["geopotential"] = (truth.t850.drop_attrs() * 0 + levels).assign_attrs(units="m2 s-2")
        truth["level"].attrs["units"] = "hPa"
        forecast = one_forecast(truth)
        figure = plot.maps(forecast, truth, variable="t850", contours=("geopotential", 500))
        assert 504 in only(figure.axes[0], QuadContourSet).levels and 504 in only(figure.axes[1], QuadContourSet).levels
        assert not [artist for artist in figure.axes[2].collections if isinstance(artist, QuadContourSet)]
        assert figure.axes[3].get_xlabel() == "t850 [°C], contours of z500 every 12 gpdam"
        for contours, message in [
            ("geopotential", r"'geopotential' at level None.*\[500, 300\].*\('geopotential', 500\)"),
            (("geopotential", 850), "at level 850"),
            ("z1000", "'z1000', which is not in forecast"),
            (("t850", 850), "'t850' at level 850, but it has no levels"),
            (5, r"contours=5 must be 1 name.*contours=\"z500\""),
        ]:
            with pytest.raises(ValueError, match=message):
                plot.maps(forecast, variable="t850", contours=contours)

    def test_are_drawn_on_request(self):
        forecast = one_forecast(variables(t2m=(280 + latitudes() / 2, "K"), z500=self.height))
        drawn = {}
        for contours in (None, True, False):
            figure = plot.maps(forecast, contours=contours)
            drawn[contours] = [
                sum(isinstance(artist, QuadContourSet) for artist in axes.collections) for axes in figure.axes[:2]
            ]
        assert drawn == {None: [0, 1], True: [1, 1], False: [0, 0]}

    def test_labels_are_whole_and_apart(self):
        figure = plot.maps(one_forecast(variables(z500=self.height)))
        labels = [text for text in figure.axes[0].texts if text.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        assert not any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])
        assert {"444", "516"} <= {label.get_text() for label in labels}
        assert not plot.maps(one_forecast(variables(z500=self.height)), width=2).axes[0].texts


class TestArrows:
    def directions(self, projection, u, v):
        forecast = one_forecast(variables(t2m=(280 + latitudes(), "K"), u10=(u, "m s-1"), v10=(v, "m s-1")))
        figure = plot.maps(forecast, variable="t2m", arrows=("u10", "v10"), projection=projection)
        arrows = only(figure.axes[0], Quiver)
        return arrows.X, arrows.Y, np.stack([arrows.U, arrows.V], axis=-1), figure

    def test_point_north_east_on_a_map_of_the_pole(self):
        x, y, vectors, figure = self.directions(ccrs.NorthPolarStereo(), 10.0, 10.0)
        longitude = np.arctan2(x, -y)
        east = np.stack([np.cos(longitude), np.sin(longitude)], axis=-1)
        north = np.stack([-np.sin(longitude), np.cos(longitude)], axis=-1)
        assert len(x) > 20
        np.testing.assert_allclose(vectors, 10 * (east + north), atol=0.05)
        assert figure.axes[1].get_xlabel() == "t2m [°C], arrows: u10, v10"

    @pytest.mark.parametrize("projection", [ccrs.Robinson(), ccrs.Robinson(180), ccrs.PlateCarree()])
    def test_westerlies_point_east_up_to_the_edge(self, projection):
        x, _, vectors, _ = self.directions(projection, 10.0, 0.0)
        np.testing.assert_allclose(vectors, np.broadcast_to([10, 0], vectors.shape), atol=0.05)
        assert x.max() - x.min() > 0.9 * (projection.x_limits[1] - projection.x_limits[0])

    def test_errors(self):
        forecast = one_forecast(variables(t2m=(280, "K"), u10=(1, "m s-1")))
        for arrows, message in [
            ("u10", r"arrows='u10' must be 2 names.*\(\"u10\", \"v10\"\)"),
            (("u10", "v10"), "arrows has 'v10', which is not in forecast"),
        ]:
            with pytest.raises(ValueError, match=message):
                plot.maps(forecast, variable="t2m", arrows=arrows)


class TestRegions:
    def test_show_and_verify_their_cells(self):
        truth = variables(t2m=(280, "K"))
        forecast = one_forecast(truth)
        inside = (forecast.latitude > 35) & (forecast.latitude < 75)
        forecast["t2m"] = (forecast.t2m + xr.where(inside, 3, 100)).assign_attrs(units="K")
        figure = plot.maps(forecast, truth, region="europe")
        # centers from 36.5625 to 70.3125 and -11.25 to 39.375, across Greenwich
        extent = figure.axes[0].get_extent(ccrs.PlateCarree())
        np.testing.assert_allclose(extent, (-14.0625, 42.1875, 33.75, 73.125))
        assert figure.axes[2].get_title() == "Forecast minus truth, RMSE 3 K"

    def test_cross_the_date_line(self):
        axes = plot.maps(one_forecast(variables(t2m=(280, "K"))), region=(-20, 40, 150, -130)).axes[0]
        west, east = axes.get_xlim()
        middle = axes.projection.proj4_params.get("lon_0", axes.projection.proj4_params.get("pm"))
        np.testing.assert_allclose((west + middle, east + middle), (149.0625, 227.8125), atol=0.01)
        whole = plot.maps(one_forecast(variables(t2m=(280, "K"))), region="tropics").axes[0]
        assert np.ptp(whole.get_xlim()) == pytest.approx(360)

    @pytest.mark.parametrize(
        ("region", "message"),
        [
            ("extratropics", "region='extratropics' must be one of.*'europe'"),
            ("land", "region='land' must be one of"),
            ((40, 30, 0, 10), "40 is north of 30"),
            ((1, 2, 3, 4), "no cell"),
            (5, "south, north, west, east"),
        ],
    )
    def test_errors(self, region, message):
        with pytest.raises(ValueError, match=message):
            plot.maps(one_forecast(variables(t2m=(280, "K"))), region=region)


class TestClimatology:
    truth = with_noise(analysis(*GLOBE, steps=40), 3)

    def test_forecast_and_truth_are_anomalies_in_kelvin(self):
        truth, normal = self.truth, climatology(self.truth)
        forecast = perfect_forecast(truth)
        projection = ccrs.PlateCarree(177.1875)  # its edge splits no cell
        options = {"lead": "6h", "init": "2018-01-01T06", "projection": projection}
        figure = plot.maps(forecast, truth, climatology=normal, **options)
        anomaly = truth.t2m.isel(time=2) - normal.t2m.isel(hour=2).squeeze(drop=True)
        for axes in figure.axes[:2]:
            np.testing.assert_allclose(meshes(axes)[0].get_array(), anomaly.values, atol=1e-4)
            (low, high), colors = scale_of(axes)
            assert low == -high and colors == "RdBu_r"
        assert figure.axes[3].get_xlabel() == "2 metre temperature anomaly [K]"

    def test_contours_are_of_the_full_field(self):
        height = (self.truth.t2m.drop_attrs() * 0 + TestContours.height[0]).assign_attrs(units="m2 s-2")
        truth = self.truth.assign(z500=height)
        figure = plot.maps(perfect_forecast(truth), truth, variable="z500", climatology=climatology(truth))
        assert 504 in only(figure.axes[0], QuadContourSet).levels
        label = figure.axes[3].get_xlabel().replace("\n", " ")
        assert label == "z500 anomaly [gpdam], contours of z500 every 12 gpdam"

    def test_errors(self):
        forecast, normal = one_forecast(self.truth), climatology(self.truth)
        with pytest.raises(ValueError, match="climatology has no 't2m'"):
            plot.maps(forecast, climatology=normal.rename(t2m="t"))
        with pytest.raises(ValueError, match="'K' in forecast and in 'degC' in climatology"):
            plot.maps(forecast, climatology=normal.assign(t2m=normal.t2m.assign_attrs(units="degC")))
        with pytest.raises(ValueError, match="climatology has no latitude"):
            plot.maps(forecast, climatology=normal.isel(latitude=slice(0, 9)))


def test_small_maps_have_borders_and_fine_coastlines():
    latitude, longitude = np.arange(40.5, 60), np.arange(-9.5, 15)
    forecast = one_forecast(analysis(latitude, longitude, 0, steps=2))
    small = plot.maps(forecast, projection=ccrs.PlateCarree())
    large = plot.maps(one_forecast(analysis(*GLOBE, 0, steps=2)), projection=ccrs.PlateCarree())
    along = np.arange(6.8, 8.4, 0.01)
    # the Rhine at 48 N is the border of France and Germany, at 7.6 E
    dark = [
        colors_at(figure, figure.axes[0], along, np.full_like(along, 48.0), dpi=300).max(axis=-1) < 0.6
        for figure in (small, large)
    ]
    assert dark[0].any() and np.abs(along[dark[0]] - 7.58).max() < 0.2
    assert not dark[1].any()
    # the Isle of Man, at 4.5 W and 54.2 N, is no land at 1 : 110 million
    around = np.arange(-5, -4, 0.02)
    isle = colors_at(small, small.axes[0], around, np.full_like(around, 54.2), dpi=300)
    assert (isle.max(axis=-1) < 0.5).sum() >= 2
