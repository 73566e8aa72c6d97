"""Other programs read the files correctly: their numbers are compared, not only their exit status."""

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from factories import waves

from simvp_climate.data import conversions
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.opening import open_dataset, open_sample
from simvp_climate.data.windows import valid_times
from simvp_climate.forecasting import cf_encoding
from simvp_climate.metrics.baselines.simple_persistence import persistence


@pytest.fixture(scope="module")
def forecast(forecaster):
    return forecaster(waves(), every="24h")


@pytest.fixture(scope="module")
def file(forecast, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.nc"
    conversions.to_valid_time(forecast, forecast.init_time[2]).to_netcdf(path)
    return path


def area_mean(field):
    return field.weighted(latitude_weights(field)).mean(("latitude", "longitude"))


def cdo_levels(path, name):
    command = ["cdo", "-s", "showlevel", f"-selname,{name}", str(path)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not result.stderr.strip()
    return " ".join(result.stdout.split())


class TestValidTime:
    def test_dimensions_and_coordinates(self, forecast):
        one = conversions.to_valid_time(forecast, forecast.init_time[1])
        assert one.t2m.dims == ("time", "latitude", "longitude")
        np.testing.assert_array_equal(one.time, forecast.valid_time[1])
        assert one.time.attrs["axis"] == "T" and one.forecast_reference_time.ndim == 0
        np.testing.assert_array_equal(one.t2m, forecast.t2m[1])

    def test_round_trip_in_memory_and_through_files(self, forecast, tmp_path):
        forecasts = [conversions.to_valid_time(forecast, init) for init in forecast.init_time]
        xr.testing.assert_identical(conversions.from_valid_time(forecasts), forecast)
        paths = conversions.save_valid_time(forecast, tmp_path / "made")
        assert [path.name for path in paths[:2]] == ["forecast_20010102T00.nc", "forecast_20010103T00.nc"]
        back = conversions.from_valid_time([xr.open_dataset(path, decode_timedelta=True) for path in paths])
        xr.testing.assert_identical(back.load(), forecast)
        # the result can be written again
        back.to_netcdf(tmp_path / "again.nc")
        xr.testing.assert_identical(xr.load_dataset(tmp_path / "again.nc", decode_timedelta=True), forecast)

    def test_one_forecast_needs_no_init(self, forecast):
        one = forecast.isel(init_time=[3])
        xr.testing.assert_identical(
            conversions.to_valid_time(one), conversions.to_valid_time(forecast, one.init_time[0])
        )
        xr.testing.assert_identical(
            conversions.to_valid_time(forecast.isel(init_time=3)), conversions.to_valid_time(one)
        )

    def test_a_selected_lead_time_and_dates_as_text(self, forecast):
        one = conversions.to_valid_time(forecast.isel(lead_time=1), forecast.init_time[2])
        np.testing.assert_array_equal(one.t2m, forecast.t2m[2, [1]])
        whole = conversions.to_valid_time(forecast, "2001-01-04")
        xr.testing.assert_identical(whole, conversions.to_valid_time(forecast, forecast.init_time[2]))
        same = conversions.to_valid_time(forecast.isel(init_time=2), forecast.init_time[2])
        xr.testing.assert_identical(same, whole)

    def test_coordinates_for_other_programs(self, forecast, file):
        with xr.open_dataset(file, decode_cf=False) as raw:
            assert raw.z500.attrs["coordinates"] == "pressure_500" and raw.t2m.attrs["coordinates"] == "height_2"
            assert raw.pressure_500.attrs["units"] == "hPa" and raw.pressure_500 == 500
            # iris warns of a global attribute `coordinates`, CDO of these names at the variables
            assert "coordinates" not in raw.attrs
            assert raw.time.attrs["coordinates"] == "forecast_period forecast_reference_time"
            assert "dtype" not in raw.forecast_period.attrs and raw.forecast_period.attrs["units"] == "hours"
            np.testing.assert_array_equal(raw.forecast_period, [6, 12, 18])
            axes = {name: raw[name].attrs["axis"] for name in ("time", "latitude", "longitude")}
        assert axes == {"time": "T", "latitude": "Y", "longitude": "X"}
        np.testing.assert_array_equal(open_dataset(file, ["z500"]).z500, forecast.z500[2])
        # leads of ten minutes are exact in minutes
        quick = forecast.assign_coords(lead_time=forecast.lead_time / 36).drop_vars("valid_time")
        quick = cf_encoding.encode(quick.assign_coords(valid_time=quick.init_time + quick.lead_time))
        one = conversions.to_valid_time(quick, quick.init_time[0])
        assert one.forecast_period.values.tolist() == [10, 20, 30] and one.forecast_period.attrs["units"] == "minutes"
        np.testing.assert_array_equal(conversions.from_valid_time(one).lead_time, quick.lead_time)

    def test_errors(self, forecast, tmp_path):
        with pytest.raises(ValueError, match=r"has \d+ initializations. Select one"):
            conversions.to_valid_time(forecast)
        with pytest.raises(ValueError, match="1999.* is not in the forecast"):
            conversions.to_valid_time(forecast, np.datetime64("1999-01-01"))
        with pytest.raises(ValueError, match="not a forecast: it lacks init_time and lead_time"):
            conversions.to_valid_time(waves())
        with pytest.raises(FileNotFoundError, match="no folder"):
            conversions.save_valid_time(forecast, tmp_path / "nowhere" / "else")
        with pytest.raises(ValueError, match="add %d, %H"):
            conversions.save_valid_time(forecast, tmp_path, name="f_%Y.nc")
        with pytest.raises(ValueError, match="lacks .*to_valid_time"):
            conversions.from_valid_time(forecast)
        assert not list(tmp_path.iterdir())


class TestWeatherBench2:
    def test_round_trip_through_a_store(self, forecast, tmp_path):
        store = conversions.to_weatherbench2(forecast)
        assert set(store.dims) == {"time", "prediction_timedelta", "latitude", "longitude"}
        assert list(store.data_vars) == ["geopotential_500", "2m_temperature"]
        assert "valid_time" not in store.coords
        store.to_zarr(tmp_path / "wb2.zarr", zarr_format=2, consolidated=True)
        back = open_dataset(tmp_path / "wb2.zarr", ["z500", "t2m"])
        for name in ("z500", "t2m"):
            np.testing.assert_array_equal(back[name].transpose(*forecast[name].dims), forecast[name])
        np.testing.assert_array_equal(back.valid_time, forecast.valid_time)

    def test_levels_longitudes_and_heights(self, forecast):
        level = xr.DataArray([85000.0, 50000.0], dims="level", attrs={"units": "Pa", "standard_name": "air_pressure"})
        both = forecast.t2m.expand_dims(level=level, axis=2).assign_attrs(units="K")
        west = forecast.assign(temperature=both).assign_coords(longitude=(forecast.longitude + 180) % 360 - 180)
        west["z500"] = (west.z500 / 9.80665).assign_attrs(units="m")
        store = conversions.to_weatherbench2(west.sortby("longitude"))
        assert list(store.data_vars) == ["geopotential_height_500", "2m_temperature", "temperature"]
        assert store.level.values.tolist() == [850, 500] and store.level.dtype == np.int32
        np.testing.assert_allclose(store.longitude, forecast.longitude)
        np.testing.assert_array_equal(store["2m_temperature"], forecast.t2m)

    def test_months_are_refused(self, forecast):
        monthly = forecast.assign_coords(lead_time=("lead_time", [1, 2, 3], {"units": "months"}))
        monthly = monthly.assign_coords(valid_time=valid_times(monthly["init_time"], monthly["lead_time"]))
        with pytest.raises(ValueError, match="calendar months"):
            conversions.to_weatherbench2(monthly)


class TestClimpred:
    def test_layout_and_round_trip(self, forecast):
        hindcast = conversions.to_climpred(forecast)
        assert hindcast.t2m.dims == ("init", "lead", "latitude", "longitude") and "valid_time" not in hindcast.coords
        assert hindcast.lead.values.tolist() == [6, 12, 18] and hindcast.lead.attrs["units"] == "hours"
        xr.testing.assert_identical(conversions.from_climpred(hindcast), forecast)
        days = conversions.to_climpred(persistence(waves(), waves().time[:2], ["1D", "3D"]))
        assert days.lead.values.tolist() == [1, 3] and days.lead.attrs["units"] == "days"
        members = forecast.expand_dims(number=[0, 1], axis=2)
        assert conversions.to_climpred(members).t2m.dims[:3] == ("init", "lead", "member")
        xr.testing.assert_equal(conversions.from_climpred(conversions.to_climpred(members)), members)

    @pytest.mark.parametrize(("units", "months"), [("months", [1, 2]), ("seasons", [3, 6]), ("years", [12, 24])])
    def test_calendar_units(self, units, months):
        hindcast = conversions.to_climpred(persistence(waves(), waves().time[:2], ["6h", "12h"]))
        hindcast = hindcast.assign_coords(lead=("lead", [1, 2], {"units": units}))
        back = conversions.from_climpred(hindcast)
        assert back.lead_time.values.tolist() == months and back.lead_time.attrs["units"] == "months"
        assert str(back.valid_time.values[0, 0])[:7] == str(np.datetime64("2001-01", "M") + months[0])
        again = conversions.to_climpred(back)
        assert again.lead.values.tolist() == months and again.lead.attrs["units"] == "months"

    def test_errors(self, forecast):
        hindcast = conversions.to_climpred(forecast)
        with pytest.raises(ValueError, match="has no dimension init_time"):
            conversions.to_climpred(forecast.isel(init_time=0))
        with pytest.raises(ValueError, match="init is missing"):
            conversions.from_climpred(forecast)
        hindcast["lead"].attrs["units"] = "fortnights"
        with pytest.raises(ValueError, match="units of lead are 'fortnights'"):
            conversions.from_climpred(hindcast)

    def test_climpred_verifies_it(self, monkeypatch):
        pytest.importorskip("climpred")
        import compliance_checker
        import pooch

        # climpred would download this table
        table = Path(compliance_checker.__file__).parent / "data" / "cf-standard-name-table.xml"
        monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(table))
        truth = waves()
        forecast = persistence(truth, truth.time[4:40:4], ["6h", "12h"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from climpred import HindcastEnsemble

            hindcast = HindcastEnsemble(conversions.to_climpred(forecast)).add_observations(truth)
            result = hindcast.verify(metric="rmse", comparison="e2o", dim="init", alignment="maximize")
            back = conversions.from_climpred(hindcast.get_initialized())
        error = forecast - truth.sel(time=forecast.valid_time)
        np.testing.assert_allclose(result.t2m, np.sqrt((error.t2m**2).mean("init_time")), rtol=1e-5)
        assert result.lead.values.tolist() == [6, 12]
        xr.testing.assert_equal(back.t2m.drop_vars("pressure_500"), forecast.t2m)


class TestShortNames:
    def test_known_and_unknown(self, forecast):
        long = forecast.rename(z500="geopotential_500", t2m="2m_temperature").assign(fog=forecast.t2m)
        assert list(conversions.short_names(long).data_vars) == ["z500", "t2m", "fog"]

    def test_a_short_name_of_two_variables_is_refused(self, forecast):
        with pytest.raises(ValueError, match="two variables would be called 't2m'"):
            conversions.short_names(forecast.assign({"2m_temperature": forecast.t2m}))


class TestClients:
    @pytest.mark.parametrize("form", ["as it is", "valid time", "zarr", "intervals"])
    def test_the_compliance_checker_has_no_objection(self, forecast, file, forecaster, tmp_path, form):
        from compliance_checker.runner import CheckSuite, ComplianceChecker

        path = file
        if form == "as it is":
            path = tmp_path / "f.nc"
            forecast.to_netcdf(path)
        elif form == "intervals":
            bands = forecaster.interval(0.9, waves(), every="6h")
            path = tmp_path / "f.nc"
            bands(forecast).to_netcdf(path)
            xr.testing.assert_identical(xr.load_dataset(path, decode_timedelta=True), bands(forecast))
        elif form == "zarr":  # as it comes back from a store
            forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)
            stored = xr.open_zarr(tmp_path / "f.zarr", consolidated=False, decode_timedelta=True)
            xr.testing.assert_identical(stored.load(), forecast)
            path = tmp_path / "f.nc"
            cf_encoding.encode(stored).to_netcdf(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CheckSuite.load_all_available_checkers()
            passed, errors = ComplianceChecker.run_checker(
                str(path), ["cf:1.8"], 0, "strict", output_filename=str(tmp_path / "report.txt"), output_format="text"
            )
        # the checker reports an error because it subtracts the texts "lower" and "upper"
        assert passed and (not errors or form == "intervals"), (tmp_path / "report.txt").read_text()
        assert "All tests passed!" in (tmp_path / "report.txt").read_text()

    def test_iris_reads_dimensions_and_numbers(self, forecast, file, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import iris

            cube = iris.load_cube(str(file), iris.NameConstraint(var_name="t2m"))
            forecast.to_netcdf(tmp_path / "f.nc")
            whole = iris.load_cube(str(tmp_path / "f.nc"), iris.NameConstraint(var_name="t2m"))
            times = cube.coord("time").units.num2pydate(cube.coord("time").points)
        assert [c.name() for c in cube.coords(dim_coords=True)] == ["time", "latitude", "longitude"]
        assert cube.units == "K" and cube.name() == "air_temperature"
        np.testing.assert_array_equal(cube.data, forecast.t2m[2])
        np.testing.assert_array_equal(np.array(times, "M8[ns]"), forecast.valid_time[2])
        names = [c.name() for c in whole.coords(dim_coords=True)]
        assert names == ["forecast_reference_time", "forecast_period", "latitude", "longitude"]
        np.testing.assert_array_equal(whole.data, forecast.t2m)
        assert not whole.coords("air_pressure")
        level = iris.load_cube(str(tmp_path / "f.nc"), iris.NameConstraint(var_name="z500")).coord("air_pressure")
        assert level.points.tolist() == [500] and str(level.units) == "hPa"

    def test_cf_xarray_finds_the_axes(self, forecast, file):
        import cf_xarray  # noqa: F401

        one = xr.load_dataset(file, decode_timedelta=True)
        assert one.cf["time"].name == "time" and one.cf["T"].name == "time"
        assert one.cf["latitude"].name == "latitude"
        np.testing.assert_array_equal(one.cf["geopotential"], forecast.z500[2])
        assert forecast.cf["time"].name == "valid_time"

    def test_metpy_calculates(self, forecast, file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import metpy.calc
            import metpy.xarray  # noqa: F401

            one = xr.load_dataset(file, decode_timedelta=True).metpy.parse_cf()
            assert one.t2m.metpy.time.name == "time" and one.t2m.metpy.y.name == "latitude"
            celsius = one.t2m.metpy.quantify().metpy.convert_units("degC")
            np.testing.assert_allclose(celsius.metpy.dequantify(), forecast.t2m[2] - 273.15, atol=1e-4)

    @pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed (apt-get install cdo)")
    def test_cdo_gets_our_area_mean(self, tmp_path):
        ds = open_sample().isel(time=slice(0, 20))
        forecast = cf_encoding.encode(persistence(ds, ds.time[[4, 8]], ["6h", "12h"]))
        conversions.to_valid_time(forecast, forecast.init_time[1]).to_netcdf(tmp_path / "one.nc")
        subprocess.run(["cdo", "-s", "fldmean", "one.nc", "mean.nc"], check=True, cwd=tmp_path)
        result = xr.load_dataset(tmp_path / "mean.nc", decode_timedelta=False)
        for name in ("t2m", "z500"):
            # CDO joins the corners of cells by great circles, we by circles of latitude: the area of the outermost row
            # differs by two thousandths, the mean by three parts in 100 000; one without weights by two hundredths
            np.testing.assert_allclose(result[name].values.ravel(), area_mean(forecast[name][1]), rtol=5e-5)
            assert abs(float(forecast[name][1].mean()) / float(result[name].mean()) - 1) > 0.01
        np.testing.assert_array_equal(result["time"], forecast.valid_time[1])

    @pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed (apt-get install cdo)")
    def test_cdo_reads_times_and_levels_without_a_warning(self, forecast, tmp_path):
        level = xr.DataArray([85000, 50000], dims="level", attrs={"units": "Pa"})
        both = forecast.t2m.expand_dims(level=level, axis=2).assign_attrs(units="K")
        with_levels = cf_encoding.encode(forecast.assign(temperature=both))
        with_levels["level"].attrs |= {"units": "Pa", "standard_name": "air_pressure"}
        conversions.to_valid_time(with_levels, forecast.init_time[1]).to_netcdf(tmp_path / "one.nc")
        result = subprocess.run(["cdo", "sinfon", "one.nc"], check=True, cwd=tmp_path, capture_output=True, text=True)
        assert "arning" not in result.stdout + result.stderr and not result.stderr.strip()
        for text in ("pressure_500 : 500 hPa", "time : 3 steps", "ForecastRefTime =  2001-01-03T00:00:00"):
            assert text in result.stdout
        for name in ("z500", "t2m", "temperature"):
            assert f": {name} " in result.stdout
        more = with_levels.assign(msl=forecast.t2m, u10=forecast.t2m, t850=forecast.t2m, tp=forecast.t2m)
        conversions.to_valid_time(more, forecast.init_time[1]).to_netcdf(tmp_path / "more.nc")
        expected = {
            "z500": "500",
            "t850": "850",
            "t2m": "2",
            "u10": "10",
            "msl": "0",
            "tp": "0",
            "temperature": "85000 50000",
        }
        assert {name: cdo_levels(tmp_path / "more.nc", name) for name in expected} == expected
        # the cloud cover is on no level
        conversions.to_valid_time(more.assign(tcc=forecast.t2m), forecast.init_time[1]).to_netcdf(tmp_path / "all.nc")
        assert {cdo_levels(tmp_path / "all.nc", name) for name in ("z500", "t2m", "tcc")} == {"0"}

    @pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed (apt-get install cdo)")
    def test_cdo_keeps_variables_on_one_level_of_a_file_as_it_is(self, forecast, tmp_path):
        forecast.to_netcdf(tmp_path / "f.nc")
        result = subprocess.run(["cdo", "-s", "showname", "f.nc"], cwd=tmp_path, capture_output=True, text=True)
        assert result.stdout.split() == ["z500", "t2m"]

    @pytest.mark.skipif(shutil.which("ncks") is None, reason="nco is not installed (apt-get install nco)")
    def test_nco_cuts_and_averages(self, forecast, tmp_path):
        forecast.to_netcdf(tmp_path / "f.nc")
        command = ["ncra", "-O", "-d", "lead_time,12.", "-d", "init_time,0,1", str(tmp_path / "f.nc")]
        subprocess.run([*command, str(tmp_path / "out.nc")], check=True)
        result = xr.load_dataset(tmp_path / "out.nc", decode_times=False)
        np.testing.assert_allclose(result.t2m.squeeze(), forecast.t2m[:2, 1].mean("init_time"), rtol=1e-6)
