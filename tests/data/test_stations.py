"""Values at points by hand, in every convention of longitude, and tables of observations."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import waves

from simvp_climate.data.stations import at, station_observations

PLACES = {"Oslo": (59.9, 10.7, 94.0), "Suva": (-18.1, 178.4, 6.0), "Apia": (-13.8, -171.8, 2.0)}


def plane(latitude=None, longitude=None):
    """Return a field that is linear in latitude, 2 per degree, and in longitude away from its seam, 1 per degree."""
    latitude = np.arange(-80.0, 90, 20) if latitude is None else latitude
    longitude = np.arange(0.0, 360, 30) if longitude is None else longitude
    values = 2.0 * np.asarray(latitude)[:, None] + np.asarray(longitude)[None]
    coords = {"time": pd.date_range("2001", periods=2), "latitude": latitude, "longitude": longitude}
    return xr.Dataset({"q": (("time", "latitude", "longitude"), np.stack([values, -values]), {"units": "1"})}, coords)


def table(rows=None):
    rows = rows or [(day, name) for day in (1, 2, 3) for name in PLACES]
    columns = [(pd.Timestamp(2001, 1, day), name, *PLACES[name], 280.0 + day) for day, name in rows]
    return pd.DataFrame(columns, columns=["time", "station", "latitude", "longitude", "elevation", "t2m"])


class TestInterpolation:
    def test_bilinear_by_hand(self):
        result = at(plane(), [5.0, -33.0], [100.0, 10.0], names=["first", "second"])
        assert result.q.dims == ("time", "station") and result.station.values.tolist() == ["first", "second"]
        np.testing.assert_allclose(result.q, [[110, -56], [-110, 56]])
        assert result.q.attrs == {"units": "1"} and result.latitude.values.tolist() == [5, -33]

    def test_across_the_seam_and_in_both_conventions(self):
        # halfway from the last column, 330, to the first, 0
        np.testing.assert_allclose(at(plane(), 0.0, 345.0).q[0], [165])
        for longitude in (345.0, -15.0, 705.0):
            xr.testing.assert_equal(at(plane(), 0.0, longitude).q.drop_vars(("station", "longitude")),
                                    at(plane(), 0.0, 345.0).q.drop_vars(("station", "longitude")))  # fmt: skip
        west = plane(longitude=np.arange(-180.0, 180, 30))
        np.testing.assert_allclose(at(west, 0.0, 195.0).q[0], at(west, 0.0, -165.0).q[0])
        np.testing.assert_allclose(at(west, 0.0, 175.0).q[0], [150 * 5 / 30 - 180 * 25 / 30])

    def test_rows_in_any_order_and_dimensions_in_any_order(self):
        expected = at(plane(), [5.0, -33.0], [100.0, 350.0]).q
        upside_down = plane().isel(latitude=slice(None, None, -1)).transpose("longitude", "time", "latitude")
        np.testing.assert_allclose(at(upside_down, [5.0, -33.0], [100.0, 350.0]).q, expected)
        renamed = plane().rename(latitude="lat", longitude="lon")
        np.testing.assert_allclose(at(renamed, [5.0, -33.0], [100.0, 350.0]).q, expected)

    def test_poles_take_the_outermost_row(self):
        np.testing.assert_allclose(at(plane(), [90.0, -85.0], [60.0, 60.0]).q[0], [220, -100])

    def test_regions(self):
        region = plane(np.array([20.0, 30, 40]), np.array([340.0, 350, 0, 10]))
        np.testing.assert_allclose(at(region, 25.0, -5.0).q[0], [50 + 175])
        with pytest.raises(ValueError, match=r"1 points lie outside the grid, latitude 20 to 40, first .*45N.* \(45\)"):
            at(region, [25.0, 45.0], [0.0, 0.0])
        for longitude in (25.0, -25.0):
            with pytest.raises(ValueError, match="outside the grid, longitude 340 to 370"):
                at(region, 25.0, longitude)
        # within the outermost cell
        np.testing.assert_allclose(at(region, 44.0, 336.0, method="nearest").q[0], [420])

    def test_nearest(self):
        np.testing.assert_allclose(
            at(plane(), [4.0, 9.0, 11.0], [14.0, 16.0, 346.0], method="nearest").q[0], [0, 30, 40]
        )

    def test_missing_neighbors_count_only_with_a_weight(self):
        field = plane()
        field["q"] = field.q.where(field.longitude != 30)
        result = at(field, [0.0, 0.0, 0.0], [0.0, 29.0, 61.0])
        np.testing.assert_array_equal(result.q[0], [0, np.nan, 61])

    def test_dask_stays_lazy_and_types_stay(self):
        field = plane().astype("float32")
        lazy = at(field.chunk(time=1), [5.0], [100.0])
        assert lazy.q.chunks and lazy.q.dtype == "float32"
        np.testing.assert_array_equal(lazy.q, at(field, 5.0, 100.0).q)

    def test_a_forecast_keeps_its_times(self, forecaster):
        forecast = forecaster(waves(), every="24h")
        points = at(forecast, [11.25, -30.0], [22.5, 200.0])
        assert points.t2m.dims == ("init_time", "lead_time", "station") and "valid_time" in points.coords
        np.testing.assert_array_equal(points.t2m[:, :, 0], forecast.t2m.sel(latitude=11.25, longitude=22.5))

    def test_errors(self):
        with pytest.raises(ValueError, match="give either latitude and longitude, or stations"):
            at(plane(), 5.0)
        with pytest.raises(ValueError, match="method='cubic' must be"):
            at(plane(), 5.0, 5.0, method="cubic")
        with pytest.raises(ValueError, match="2 names for 1 points"):
            at(plane(), 5.0, 5.0, names=["a", "b"])
        with pytest.raises(ValueError, match="latitudes must be degrees within"):
            at(plane(), 95.0, 5.0)
        with pytest.raises(ValueError, match="elevation would be ignored"):
            at(plane(), 5.0, 5.0, elevation=3.0)


class TestAltitude:
    @pytest.mark.parametrize(("units", "offset"), [("K", 0.0), ("degC", -273.15)])
    def test_temperature_falls_with_height(self, units, offset):
        ds = plane().rename(q="t2m")
        ds["t2m"] = (0 * ds.t2m + 280 + offset).assign_attrs(units=units)
        ds["orography"] = 0 * ds.t2m[0].drop_vars("time") + 500
        result = at(ds, [5.0, 5.0], [100.0, 130.0], elevation=[1500.0, 300.0])
        np.testing.assert_allclose(result.t2m[0], [280 + offset - 6.5, 280 + offset + 1.3])
        assert result.elevation.attrs["units"] == "m" and "6.5 K/km" in result.t2m.attrs["comment"]
        np.testing.assert_allclose(result.orography, 500)
        # from another dataset, as geopotential
        surface = (ds[["orography"]] * 9.80665).rename(orography="zs")
        again = at(ds[["t2m"]], [5.0, 5.0], [100.0, 130.0], elevation=[1500.0, 300.0], orography=surface)
        np.testing.assert_allclose(again.t2m, result.t2m)
        np.testing.assert_allclose(at(ds, 5.0, 100.0, lapse_rate=None).t2m, 280 + offset)

    def test_of_a_climatology_the_mean_alone_changes(self):
        ds = (0 * plane().rename(q="t2m").isel(time=[0, 1], drop=True) + 280).rename(time="harmonic")
        ds = ds.assign_coords(harmonic=["mean", "annual cosine"])
        ds["t2m"].attrs["units"] = "K"
        ds["orography"] = 0 * ds.t2m[0].drop_vars("harmonic") + 500
        result = at(ds, 5.0, 100.0, elevation=1500.0)
        np.testing.assert_allclose(result.t2m.squeeze(), [280 - 6.5, 280])

    def test_without_orography(self):
        ds = plane().rename(q="t2m")
        with pytest.raises(ValueError, match="there is no orography"):
            at(ds, 5.0, 100.0, elevation=3.0)
        # a table may have elevations nevertheless
        result = at(ds, stations=table())
        assert result.t2m.attrs["comment"].startswith("not corrected")


class TestObservations:
    def test_a_long_table(self):
        observations = station_observations(
            table([(1, "Oslo"), (2, "Suva"), (1, "Suva"), (3, "Oslo")]), units={"t2m": "K"}
        )
        assert observations.t2m.dims == ("time", "station") and observations.t2m.attrs["units"] == "K"
        np.testing.assert_array_equal(observations.t2m.sel(station="Oslo"), [281, np.nan, 283])
        np.testing.assert_array_equal(observations.t2m.sel(station="Suva"), [281, 282, np.nan])
        assert observations.elevation.sel(station="Oslo") == 94 and observations.longitude.sel(station="Suva") == 178.4

    def test_names_of_columns_and_time_zones(self):
        renamed = table().rename(columns={"time": "Date", "latitude": "LAT", "longitude": "lon", "t2m": "temp"})
        renamed["Date"] = renamed["Date"].dt.tz_localize("UTC").dt.tz_convert("Europe/Oslo")
        result = station_observations(renamed, {"t2m": "temp"})
        np.testing.assert_array_equal(result.t2m, station_observations(table()).t2m)
        assert result.time.values[0] == np.datetime64("2001-01-01")

    def test_rounded_times_keep_the_nearest(self):
        close = table([(1, "Oslo"), (1, "Oslo"), (2, "Oslo")])
        close["time"] += pd.to_timedelta([-10, 5, 12], "min")
        close["t2m"] = [1.0, 2.0, 3.0]
        result = station_observations(close, round_to="1h")
        assert result.time.values[0] == np.datetime64("2001-01-01") and result.t2m.values.ravel().tolist() == [2, 3]

    @pytest.mark.parametrize("layout", ["orthogonal", "indexed", "contiguous", "incomplete", "one station"])
    def test_cf_time_series(self, layout, tmp_path):
        expected = station_observations(table([(1, "Oslo"), (1, "Suva"), (2, "Suva"), (3, "Oslo"), (3, "Suva")]))
        ids = ("place", np.array(["Oslo", "Suva"]), {"cf_role": "timeseries_id"})
        coords = {"lat": ("place", [59.9, -18.1], {"units": "degrees_north"})}
        coords |= {"lon": ("place", [10.7, 178.4], {"units": "degrees_east"}), "alt": ("place", [94.0, 6.0])}
        days = pd.to_datetime([f"2001-01-0{day}" for day in (1, 3, 1, 2, 3)])
        values, index = [281.0, 283, 281, 282, 283], ("obs", [0, 0, 1, 1, 1])
        observed = {"time": ("obs", days), "t2m": ("obs", values, {"units": "K"})}
        if layout == "orthogonal":
            ds = xr.Dataset({"t2m": (("place", "time"), expected.t2m.values.T)}, {"time": expected.time, **coords})
        elif layout == "one station":
            expected = expected.sel(station=["Oslo"])
            coords = {"lat": 59.9, "lon": 10.7, "alt": 94.0}
            ids = ((), "Oslo", {"cf_role": "timeseries_id"})
            ds = xr.Dataset({"t2m": ("time", expected.t2m.values[:, 0])}, {"time": expected.time.values, **coords})
        elif layout == "indexed":
            ds = xr.Dataset({**observed, "which": (*index, {"instance_dimension": "place"})}, coords)
        elif layout == "contiguous":
            ds = xr.Dataset({**observed, "count": ("place", [2, 3], {"sample_dimension": "obs"})}, coords)
        else:
            times = np.array([[days[0], days[1], np.datetime64("NaT")], days[2:]], dtype="M8[ns]")
            data = np.array([[281, 283, np.nan], [281, 282, 283]])
            ds = xr.Dataset({"time": (("place", "obs"), times), "t2m": (("place", "obs"), data)}, coords)
        ds.assign(place_name=ids).to_netcdf(tmp_path / "series.nc")
        result = station_observations(xr.load_dataset(tmp_path / "series.nc"), ["t2m"])
        xr.testing.assert_allclose(result.t2m, expected.t2m)
        assert result.station.values.tolist() == expected.station.values.tolist()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.drop(columns="latitude"), "no column 'latitude'.*Rename it"),
            (lambda t: pd.concat([t, t[:1]]), "'Oslo' has two observations at 2001-01-01.*drop_duplicates"),
            (lambda t: t.assign(latitude=[60.0, 1, 2, 3, 4, 5, 6, 7, 8]), "'Apia' is at several places"),
            (lambda t: t.drop(columns="t2m"), "no column of numbers"),
            (lambda t: t.assign(time=pd.NaT), "9 times of the table are missing"),
            (lambda t: t.to_numpy(), "table is a ndarray"),
        ],
    )
    def test_errors(self, change, message):
        with pytest.raises(ValueError, match=message):
            station_observations(change(table()))
        with pytest.raises(ValueError, match="no column 'tp'"):
            station_observations(table(), ["tp"])
        with pytest.raises(ValueError, match="units has .'tp'"):
            station_observations(table(), units={"tp": "m"})
