import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import two_cells

from simvp_climate.metrics.baselines import climatologies
from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.score import score


def days(start, end, freq="D"):
    return pd.date_range(start, end, freq=freq).to_numpy()


class TestPersistence:
    def test_is_the_analysis_at_init_for_every_lead(self):
        ds = two_cells(days("2000-01-01", "2000-01-05", "6h"))
        forecast = persistence(ds, ds.time[4:10:2], ["6h", "3D"])
        assert forecast.t2m.dims == ("init_time", "lead_time", "latitude", "longitude")
        np.testing.assert_array_equal(forecast.t2m[:, :, 0, 0], [[4, 4], [6, 6], [8, 8]])
        np.testing.assert_array_equal(forecast.init_time, ds.time[4:10:2])
        assert forecast.valid_time.dims == ("init_time", "lead_time")
        assert forecast.valid_time.values[1, 1] == np.datetime64("2000-01-05T12")
        assert forecast.t2m.attrs == ds.t2m.attrs
        assert forecast.attrs == ds.attrs
        xr.testing.assert_identical(forecast.longitude, ds.longitude)

    def test_minus_the_truth_is_full_and_aligned(self):
        ds = two_cells(days("2000-01-01", "2000-01-05"))
        forecast = persistence(ds, ["2000-01-01", "2000-01-02"], [np.timedelta64(1, "D"), np.timedelta64(3, "D")])
        error = forecast - ds.sel(time=forecast.valid_time)
        np.testing.assert_array_equal(error.t2m[:, :, 0, 0], [[-1, -3], [-1, -3]])

    @pytest.mark.parametrize(
        "leads",
        [
            ["6h", "1D"],
            [pd.Timedelta("6h"), pd.Timedelta("1D")],
            pd.to_timedelta(["6h", "1D"]),
            np.array([6, 24], "timedelta64[h]"),
            xr.DataArray(np.array([6, 24], "timedelta64[h]").astype("timedelta64[ns]"), dims="lead_time"),
        ],
    )
    def test_types_of_lead_times(self, leads):
        forecast = persistence(two_cells(days("2000-01-01", "2000-01-02")), "2000-01-01", leads)
        assert forecast.lead_time.dtype == "timedelta64[ns]"
        np.testing.assert_array_equal(forecast.lead_time, np.array([6, 24], "timedelta64[h]"))

    def test_calendar_months(self):
        ds = two_cells(days("2000-01-01", "2000-12-01", "MS"))
        leads = xr.DataArray([1, 2], dims="lead_time", attrs={"units": "months"})
        forecast = persistence(ds, ds.time[[0, 2]], leads)
        assert forecast.lead_time.attrs["units"] == "months"
        np.testing.assert_array_equal(
            forecast.valid_time, np.array([["2000-02", "2000-03"], ["2000-04", "2000-05"]], "datetime64[D]")
        )

    def test_keeps_names_of_the_file_and_puts_latitude_before_longitude(self):
        ds = two_cells(days("2000-01-01", "2000-01-03")).rename(latitude="lat", longitude="lon")
        ds = ds.assign_coords(expver=("time", ["1", "1", "5"]), mask=0).transpose("lon", "time", "lat")
        ds["orography"] = (("lat", "lon"), [[1.0], [2.0]])
        forecast = persistence(ds, ds.time[:1], ["1D"])
        assert forecast.t2m.dims == ("init_time", "lead_time", "lat", "lon")
        assert set(forecast.data_vars) == {"t2m"}
        assert set(forecast.coords) == {"init_time", "lead_time", "valid_time", "lat", "lon", "mask"}

    def test_dask_stays_lazy(self):
        ds = two_cells(days("2000-01-01", "2000-01-05"))
        lazy = persistence(ds.chunk(time=2), ds.time[1:3], ["1D"])
        assert lazy.t2m.chunks is not None
        xr.testing.assert_identical(lazy.compute(), persistence(ds, ds.time[1:3], ["1D"]))

    def test_a_missing_init_time_is_reported_with_the_nearest(self):
        ds = two_cells(days("2000-01-01", "2000-01-05"))
        with pytest.raises(ValueError, match=r"1 of 2 .*2000-01-09.*nearest.* 2000-01-05"):
            persistence(ds, ["2000-01-01", "2000-01-09"], ["1D"])

    def test_leads_without_unit_are_refused(self):
        with pytest.raises(ValueError, match="no unit"):
            persistence(two_cells(days("2000-01-01", "2000-01-05")), "2000-01-01", [6, 12])


class TestClimatologyByDay:
    def test_smooths_with_a_triangle_of_sixty_one_days(self):
        # 1 on day 100 of every year, else 0: the climatology is the triangle itself, of sum 30
        times = days("2001-01-01", "2003-12-31")
        clim = climatology(two_cells(times, pd.DatetimeIndex(times).day_of_year == 100))
        assert clim.t2m.dims == ("hour", "dayofyear", "latitude", "longitude")
        assert clim.hour.values.tolist() == [0]
        assert clim.dayofyear.values.tolist() == list(range(1, 367))
        cell = clim.t2m.sel(hour=0)[:, 0, 0]
        distance = abs(clim.dayofyear - 100)
        np.testing.assert_allclose(cell, (1 - distance / 30).clip(0) / 30, atol=1e-15)
        assert cell.sel(dayofyear=130) == 0
        np.testing.assert_allclose(clim.t2m[0, :, 1, 0], 10 * cell)

    def test_wraps_around_the_turn_of_the_year_through_day_366(self):
        # an ordinary year: day 366 is filled from 365, so both are 1
        times = days("2001-01-01", "2001-12-31")
        clim = climatology(two_cells(times, pd.DatetimeIndex(times).day_of_year == 365))
        cell = clim.t2m[0, :, 0, 0]
        # weights of the days 365 and 366 around day 5: distances 6 and 5 on a circle of 366
        assert float(cell.sel(dayofyear=5)) == pytest.approx((24 / 30 + 25 / 30) / 30)
        assert float(cell.sel(dayofyear=366)) == pytest.approx((1 + 29 / 30) / 30)

    def test_day_366_of_leap_years_counts_as_itself(self):
        # 2000 is a leap year, 2001 is not: day 366 averages its own 8 and the 2 of day 365 of 2001
        times = days("2000-01-01", "2001-12-31")
        index = pd.DatetimeIndex(times)
        last = (index.year == 2001) & (index.day_of_year == 365)
        values = np.where(index.day_of_year == 366, 8, np.where(last, 2, 0))
        clim = climatology(two_cells(times, values), window_days=1)
        assert clim.t2m[0].sel(dayofyear=[364, 365, 366])[:, 0, 0].values.tolist() == [0, 1, 5]

    def test_hours_are_kept_apart(self):
        times = days("2001-01-01", "2002-12-31T18", "6h")
        clim = climatology(two_cells(times, pd.DatetimeIndex(times).hour + 1))
        assert clim.hour.values.tolist() == [0, 6, 12, 18]
        np.testing.assert_allclose(clim.t2m[:, :, 0, 0], np.array([1, 7, 13, 19])[:, None] * np.ones(366))

    def test_agrees_with_weatherbench_2(self):
        # stack years, fill day 366, pad by wrapping, weighted mean over (window, year)
        rng = np.random.default_rng(0)
        times = days("2003-01-01", "2005-12-31")
        values = rng.normal(size=len(times))
        table = pd.Series(values, times)
        lengths = {"2003": 365, "2004": 366, "2005": 365}
        years = np.array([table[y].to_numpy()[np.minimum(np.arange(366), n - 1)] for y, n in lengths.items()])
        padded = np.pad(years, ((0, 0), (30, 30)), mode="wrap")
        weights = np.concatenate([np.linspace(0, 1, 31), np.linspace(1, 0, 31)[1:]])
        expected = [np.average(padded[:, d : d + 61].mean(axis=0), weights=weights) for d in range(366)]
        np.testing.assert_allclose(climatology(two_cells(times, values)).t2m[0, :, 0, 0], expected, rtol=1e-12)

    def test_partial_years_count_by_their_values(self):
        # 2001 complete with 0, January of 2002 with 3: it has no effect far from January
        times = days("2001-01-01", "2002-01-31")
        clim = climatology(two_cells(times, np.where(pd.DatetimeIndex(times).year == 2002, 3, 0)), window_days=3)
        cell = clim.t2m[0, :, 0, 0]
        assert cell.sel(dayofyear=15) == pytest.approx(1.5)
        assert cell.sel(dayofyear=180) == 0

    def test_one_missing_value_does_not_spread_and_an_empty_cell_stays_empty(self):
        times = days("2001-01-01", "2002-12-31")
        ds = two_cells(times, np.full(len(times), 4.0))
        ds.t2m[100, 0, 0] = np.nan
        ds.t2m[:, 1, 0] = np.nan
        clim = climatology(ds)
        np.testing.assert_allclose(clim.t2m[0, :, 0, 0], 4)
        assert clim.t2m[0, :, 1, 0].isnull().all()

    def test_days_without_data_in_their_window_are_left_out(self):
        # two winters: the window extends 29 days beyond the data
        times = np.concatenate([days("2001-01-01", "2001-01-31"), days("2002-01-01", "2002-01-31")])
        clim = climatology(two_cells(times))
        assert clim.dayofyear.values.tolist() == [*range(1, 61), *range(338, 367)]

    def test_blocks_do_not_change_the_result(self, monkeypatch):
        times = days("2001-01-01", "2002-06-30T12", "12h")
        ds = two_cells(times, np.random.default_rng(1).normal(size=len(times)))
        ds.t2m[17, 1, 0] = np.nan
        whole = climatology(ds)
        monkeypatch.setattr(climatologies, "_BLOCK_BYTES", 100)
        xr.testing.assert_identical(climatology(ds), whole)
        xr.testing.assert_identical(climatology(ds.chunk(time=37)), whole)

    def test_keeps_names_and_types_and_records_its_period(self):
        times = days("2001-01-01", "2001-12-31")
        ds = two_cells(times).rename(latitude="lat", longitude="lon").astype(np.float32)
        ds["level"] = 500
        ds["counts"] = (("time", "lat"), np.ones((len(times), 2), np.int16))
        ds["orography"] = (("lat", "lon"), np.ones((2, 1)))
        clim = climatology(ds)
        assert clim.t2m.dims == ("hour", "dayofyear", "lat", "lon")
        assert clim.counts.dims == ("hour", "dayofyear", "lat")
        assert clim.t2m.dtype == clim.counts.dtype == np.float32
        assert clim.t2m.attrs == ds.t2m.attrs
        assert set(clim.data_vars) == {"t2m", "counts"}
        assert clim.attrs == {
            "title": "made by hand",
            "climatology_method": "mean by hour and day of the year, triangular window of 61 days",
            "climatology_start": "2001-01-01T00:00:00",
            "climatology_end": "2001-12-31T00:00:00",
        }

    @pytest.mark.parametrize(
        ("calendar", "year", "length", "end"),
        [("noleap", 365, 366, "2002-12-31T00:00:00"), ("360_day", 360, 360, "2002-12-30T00:00:00")],
    )
    def test_other_calendars(self, calendar, year, length, end):
        times = xr.date_range("2001-01-01", periods=2 * year, calendar=calendar, use_cftime=True)
        clim = climatology(two_cells(times, np.full(len(times), 2.0)))
        assert clim.sizes["dayofyear"] == length
        np.testing.assert_allclose(clim.t2m[0, :, 0, 0], 2)
        assert clim.attrs["climatology_end"] == end

    @pytest.mark.parametrize("window", [0, 60, -1, 367])
    def test_a_window_must_be_odd(self, window):
        with pytest.raises(ValueError, match="odd number"):
            climatology(two_cells(days("2001-01-01", "2001-12-31")), window_days=window)


class TestOtherClimatologies:
    def test_monthly_data_by_month(self):
        times = days("2000-01-01", "2001-12-01", "MS")
        index = pd.DatetimeIndex(times)
        clim = climatology(two_cells(times, index.month + 100 * (index.year == 2001)))
        assert clim.t2m.dims == ("month", "latitude", "longitude")
        np.testing.assert_array_equal(clim.t2m[:, 0, 0], np.arange(1, 13) + 50)
        assert clim.attrs["climatology_method"] == "mean by month"

    def test_monthly_data_in_the_middle_of_months_with_a_gap(self):
        times = np.delete(days("2000-01-01", "2001-12-01", "MS") + np.timedelta64(14, "D"), 5)
        assert climatology(two_cells(times)).sizes["month"] == 12

    def test_short_series_by_hour(self):
        times = days("2000-12-01", "2001-02-28T12", "12h")
        clim = climatology(two_cells(times, np.where(pd.DatetimeIndex(times).hour == 12, 5, 3)))
        assert clim.t2m.dims == ("hour", "latitude", "longitude")
        assert clim.t2m[:, 0, 0].values.tolist() == [3, 5]
        assert clim.hour.values.tolist() == [0, 12]
        assert clim.attrs["climatology_method"] == "mean by hour"

    def test_one_time(self):
        clim = climatology(two_cells(days("2000-01-01", "2000-01-01"), [7]))
        assert clim.t2m.values.ravel().tolist() == [7, 70]

    def test_half_hours_get_their_labels(self):
        clim = climatology(two_cells(days("2000-01-01", "2000-01-02T23:30", "30min")), method="hourly")
        assert clim.hour.values[:3].tolist() == [0, 0.5, 1]
        picked = climatology_at(clim, xr.DataArray(np.array(["2000-05-01T00:30"], "datetime64[ns]"), dims="x"))
        assert picked.t2m[0, 0, 0] == (1 + 49) / 2

    @pytest.mark.parametrize("freq", ["MS", "D"])
    def test_an_ignored_window_is_an_error(self, freq):
        times = days("2000-01-01", "2001-12-01", freq)[:40]
        with pytest.raises(ValueError, match="leave window_days out"):
            climatology(two_cells(times), window_days=31)

    def test_no_times(self):
        with pytest.raises(ValueError, match="no times"):
            climatology(two_cells(days("2000-01-01", "2000-01-05")).isel(time=slice(0, 0)))
        with pytest.raises(ValueError, match="no dimension.*times"):
            climatology(two_cells(days("2000-01-01", "2000-01-05")).isel(time=0))

    def test_time_may_have_the_name_of_the_file(self):
        plain = two_cells(days("2000-01-01", "2000-01-05"))
        raw = plain.rename(time="valid_time")
        xr.testing.assert_identical(climatology(raw), climatology(plain))


class TestClimatologyAt:
    def test_picks_by_label_for_times_of_any_shape(self):
        times = days("2000-01-01", "2001-12-31T12", "12h")
        index = pd.DatetimeIndex(times)
        clim = climatology(two_cells(times, index.day_of_year * 100 + index.hour), window_days=1)
        # a store may hold only the days that are needed, in any order
        clim = clim.sel(dayofyear=[1, 366, 60])
        valid = xr.DataArray(
            np.array([["2020-12-31T12", "2021-01-01T00"], ["2021-03-01T12", "2020-02-29T00"]], "datetime64[ns]"),
            dims=("init_time", "lead_time"),
            coords={"lead_time": [1, 2]},
        )
        picked = climatology_at(clim, valid)
        assert picked.t2m.dims == ("init_time", "lead_time", "latitude", "longitude")
        # day 366 averages 36612 of 2000 and, filled from day 365 of 2001, 36512
        np.testing.assert_allclose(picked.t2m[:, :, 0, 0], [[36562, 100], [6012, 6000]])
        xr.testing.assert_equal(picked.lead_time, valid.lead_time)

    def test_by_month_and_by_hour(self):
        monthly = climatology(two_cells(days("2000-01-01", "2000-12-01", "MS")))
        valid = xr.DataArray(np.array(["1999-03-17", "2050-12-31"], "datetime64[ns]"), dims="init_time")
        assert climatology_at(monthly, valid).t2m[:, 0, 0].values.tolist() == [2, 11]
        single = climatology(two_cells(days("2000-01-01", "2000-01-03")), method="hourly")
        assert climatology_at(single, valid).t2m[:, 0, 0].values.tolist() == [1, 1]
        assert climatology_at(single, valid[0]).t2m.dims == ("latitude", "longitude")

    def test_less_than_a_year_warns_and_holds_its_months_only(self):
        with pytest.warns(UserWarning, match=r"from 2000-02-01.* to 2000-03-31.*less than a year.*method='hourly'"):
            short = climatology(two_cells(days("2000-02-01", "2000-03-31")))
        march, april = (
            xr.DataArray(np.array([time], "datetime64[ns]"), dims="init_time") for time in ("2004-03-31", "2004-04-01")
        )
        assert climatology_at(short, march).t2m.notnull().all()
        with pytest.raises(ValueError, match=r"2000-02-01 to 2000-03-31 .*no values of month 4.*method='hourly'"):
            climatology_at(short, april)
        asked = climatology(two_cells(days("2000-02-01", "2000-03-31")), method="hourly")
        np.testing.assert_array_equal(climatology_at(asked, april).t2m, climatology_at(short, march).t2m)
        climatology(two_cells(days("2000-01-01", "2000-12-01", "MS")))  # twelve months are a year, without a warning

    def test_a_missing_label_is_reported(self):
        clim = climatology(two_cells(days("2000-01-01", "2001-12-31")))
        noon = xr.DataArray(np.array(["2003-01-01T12"], "datetime64[ns]"), dims="x")
        with pytest.raises(ValueError, match=r"2000-01-01.* no hour 12, but 0"):
            climatology_at(clim, noon)
        midnight = xr.DataArray(np.array(["2003-04-10", "2003-04-11"], "datetime64[ns]"), dims="x")
        with pytest.raises(ValueError, match=r"no dayofyear 100, 101, but 1, 2, 3 \.\. 99"):
            climatology_at(clim.sel(dayofyear=slice(1, 99)), midnight)
        with pytest.raises(ValueError, match="none of"):
            climatology_at(two_cells(days("2000-01-01", "2000-01-05")), midnight)

    def test_cftime(self):
        times = xr.date_range("2001-01-01", periods=365, calendar="noleap", use_cftime=True)
        clim = climatology(two_cells(times, np.arange(1, 366)), window_days=1)
        valid = xr.DataArray([cftime.DatetimeNoLeap(2010, 3, 1)], dims="x")
        assert climatology_at(clim, valid).t2m[0, 0, 0] == 60


class TestClimatologiesOfWeatherBench1:
    def weeks(self):
        """Return two years whose values are their ISO week."""
        times = days("2001-01-01", "2002-12-31")
        return two_cells(times, pd.DatetimeIndex(times).isocalendar().week.to_numpy(), factors=(1.0, 1.0))

    def test_weekly(self):
        ds = self.weeks()
        weekly = climatology(ds, method="weekly")
        assert weekly.t2m.dims == ("week", "latitude", "longitude") and weekly.sizes["week"] == 52
        np.testing.assert_array_equal(weekly.t2m[:, 0, 0], np.arange(1, 53))
        assert weekly.attrs["climatology_method"] == "mean by week"
        later = ds.time + np.timedelta64(365 * 3, "D")
        values = climatology_at(weekly, later)
        # 2004 has a week 53, which neither 2001 nor 2002 has
        np.testing.assert_array_equal(values.t2m[:, 1, 0], later.dt.isocalendar().week.clip(max=52))
        assert (later.dt.isocalendar().week == 53).any()

    def test_overall(self):
        ds = self.weeks()
        overall = climatology(ds, method="overall")
        assert overall.t2m.dims == ("latitude", "longitude")
        np.testing.assert_allclose(overall.t2m, ds.t2m.mean("time"))
        assert climatology_at(overall, ds.time[:5]).t2m.dims == ("time", "latitude", "longitude")

    @pytest.mark.parametrize("method", ["weekly", "overall"])
    def test_score_like_other_climatologies(self, method):
        ds = self.weeks()
        truth = ds.assign_coords(time=ds.time + np.timedelta64(730, "D"))
        truth["t2m"] = truth.t2m + 1.0
        clim = climatology(ds, method=method)
        table = score(persistence(truth, truth.time[:300], ["1D"]), truth, clim, metrics=["rmse"])
        expected = truth.t2m.isel(time=slice(1, 301)) - climatology_at(clim, truth.time[1:301]).t2m
        np.testing.assert_allclose(
            table.t2m.sel(system="climatology", metric="rmse"), np.sqrt((expected**2).mean()), rtol=1e-12
        )

    def test_errors(self):
        with pytest.raises(ValueError, match="method='daily' is unknown"):
            climatology(self.weeks(), method="daily")
        with pytest.raises(ValueError, match="leave window_days out"):
            climatology(self.weeks(), method="weekly", window_days=31)
