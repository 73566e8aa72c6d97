import pandas as pd
import pytest
import xarray as xr

from simvp_climate.data.splits import split


def series(start, end, freq="1D"):
    time = pd.date_range(start, end, freq=freq, unit="ns")
    return xr.Dataset({"t2m": ("time", range(len(time)))}, {"time": time})


def test_dates_are_included_and_nothing_is_lost_or_shared():
    ds = series("2001-01-01", "2001-12-31")
    train, valid, test = split(ds, "2001-08", "2001-10-15")
    assert str(train.time.values[-1])[:10] == "2001-08-31" and str(valid.time.values[-1])[:10] == "2001-10-15"
    xr.testing.assert_identical(xr.concat([train, valid, test], "time"), ds)


def test_weatherbench_by_default():
    periods = split(series("2013-01-01", "2020-12-31"))
    years = [sorted({int(year) for year in period.time.dt.year}) for period in periods]
    assert years == [[2013, 2014, 2015], [2016], [2017, 2018]]


def test_any_calendar():
    ds = series("2001-01-01", "2001-12-31").convert_calendar("noleap", use_cftime=True)
    assert split(ds, "2001-06", "2001-09").test.sizes["time"] == 92


def test_errors():
    ds = series("2001-01-01", "2001-12-31")
    with pytest.raises(ValueError, match="do not cover WeatherBench's years 2015 to 2018.*'2001-09-12'.*'2001-11-06'"):
        split(ds)
    long = series("1950-01-01", "2009-12-31").convert_calendar("noleap", use_cftime=True)
    with pytest.raises(ValueError, match="1950-01-01 to 2009-12-31.*train_until='1991', valid_until='2000'"):
        split(long)
    with pytest.raises(ValueError, match="valid_until=None must"):
        split(ds, "2001-06")
    with pytest.raises(ValueError, match="the validation period is empty"):
        split(ds, "2001-09", "2001-06")
    with pytest.raises(ValueError, match="the test period is empty"):
        split(ds, "2001-09", "2002")
