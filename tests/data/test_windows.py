import numpy as np
import pandas as pd
import pytest
import xarray as xr

from simvp_climate.data.windows import (
    check_times,
    data_step,
    find_windows,
    lead_texts,
    lead_times,
    parse_step,
    shared_period,
    valid_times,
)


def hours(*values):
    return pd.DatetimeIndex([pd.Timestamp("2001-01-01") + pd.Timedelta(hours=h) for h in values])


def test_steps():
    assert parse_step("6h") == pd.Timedelta(hours=6)
    assert parse_step("D") == pd.Timedelta(days=1)
    assert parse_step("1MS") == 1 and parse_step("3ME") == 3 and parse_step("MS") == 1


def test_windows_by_hand():
    windows = find_windows(hours(0, 6, 12, 18, 24), "6h", history=2, horizon=1, name="x")
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_windows_never_span_a_gap():
    times = hours(0, 6, 12, 18, 30, 36, 42, 48)
    windows = find_windows(times, "6h", history=2, horizon=1, name="x")
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]


def test_windows_stride_over_finer_data():
    windows = find_windows(hours(*range(0, 20)), "6h", history=2, horizon=1, name="x")
    assert windows.tolist() == [[k, k + 6, k + 12] for k in range(8)]


def test_a_missing_time_that_no_window_uses_is_not_a_gap():
    times = hours(0, 1, 2, 3, 4, 6, 7, 8, 12)
    assert find_windows(times, "6h", 2, 1, "x").tolist() == [[0, 5, 8]]


def test_months_are_steps_though_they_differ_in_length():
    times = pd.date_range("2001-01-01", periods=5, freq="MS")
    assert find_windows(times, "1MS", 2, 1, "x").tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert data_step(times, "1MS") == 1
    gap = times.delete(2)
    with pytest.raises(ValueError, match="x has no window of 3 states"):
        find_windows(gap, "1MS", 2, 1, "x")


def test_valid_months_match_data_on_any_day_of_the_month():
    middle = pd.DatetimeIndex(["2001-01-16T12", "2001-02-15", "2001-03-16T12", "2001-04-16"])
    inits = xr.DataArray(middle[:2].values, dims="init_time", coords={"init_time": middle[:2].values})
    valid = valid_times(inits, lead_times("1MS", 3), known=middle)
    assert valid.values[0].tolist() == middle[1:].values.tolist()
    assert pd.Timestamp(valid.values[1, 2]) == pd.Timestamp("2001-05-15")  # beyond the data: the same day


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_months_of_other_calendars(calendar):
    times = xr.date_range("2001-01-01", periods=14, freq="MS", calendar=calendar, use_cftime=True)
    assert len(find_windows(times, "1MS", 2, 1, "x")) == 12
    inits = xr.DataArray(times[:2], dims="init_time", coords={"init_time": times[:2]})
    valid = valid_times(inits, lead_times("1MS", 12))
    assert valid.values[1].tolist() == times[2:].tolist()


def test_months_need_one_time_a_month():
    with pytest.raises(ValueError, match="x has several times in a month: average them first"):
        find_windows(hours(0, 6, 12, 18), "1MS", 1, 1, "x")


def test_periods_overlap_only_within_windows():
    times = pd.date_range("2001-01-01", periods=8, freq="1D").delete([3, 4])
    windows = find_windows(times, "1D", 1, 1, "x")
    others = pd.DatetimeIndex(["2000-12-31", "2001-01-01", "2001-01-02T06", "2001-01-04", "2001-01-05", "2001-01-07"])
    assert shared_period(times, windows, others).tolist() == others[[1, 2, 5]].tolist()
    with pytest.raises(ValueError, match="noleap.*differ"):
        shared_period(times, windows, xr.date_range("2001", periods=2, calendar="noleap", use_cftime=True))


def test_other_calendars():
    times = xr.date_range("2001-02-27", periods=6, freq="D", calendar="noleap", use_cftime=True)
    assert len(find_windows(times, "1D", 2, 1, "x")) == 4  # February has 28 days, nothing is missing


def test_step_must_be_a_multiple():
    with pytest.raises(ValueError, match=r"step='9h' is not a multiple of the step of x, 6h"):
        find_windows(hours(0, 6, 12, 18, 24), "9h", 1, 1, "x")
    with pytest.raises(ValueError, match="step='1h' is not a multiple"):
        find_windows(hours(0, 6, 12, 18, 24), "1h", 1, 1, "x")


def test_a_duration_for_monthly_data_is_an_error_that_suggests_months():
    times = pd.date_range("2001-01-01", periods=14, freq="MS")
    with pytest.raises(ValueError, match="of x, 31D: the data look monthly, choose '1MS'"):
        find_windows(times, "6h", 1, 1, "x")


def test_a_series_that_is_too_short_is_an_error_with_its_length():
    with pytest.raises(ValueError, match=r"no window of 24 states \(history 12 \+ horizon 12\).*it has 5 times"):
        find_windows(hours(0, 6, 12, 18, 24), "6h", 12, 12, "x")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (hours(), "x has no times"),
        (hours(0, 12, 6), "x must increase: 2001-01-01 06:00:00 comes after 2001-01-01 12:00:00"),
        (
            hours(0, 6, 0, 12, 0).where([True, True, False, True, False]),
            r"2 of the 5 times of x are missing \(NaT\), the first at position 2. ds = ds.isel\(time=",
        ),
        (hours(0, 6, 6), "2001-01-01 06:00:00 appears more than once in x"),
        (pd.Index([20010130, 20010131]), r"the first is 20010130. .*pd.to_datetime\(.*astype\(str\)\)"),
        (pd.Index([20010130, 20010132]), "State in CF units what they count"),
    ],
)
def test_bad_times(times, message):
    with pytest.raises(ValueError, match=message):
        check_times(times, "x")


def test_leads_and_valid_times():
    leads = lead_times("6h", 3)
    assert leads.dtype == "timedelta64[ns]"
    assert (leads.values / np.timedelta64(1, "h")).tolist() == [6, 12, 18]
    inits = xr.DataArray(hours(0, 24).values, dims="init_time")
    valid = valid_times(inits, leads)
    assert valid.dims == ("init_time", "lead_time")
    np.testing.assert_array_equal(valid, [hours(6, 12, 18), hours(30, 36, 42)])


def test_calendar_leads_are_months():
    leads = lead_times("1MS", 2)
    assert leads.values.tolist() == [1, 2] and leads.attrs == {"units": "months"}
    starts = xr.DataArray(pd.DatetimeIndex(["2001-01-01", "2001-12-01"]).values, dims="init_time")
    assert valid_times(starts, leads).dt.strftime("%Y-%m-%d").values.tolist() == [
        ["2001-02-01", "2001-03-01"],
        ["2002-01-01", "2002-02-01"],
    ]
    ends = xr.DataArray(pd.DatetimeIndex(["2001-01-31", "2001-02-28"]).values, dims="init_time")
    assert valid_times(ends, leads).dt.strftime("%m-%d").values.tolist() == [
        ["02-28", "03-31"],
        ["03-31", "04-30"],
    ]
    with pytest.raises(ValueError, match="units='months'"):
        valid_times(starts, xr.DataArray([1, 2], dims="lead_time"))


def test_the_fix_for_missing_times_works():
    ds = xr.Dataset({"a": ("time", [1.0, 2.0, 3.0])}, {"time": hours(0, 0, 6).where([True, False, True])})
    kept = ds.isel(time=ds["time"].notnull().values)
    check_times(kept.indexes["time"], "x")
    assert kept["a"].values.tolist() == [1, 3]


def test_leads_as_text_share_a_unit():
    assert lead_texts(np.array([6, 24, 48], "m8[h]")) == ["6 h", "24 h", "48 h"]
    assert lead_texts(np.array([24, 72], "m8[h]")) == ["1 d", "3 d"]
    assert lead_texts(np.array([24], "m8[h]")) == ["24 h"] and lead_texts(np.array([72], "m8[h]")) == ["3 d"]
    assert lead_texts(np.array([1, 12])) == ["1 month", "12 months"]
