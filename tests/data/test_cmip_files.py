"""Files of CMIP6: known monthly means, units, calendars, levels, members, and the programs that read them."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import simvp_climate as sc
from simvp_climate.data import monthly_means
from simvp_climate.data.cmip_variables import mean_resolution, nominal_resolution
from simvp_climate.data.regridding import column_edges, row_edges

LATITUDE, LONGITUDE = np.arange(67.5, -90, -45), np.arange(-180, 180, 60.0)
YEAR_2001 = {"start": "2001-01-01", "periods": 59, "freq": "1D"}


def run_of(units, dates=YEAR_2001, calendar=None, values=None, members=(), levels=(), method=None, **attrs):
    """Return a run whose variables, {name: units}, are the day of the month plus 10 sin(latitude) + cos(longitude)."""
    # the unit of dates is that of the calendar's type
    times = (
        xr.date_range(**dates, use_cftime=True, calendar=calendar) if calendar else pd.date_range(**dates, unit="ns")
    )
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    field = xr.DataArray(np.asarray(times.day if values is None else values, dtype=float), dims="time")
    field = field + xr.zeros_like(xr.DataArray(LATITUDE, dims="latitude")) + xr.DataArray(pattern(), dims=GRID)
    if members:
        coords["number"] = ("number", list(members), {"standard_name": "realization"})
        field = field + 1000.0 * xr.DataArray(list(members), dims="number")
    if levels:
        coords["level"] = ("level", list(levels), {"units": "hPa"})
        field = field + 1.0 * xr.DataArray(list(levels), dims="level")
    field = field.transpose("time", "number", "level", *GRID, missing_dims="ignore")
    attrs |= {"cell_methods": f"time: {method}"} if method else {}
    return xr.Dataset({name: field.assign_attrs(units=unit, **attrs) for name, unit in units.items()}, coords)


GRID = ("latitude", "longitude")


def pattern(latitude=LATITUDE, longitude=LONGITUDE):
    return 10 * np.sin(np.deg2rad(latitude))[:, None] + np.cos(np.deg2rad(longitude))


def with_bounds(run, period="1D", name="time_bnds"):
    end = run.indexes["time"] + pd.Timedelta(period)
    run = run.assign_coords({name: (("time", "bnds"), np.stack([run.time.values, np.asarray(end)], axis=1))})
    run["time"].attrs["bounds"] = name
    return run


def constant(name, value, units, dates=YEAR_2001, **attrs):
    """Return a run with the same value everywhere."""
    run = run_of({name: units}, dates, **attrs)
    run[name] = (0 * run[name] + value).assign_attrs(run[name].attrs)
    return run


def written(run, folder, **settings):
    """Return {name of the variable: Dataset} of the first member, and all paths."""
    paths = sc.io.to_cmip(run, folder / "out", institution="Example", **settings)
    files = {}
    for path in paths:
        files.setdefault(path.name.split("_")[0], xr.load_dataset(path))
    return files, paths


def mean_of(run, folder, name, **settings):
    """Return the first value of a variable in the first month."""
    return float(written(run, folder, **settings)[0][name][name].values.flat[0])


class TestMeans:
    def test_daily_values_become_monthly_means_on_the_canonical_grid(self, tmp_path):
        files, paths = written(run_of({"t2m": "K"}), tmp_path)
        assert [path.name for path in paths] == [
            "tas_Amon_simvp-climate_free-run_r1i1p1f1_gn_200101-200102.nc",
            "areacella_fx_simvp-climate_free-run_r1i1p1f1_gn.nc",
        ]
        tas = files["tas"]
        assert tas.tas.dims == ("time", "lat", "lon") and tas.tas.dtype == np.float32
        assert tas.lat.values.tolist() == [-67.5, -22.5, 22.5, 67.5]
        assert tas.lon.values.tolist() == [0, 60, 120, 180, 240, 300]
        # the mean of the days 1 to 31 is 16, that of 1 to 28 is 14.5
        expected = np.array([16, 14.5])[:, None, None] + pattern(tas.lat.values, tas.lon.values)
        np.testing.assert_allclose(tas.tas, expected, atol=1e-6)

    def test_times_are_the_middles_of_months_with_bounds(self, tmp_path):
        tas = written(run_of({"t2m": "K"}), tmp_path)[0]["tas"]
        assert tas.time.values.astype("M8[h]").astype(str).tolist() == ["2001-01-16T12", "2001-02-15T00"]
        assert tas.time_bnds.values.astype("M8[D]").astype(str).tolist() == [
            ["2001-01-01", "2001-02-01"], ["2001-02-01", "2001-03-01"],
        ]  # fmt: skip
        assert tas.lat_bnds.values.tolist() == [[-90, -45], [-45, 0], [0, 45], [45, 90]]
        assert tas.lon_bnds.values[[0, -1]].tolist() == [[-30, 30], [270, 330]]
        assert tas.height == 2 and tas.height.attrs["positive"] == "up"
        raw = xr.load_dataset(tmp_path / "out" / "tas_Amon_simvp-climate_free-run_r1i1p1f1_gn_200101-200102.nc",
                              decode_times=False)  # fmt: skip
        assert raw.time.attrs["units"] == "days since 1850-01-01" and raw.time.attrs["calendar"] == "standard"
        # 151 years with 37 leap days: 1852 to 2000 but for 1900
        assert raw.time.dtype == np.float64 and raw.time.values[0] == 151 * 365 + 37 + 15.5

    @pytest.mark.parametrize(("calendar", "february", "middle"), [("noleap", 28, 15.0), ("360_day", 30, 16.0)])
    def test_calendars(self, tmp_path, calendar, february, middle):
        january = 30 if calendar == "360_day" else 31
        dates = {"start": "2004-01-01", "periods": january + february, "freq": "1D"}
        files, _ = written(run_of({"t2m": "K"}, dates, calendar=calendar), tmp_path)
        tas = files["tas"]
        assert tas.time.dt.calendar == calendar
        time = tas.time.values[1]
        assert (time.month, time.day + time.hour / 24) == (2, middle)
        assert [str(edge)[:10] for edge in tas.time_bnds.values[1]] == ["2004-02-01", "2004-03-01"]
        means = tas.tas.values[:, 0, 0] - pattern()[-1, 3]
        np.testing.assert_allclose(means, [(january + 1) / 2, (february + 1) / 2], atol=1e-5)

    def test_leap_days_count(self, tmp_path):
        dates = {"start": "2004-02-01", "periods": 29, "freq": "1D"}
        tas = written(run_of({"t2m": "K"}, dates), tmp_path)[0]["tas"]
        np.testing.assert_allclose(tas.tas[0, 0, 0] - pattern()[-1, 3], 15, atol=1e-6)

    def test_months_of_states_hold_those_after_their_beginning_up_to_their_end(self, tmp_path):
        dates = {"start": "2001-01-01", "periods": 31 * 4 + 1, "freq": "6h"}
        run = run_of({"t2m": "K"}, dates, values=np.arange(125))
        tas = written(run.isel(time=slice(1, None)), tmp_path)[0]["tas"].tas
        np.testing.assert_allclose(tas[:, 0, 0] - pattern()[-1, 3], [np.arange(1, 125).mean()], rtol=1e-6)
        expected = sc.metrics.time_mean(run, "1MS").t2m.sel(time="2001-01")
        np.testing.assert_allclose(tas.values[0, ::-1], np.roll(expected[0], -3, axis=1), rtol=1e-6)

    def test_monthly_means_stay(self, tmp_path):
        run = run_of({"t2m": "K"}, {"start": "2001-01-01", "periods": 3, "freq": "MS"}, values=[1, 2, 3], method="mean")
        tas = written(run, tmp_path)[0]["tas"]
        np.testing.assert_allclose(tas.tas[:, 0, 0] - pattern()[-1, 3], [1, 2, 3], atol=1e-6)
        single = run.isel(time=[1]).assign_coords(time_bnds=(("time", "bnds"), pd.to_datetime([["2001-02", "2001-03"]])
                          if False else np.array([["2001-02-01", "2001-03-01"]], "M8[ns]")))  # fmt: skip
        again = written(single, tmp_path)[0]["tas"]
        np.testing.assert_array_equal(again.tas[0], tas.tas[1])

    def test_incomplete_months_are_counted(self, tmp_path):
        run = run_of({"t2m": "K"}, {"start": "2001-01-02", "periods": 100, "freq": "1D"})
        with pytest.warns(UserWarning, match="^2 incomplete months are left out"):
            files, paths = written(run, tmp_path)
        assert paths[0].name.endswith("_200102-200103.nc")
        assert "2 incomplete months are left out" in files["tas"].attrs["history"]

    def test_a_gap_makes_a_month_incomplete(self, tmp_path):
        run = run_of({"t2m": "K"}).drop_isel(time=40)
        with pytest.warns(UserWarning, match="^1 incomplete months"):
            assert written(run, tmp_path)[1][0].name.endswith("_200101-200101.nc")

    @pytest.mark.parametrize("freq", ["7D", "3MS"])
    def test_periods_that_do_not_fill_months_are_refused(self, tmp_path, freq):
        run = run_of({"t2m": "K"}, {"start": "2001-01-01", "periods": 9, "freq": freq})
        if freq == "3MS":
            ends = run.indexes["time"] + pd.DateOffset(months=3)
            run = run.assign_coords(time_bnds=(("time", "bnds"), np.stack([run.time.values, ends.values], axis=1)))
        with pytest.raises(
            ValueError, match="no month is complete in the run, 2001-01-01 .* must fill a calendar month"
        ):
            written(run, tmp_path)

    def test_missing_values_stay_missing(self, tmp_path):
        run = run_of({"sst": "K"})
        run["sst"] = run.sst.where((run.longitude != 0) & ((run.time.dt.day != 3) | (run.longitude != 60)))
        tos = written(run, tmp_path)[0]["tos"].tos
        assert np.isnan(tos.sel(lon=[0, 60])).all() and np.isfinite(tos.sel(lon=[120, 180, 240, 300])).all()
        assert tos.encoding["_FillValue"] == np.float32(1e20)

    def test_dask_and_memory_give_the_same(self, tmp_path, monkeypatch):
        run = run_of({"t2m": "K"}, members=(0, 1))
        in_memory, lazy = written(run, tmp_path)[0]["tas"], written(run.chunk(time=7), tmp_path)[0]["tas"]
        np.testing.assert_array_equal(lazy.tas, in_memory.tas)
        monkeypatch.setattr(monthly_means, "_READ_BYTES", 1)  # one month at a time
        np.testing.assert_array_equal(written(run, tmp_path)[0]["tas"].tas, in_memory.tas)


class TestUnits:
    @pytest.mark.parametrize(
        ("name", "value", "units", "cmip_name", "cmip_value", "cmip_units"),
        [
            ("t2m", 27.0, "degC", "tas", 300.15, "K"),
            ("msl", 1013.25, "hPa", "psl", 101325, "Pa"),
            ("sp", 1e5, "Pa", "ps", 1e5, "Pa"),
            ("u10", 5, "m s**-1", "uas", 5, "m s-1"),
            ("10m_v_component_of_wind", 5, "m/s", "vas", 5, "m s-1"),
            ("tcc", 0.25, "(0 - 1)", "clt", 25, "%"),
            ("sst", 300.15, "K", "tos", 27, "degC"),
            ("siconc", 0.5, "1", "siconca", 50, "%"),
            ("z500", 49033.25, "m2 s-2", "zg", 5000, "m"),
            ("geopotential_500", 5000, "m", "zg", 5000, "m"),
            ("t850", 280, "K", "ta", 280, "K"),
            ("q700", 5, "g kg-1", "hus", 0.005, "1"),
            ("tcwv", 25, "kg m-2", "prw", 25, "kg m-2"),
            ("pr", 8.64, "mm/day", "pr", 1e-4, "kg m-2 s-1"),
        ],
    )
    def test_conversion(self, tmp_path, name, value, units, cmip_name, cmip_value, cmip_units):
        files, _ = written(constant(name, value, units), tmp_path)
        np.testing.assert_allclose(files[cmip_name][cmip_name], cmip_value, rtol=1e-6)
        assert files[cmip_name][cmip_name].attrs["units"] == cmip_units

    def test_amounts_of_six_hours(self, tmp_path):
        """1 mm in 6 h is 1 kg m-2 in 21600 s."""
        dates = {"start": "2001-01-01", "periods": 31 * 4 + 1, "freq": "6h"}
        run = constant("tp", 1e-3, "m", dates)
        run["tp"][0] = 99  # falls before January
        with pytest.warns(UserWarning, match="^1 incomplete months"):
            assert mean_of(run, tmp_path, "pr") == pytest.approx(1 / 21600)
        daily = with_bounds(constant("tp", 1, "mm", method="mean"))
        assert mean_of(daily, tmp_path, "pr", accumulation="6h") == pytest.approx(1 / 21600)
        assert mean_of(with_bounds(constant("tp6h", 1, "mm", method="mean")), tmp_path, "pr") == pytest.approx(
            1 / 21600
        )

    def test_sums_over_periods(self, tmp_path):
        daily = with_bounds(constant("tp", 8.64, "mm", method="sum"))
        assert mean_of(daily, tmp_path, "pr") == pytest.approx(1e-4)
        months = {"start": "2001-01-01", "periods": 2, "freq": "MS"}
        run = constant("tp", 1, "mm", months, method="sum")
        run["tp"] = run.tp * xr.DataArray([31, 28], dims="time") * 8.64
        run["tp"].attrs = {"units": "mm", "cell_methods": "time: sum"}
        pr = written(run, tmp_path)[0]["pr"].pr
        np.testing.assert_allclose(pr, 1e-4, rtol=1e-6)

    @pytest.mark.parametrize(
        ("run", "settings", "message"),
        [
            (with_bounds(constant("tp", 1, "mm", method="mean")), {}, "'tp' is a mean of amounts.*accumulation='6h'"),
            (constant("tp", 1, "mm/day"), {"accumulation": "6h"}, "of no use: 'tp' is a flux in 'mm/day'"),
            (constant("tp6h", 1, "mm"), {"accumulation": "6h"}, "of no use: 'tp6h' states its time"),
            (constant("t2m", 1, "K"), {"accumulation": "6h"}, "of no use: the run has no amount"),
            (constant("tp", 1, "mm"), {"accumulation": "1MS"}, "'1MS' must be a duration"),
            (constant("tp", 1, "K"), {}, "'tp' has the units 'K'.*'kg m-2 s-1' of pr"),
            (constant("t2m", 1, "Pa"), {}, r"units 'Pa'.*'K' of tas. Correct them: run\[\"t2m\"\]"),
            (run_of({"t2m": "K"}).drop_attrs(), {}, "units None"),
            (constant("t2m", 1, "K", method="sum"), {}, "'t2m' is a sum over time, but tas is a mean"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, run, settings, message):
        with pytest.raises(ValueError, match=message):
            written(run, tmp_path, **settings)
        assert not (tmp_path / "out").exists()


class TestExtremes:
    @pytest.mark.parametrize(("method", "name", "hour"), [("maximum", "tasmax", 18), ("minimum", "tasmin", 0)])
    def test_extremes_of_each_day_are_averaged(self, tmp_path, method, name, hour):
        dates = {"start": "2001-01-01", "periods": 31 * 4, "freq": "6h"}
        hours = pd.date_range(**dates).hour + 100.0 * pd.date_range(**dates).day
        run = run_of({f"t2m_{method[:3]}": "K"}, dates, values=hours, method=method)
        files, _ = written(with_bounds(run, "6h"), tmp_path)
        assert files[name][name].attrs["cell_methods"] == f"area: mean time: {method} within days time: mean over days"
        np.testing.assert_allclose(files[name][name][0, 0, 0] - pattern()[-1, 3], 1600 + hour, rtol=1e-6)
        daily = with_bounds(run_of({"t2m": "K"}, method=method))
        assert name in written(daily, tmp_path)[0], "the cell method counts, not the name"

    def test_extremes_over_months_are_refused(self, tmp_path):
        months = {"start": "2001-01-01", "periods": 3, "freq": "MS"}
        with pytest.raises(ValueError, match="'t2m_max' is a maximum over 31 days.*outputs=\"1D\""):
            written(constant("t2m_max", 300, "K", months, method="maximum"), tmp_path)

    def test_extremes_of_other_variables_are_unknown(self, tmp_path):
        with pytest.raises(ValueError, match=r"'u10' \(time: maximum\) is no monthly variable of CMIP6"):
            written(constant("u10", 300, "m s-1", method="maximum"), tmp_path)


class TestLevels:
    def test_levels_descend_from_the_ground(self, tmp_path):
        ta = written(run_of({"t": "K"}, levels=(500, 1000, 850)), tmp_path)[0]["ta"]
        assert ta.ta.dims == ("time", "plev", "lat", "lon") and ta.plev.values.tolist() == [100000, 85000, 50000]
        assert ta.plev.attrs["positive"] == "down" and ta.ta.attrs["cell_methods"] == "time: mean"
        np.testing.assert_allclose(ta.ta[0, :, 0, 0] - 16 - pattern()[-1, 3], [1000, 850, 500], rtol=1e-6)

    def test_flat_variables_are_combined(self, tmp_path):
        run = run_of({"z500": "m2 s-2", "t850": "K", "z850": "m"})
        files, _ = written(run, tmp_path)
        assert files["zg"].plev.values.tolist() == [85000, 50000] and files["ta"].plev.values.tolist() == [85000]
        np.testing.assert_allclose(files["zg"].zg[:, 1], files["zg"].zg[:, 0] / 9.80665, rtol=1e-6)

    def test_a_level_that_was_selected_is_known(self, tmp_path):
        run = run_of({"t": "K"}, levels=(500, 850)).sel(level=850)
        assert written(run, tmp_path)[0]["ta"].plev.values.tolist() == [85000]

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match=r"level of 't' is not stated.*rename=\{'t': 't500'\}"):
            written(run_of({"t": "K"}), tmp_path)
        run = run_of({"t": "K"}, levels=(500, 850))
        with pytest.raises(ValueError, match=r"\['t', 't850'\] give ta twice"):
            written(run.assign(t850=run.t.sel(level=850, drop=True)), tmp_path)
        heights = run.assign_coords(
            level=("level", [2.0, 10.0], {"units": "m", "standard_name": "height", "axis": "Z"})
        )
        with pytest.raises(ValueError, match="levels 'level' of 't' are no pressures"):
            written(heights, tmp_path)
        with pytest.raises(ValueError, match="'t2m' has the dimensions .* but tas needs"):
            written(run_of({"t2m": "K"}, levels=(500, 850)), tmp_path)


class TestMembers:
    def test_labels_follow_the_numbers(self, tmp_path):
        run = run_of({"t2m": "K"}, members=(0, 3))
        files, paths = written(run, tmp_path, variant="r2i1p1f3")
        assert [path.name.split("_")[4] for path in paths] == ["r2i1p1f3", "r5i1p1f3", "r2i1p1f3"]
        fifth = xr.load_dataset(paths[1])
        np.testing.assert_allclose(fifth.tas - files["tas"].tas, 3000)
        assert fifth.attrs["realization_index"] == 5 and fifth.attrs["forcing_index"] == 3
        assert fifth.attrs["variant_label"] == "r5i1p1f3" != files["tas"].attrs["variant_label"]

    def test_a_selected_member_keeps_its_number(self, tmp_path):
        run = run_of({"t2m": "K"}, members=(0, 3))
        (path, *_) = written(run.isel(number=1), tmp_path)[1]
        assert path.name.split("_")[4] == "r4i1p1f1"

    def test_members_without_numbers_are_counted(self, tmp_path):
        run = run_of({"t2m": "K"}, members=(0, 1)).drop_vars("number")
        assert [path.name.split("_")[4] for path in written(run, tmp_path)[1]][:2] == ["r1i1p1f1", "r2i1p1f1"]


class TestNames:
    def test_unknown_variables_are_renamed_or_skipped(self, tmp_path):
        run = run_of({"t2m": "K"}).assign(air=run_of({"t2m": "K"}).t2m + 1, fog=run_of({"t2m": "K"}).t2m)
        run["air"].attrs = {"units": "K"}
        with pytest.raises(
            ValueError, match=r"'air' is no monthly variable.*skip=\['air', 'fog'\].*rename=\{'air': 'tas'\}"
        ):
            written(run, tmp_path)
        files, _ = written(run, tmp_path, rename={"air": "ts"}, skip=["fog"])
        np.testing.assert_allclose(files["ts"].ts, files["tas"].tas + 1, rtol=1e-6)
        with pytest.raises(ValueError, match=r"\['t2m', 'tas'\] give tas twice"):
            written(run, tmp_path, rename={"air": "tas"}, skip=["fog"])
        for settings in ({"rename": {"mist": "tas"}}, {"skip": ["mist"]}):
            with pytest.raises(ValueError, match="names 'mist', but the run has"):
                written(run, tmp_path, **settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"source": "my_model"}, "source='my_model' does not fit in CMIP6's file names"),
            ({"experiment": "a b"}, "experiment='a b'"),
            ({"variant": "3"}, "variant='3'.*variant='r1i1p1f1'"),
            ({"grid": "native"}, "grid='native'.*grid='gn'"),
            ({"layout": "cmip5"}, "layout='cmip5' must be 'cmip6' or 'aimip'"),
        ],
    )
    def test_names_that_do_not_fit_are_refused(self, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            written(run_of({"t2m": "K"}), tmp_path, **settings)

    def test_only_runs_are_taken(self, tmp_path):
        run = run_of({"t2m": "K"})
        forecast = sc.baselines.persistence(run, run.time[:2], ["1D"])
        with pytest.raises(ValueError, match="this is a forecast"):
            written(forecast, tmp_path)
        with pytest.raises(ValueError, match="no dimension time"):
            written(run.isel(time=0), tmp_path)
        with pytest.raises(ValueError, match="single time without bounds"):
            written(run.isel(time=[0]), tmp_path)
        with pytest.raises(ValueError, match="the run has 1 lat"):
            written(run.isel(latitude=[0]), tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            written(run, tmp_path / "absent" / "folder")

    def test_attributes(self, tmp_path):
        run = run_of({"t2m": "K"}).assign_attrs(source="SimVP 1", forecaster_sha256="abc", history="run", shape=[1, 2])
        run.attrs["license"] = "CC BY 4.0"
        files, paths = written(run, tmp_path, experiment="amip", source="SimVP-1", activity="Test")
        attrs = files["tas"].attrs
        expected = {
            "Conventions": "CF-1.7 CMIP-6.2", "activity_id": "Test", "experiment_id": "amip", "source_id": "SimVP-1",
            "institution_id": "Example", "variant_label": "r1i1p1f1", "table_id": "Amon", "frequency": "mon",
            "grid_label": "gn", "mip_era": "CMIP6", "product": "model-output", "variable_id": "tas", "realm": "atmos",
            "license": "CC BY 4.0", "source": "SimVP 1", "forecaster_sha256": "abc", "nominal_resolution": "5000 km",
            "further_info_url": "https://furtherinfo.es-doc.org/CMIP6.Example.SimVP-1.amip.none.r1i1p1f1",
            "shape": "[1, 2]", "history": "run\nmonthly means by simvp_climate; 0 incomplete months are left out",
        }  # fmt: skip
        assert {name: attrs[name] for name in expected} == expected
        assert attrs["tracking_id"].startswith("hdl:21.14100/")
        ids = {xr.load_dataset(path).attrs["tracking_id"] for path in paths}
        assert len(ids) == 2 and len(attrs["tracking_id"]) == len("hdl:21.14100/") + 36
        assert files["areacella"].attrs["table_id"] == files["areacella"].attrs["frequency"] == "fx"
        again = sc.io.to_cmip(run, tmp_path / "out", institution="Example", experiment="amip", source="SimVP-1")
        assert again == paths and sorted(again) == sorted((tmp_path / "out").iterdir())


class TestGrid:
    def test_areas_sum_to_the_sphere(self, tmp_path):
        area = written(run_of({"t2m": "K"}), tmp_path)[0]["areacella"].areacella
        np.testing.assert_allclose(area.sum(), 4 * np.pi * 6.371e6**2, rtol=1e-6)
        np.testing.assert_allclose(area[1] / area[0], np.sin(np.pi / 4) / (1 - np.sin(np.pi / 4)), rtol=1e-6)

    @pytest.mark.parametrize(
        ("columns", "rows", "mean", "name"),
        [
            (128, 64, 402, "500 km"), (256, 128, 201, "250 km"), (180, 120, 245, "250 km"), (96, 80, 417, "500 km"),
            (320, 160, 160.8, "250 km"), (64, 32, 803.5, "1000 km"),
        ],
    )  # fmt: skip
    def test_nominal_resolution(self, columns, rows, mean, name):
        """But for the last, the means that WCRP-CMIP/CMIP6_CVs, issue 829, states for models on such grids."""
        latitude, longitude = -90 + (np.arange(rows) + 0.5) * 180 / rows, np.arange(columns) * 360 / columns
        edges = np.stack(row_edges(latitude), axis=1), np.stack(column_edges(longitude), axis=1)
        assert mean_resolution(*edges) == pytest.approx(mean, abs=0.6) and nominal_resolution(*edges) == name

    def test_a_region_keeps_its_columns_together(self, tmp_path):
        run = run_of({"t2m": "K"}).isel(longitude=slice(1, 5))  # 120 W to 60 E
        tas = written(run, tmp_path)[0]["tas"]
        assert tas.lon.values.tolist() == [240, 300, 360, 420]
        assert tas.lon_bnds.values.tolist() == [[210, 270], [270, 330], [330, 390], [390, 450]]


class TestAimip:
    def run(self, spacing=2.8125, names=("t2m", "d2m"), levels=()):
        latitude = np.arange(90 - spacing / 2, -90, -spacing)
        run = run_of(dict.fromkeys(names, "K"), {**YEAR_2001, "periods": 31}, levels=levels)
        return run.isel(time=slice(0, 31)).interp(
            latitude=latitude, longitude=np.arange(0, 120, spacing), kwargs={"fill_value": "extrapolate"}
        )

    def test_folders_and_names(self, tmp_path):
        files, paths = written(self.run(), tmp_path, layout="aimip", source="SimVP")
        parts = paths[0].relative_to(tmp_path / "out").parts
        assert parts[:6] == ("Example", "SimVP", "aimip", "r1i1p1f1", "Amon", "tas") and parts[6] == "gn"
        assert parts[7].startswith("v2") and parts[8] == "tas_Amon_SimVP_aimip_r1i1p1f1_gn_200101-200101.nc"
        assert files["tdas"].attrs["table_id"] == "Amon" and files["tdas"].attrs["activity_id"] == "AIMIP"

    def test_levels(self, tmp_path):
        run = self.run(names=("t",), levels=(1000, 925, 850, 700, 500, 250, 100, 50))
        ta = written(run, tmp_path, layout="aimip")[0]["ta"]
        assert ta.plev.values.tolist() == [100000, 85000, 70000, 50000, 25000, 10000, 5000]
        np.testing.assert_allclose(ta.ta[0, :, 0, 0] - ta.ta[0, 0, 0, 0], ta.plev / 100 - 1000, atol=1e-3)
        with pytest.warns(UserWarning, match="ta lacks 100, 50 hPa"):
            written(run.sel(level=[1000, 850, 700, 500, 250]), tmp_path, layout="aimip")
        with pytest.raises(ValueError, match="ta lacks .* none of the others"):
            written(run.sel(level=[925]), tmp_path, layout="aimip")

    def test_coarse_grids_are_refused_with_the_reason(self, tmp_path):
        with pytest.raises(ValueError, match=r"5.625 degrees \(625 km\), but AIMIP-1 takes at most 500 km"):
            written(self.run(spacing=5.625), tmp_path, layout="aimip")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    units = {"t2m": "K", "t2m_max": "K", "z500": "m2 s-2", "z850": "m2 s-2", "tp": "m", "sst": "K", "siconc": "1"}
    run = run_of(units, members=(0, 1)).assign_attrs(source="SimVP")
    return sc.io.to_cmip(run, tmp_path_factory.mktemp("cmip"), institution="Example")


class TestClients:
    def test_this_package_reads_them(self, paths, tmp_path):
        expected = run_of({"t2m": "K", "z500": "m2 s-2"}).resample(time="MS").mean()
        for name, asked in (("tas", "t2m"), ("zg", "z500")):
            (path,) = [path for path in paths if path.name.startswith(f"{name}_") and "_r1" in path.name]
            ds = sc.open_dataset(path, [asked])
            factor = 9.80665 if asked == "z500" else 1
            wanted = expected[asked].sel(latitude=ds.latitude, longitude=(ds.longitude + 180) % 360 - 180)
            np.testing.assert_allclose(ds[asked] * factor, wanted, rtol=1e-5)

    @pytest.mark.parametrize("name", ["tas", "tasmax", "zg", "pr", "tos", "siconca"])
    def test_files_are_runs_too(self, paths, tmp_path, name):
        (path,) = [path for path in paths if path.name.startswith(f"{name}_") and "_r1" in path.name]
        for ds in (xr.load_dataset(path), sc.open_dataset(path)):
            again = sc.io.to_cmip(ds, tmp_path, institution="Example")
            np.testing.assert_array_equal(xr.load_dataset(again[0])[name], xr.load_dataset(path)[name])

    def test_the_compliance_checker_has_no_objection(self, paths, tmp_path):
        pytest.importorskip("compliance_checker")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from compliance_checker.runner import CheckSuite, ComplianceChecker

            CheckSuite.load_all_available_checkers()
            for path in [path for path in paths if "_r1" in path.name]:
                report = tmp_path / "report.txt"
                passed, errors = ComplianceChecker.run_checker(
                    str(path), ["cf:1.7"], 0, "strict", output_filename=str(report), output_format="text"
                )
                assert passed and not errors and "All tests passed!" in report.read_text(), report.read_text()

    def test_iris_reads_names_and_numbers(self, paths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            iris = pytest.importorskip("iris")
            tasmax, zg, ice = (
                iris.load_cube(str(path), iris.NameConstraint(var_name=name))
                for name in ("tasmax", "zg", "siconca")
                for path in paths
                if path.name.startswith(f"{name}_") and "_r2" in path.name
            )
        assert (tasmax.name(), str(tasmax.units), tasmax.coord("height").points[0]) == ("air_temperature", "K", 2)
        assert [(method.method, method.coord_names) for method in tasmax.cell_methods] == [
            ("mean", ("area",)), ("maximum within days", ("time",)), ("mean over days", ("time",)),
        ]  # fmt: skip
        assert [coord.name() for coord in zg.coords(dim_coords=True)] == [
            "time", "air_pressure", "latitude", "longitude",
        ]  # fmt: skip
        assert all(zg.coord(name).has_bounds() for name in ("time", "latitude", "longitude"))
        np.testing.assert_allclose(zg.data[0, 1, 0, 0], (1016 + pattern()[-1, 3]) / 9.80665, rtol=1e-6)
        assert ice.coord("area_type").points[0] == "sea_ice"

    def test_the_checks_of_esmvaltool_pass(self, paths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("esmvalcore")
            import iris
            from esmvalcore.cmor import check, fix

            for path in paths:
                name, table = path.name.split("_")[:2]
                frequency = "fx" if table == "fx" else "mon"
                (cube,) = fix.fix_metadata(iris.load(str(path)), name, "CMIP6", "SimVP", table, frequency)
                cube = check.cmor_check_metadata(cube, "CMIP6", table, name, frequency)
                check.cmor_check_data(cube, "CMIP6", table, name, frequency)
