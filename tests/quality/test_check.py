"""Faults are planted one at a time: each must be found by its name, and its fix must mend it."""

import json
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import pytest
import store_layouts as layouts
import xarray as xr
from factories import GLOBAL, quick, tiny_model, waves

import simvp_climate as sc
from simvp_climate.data import host_memory
from simvp_climate.quality import check as module
from simvp_climate.quality import samples
from simvp_climate.quality.check import check
from simvp_climate.quality.report import Finding, Report, is_code

TASK = sc.Task(["z500", "t2m"], history=3, horizon=3)


def on_levels(levels=(500, 700, 850), times=60):
    """Geopotential of the standard atmosphere with the waves on it."""
    base = waves(times=times)["z500"]
    heights = 9.80665 * 44330.8 * (1 - (np.array(levels) / 1013.25) ** 0.190263)
    values = np.stack([base.values - 5e4 + height for height in heights], axis=1).astype("f4")
    dims = ("time", "level", "latitude", "longitude")
    level = ("level", list(levels), {"units": "hPa"})
    return xr.Dataset({"z": (dims, values, {"units": "m2 s-2"})}, {**base.coords, "level": level})


def codes(report, *severities):
    return [finding.code for finding in report.findings if not severities or finding.severity in severities]


def found(report, code):
    return next(finding for finding in report.findings if finding.code == code)


def mended(ds, fix):
    """Paste the fix."""
    names = {"ds": ds.copy(), "xr": xr, "np": np, "sc": sc}
    code = "\n".join(line for line in fix.splitlines() if is_code(line))
    assert code
    exec(code, names)
    return names["ds"]


# ---- clean data: nothing but notes


CLEAN = {
    "global": waves(),
    "descending, -180..180": waves(GLOBAL[0][::-1], np.arange(-180, 180, 22.5)),
    "region across Greenwich": waves(np.arange(40, 60, 2.5), np.arange(-10, 10, 2.5)),
    "region cut at Greenwich": waves(np.arange(40, 60, 2.5), np.r_[0:10:2.5, 350:360:2.5]),
    "other names": waves(names=("valid_time", "lat", "lon")),
    "poles": waves(np.arange(-90, 91, 22.5)),
    "float64": waves().astype("f8"),
    "whole numbers": waves().round().astype("i4"),
    "longitude first": waves().transpose("time", "longitude", "latitude"),
    "noisy longitudes": waves(longitude=GLOBAL[1] + 1e-6 * np.sin(np.arange(16))),
    "levels": on_levels(),
    "dask": waves().chunk(time=10),
    "no leap days": waves(times=366 * 4).convert_calendar("noleap"),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_data_have_no_error_and_no_warning(name):
    report = check(CLEAN[name])
    assert codes(report, "error", "warning") == [] and report.ok


def test_clean_data_with_a_task_and_after_open_dataset():
    assert codes(check(waves(), TASK)) == []
    opened = sc.open_dataset(on_levels(), ["z500"])
    assert codes(check(opened, sc.Task(["z500"], history=2, horizon=2))) == []
    assert codes(check(on_levels(), sc.Task(["z"], levels=[850, 500], history=2, horizon=2))) == []
    assert codes(check(sc.open_sample(), TASK), "error", "warning") == []


def test_monthly_data_are_counted_in_months():
    ds = waves(times=72).assign_coords(time=pd.date_range("2000-01-01", periods=72, freq="MS", unit="ns"))
    report = check(ds)
    assert codes(report) == [] and report.summary["time"]["step"] == "1MS"
    assert report.summary["windows"]["count"] == {"all": 65}  # 72 - 8 + 1
    later = ds.assign_coords(time=pd.date_range("2000-01-31", periods=72, freq="ME", unit="ns"))
    assert codes(check(later)) == [] and check(later).summary["time"]["step"] == "1MS"


# ---- grid and time: mended by what the report says, and looked at behind the fault


def shuffled_times(ds):
    return ds.isel(time=[*range(20), 21, 20, *range(22, 60)])


def with_cell(value, ds=None, **where):
    ds = waves() if ds is None else ds
    ds = ds.copy(deep=True)
    ds["t2m"][where] = value
    return ds


def undecoded(ds):
    packed = (
        ((ds["t2m"] - 280) / 0.01).round().astype("i2").assign_attrs(units="K", scale_factor=0.01, add_offset=280.0)
    )
    return ds.assign(t2m=packed)


def two_halves(ds):
    return ds.assign_coords(time=ds["time"].where(np.arange(60) < 50, ds["time"] + np.timedelta64(36, "h")))


def hourly_noise(ds):
    noise = np.where(np.arange(60) % 7 == 3, 40, 0).astype("m8[s]").astype("m8[ns]")
    return ds.assign_coords(time=ds["time"] + noise)


def no_leap_day():
    times = pd.date_range("2000-02-01", "2000-04-01", freq="D", unit="ns")
    ds = waves(times=len(times)).assign_coords(time=times)
    return ds.isel(time=times != "2000-02-29")


MENDED = {
    # code: (dataset, severity, what the finding names, what the fix names)
    "latitude-order": (waves().isel(latitude=[0, 1, 3, 2, 4, 5, 6, 7]), "error", "-11.25", 'sortby("latitude")'),
    "longitude-repeats": (waves(longitude=np.arange(0, 361, 22.5)), "error", "0 and 360", "drop_isel(longitude=[16])"),
    "latitude-values": (
        xr.concat([waves(), waves(np.array([999.0]))], "latitude"), "error", "999", "isel(latitude="
    ),
    "longitude-uneven": (waves(longitude=np.array([0, 5, 10, 15, 25.0, 30])), "warning", "15 and 25", "interp"),
    "latitude-uneven": (waves().isel(latitude=[0, 1, 2, 4, 5, 6, 7]), "warning", "-33.75 and 11.25", "interp"),
    "time-order": (shuffled_times(waves()), "error", "comes after 2001-01-06 06:00", 'sortby("time")'),
    "time-duplicates": (
        waves().isel(time=[0, 1, 1, *range(2, 60)]), "error", "2001-01-01 06:00", 'drop_duplicates("time")'
    ),
    "time-missing": (
        waves().assign_coords(time=waves()["time"].where(np.arange(60) != 59)), "error", "position 59", "notnull"
    ),
    "time-gaps": (
        two_halves(waves()), "warning", "6 times of step 6h are missing in 1 place: after 2001-01-13 06", "resample"
    ),
    "time-jitter": (hourly_noise(waves()), "error", "by a little", 'dt.round("1h")'),
    "time-values": (
        waves().assign_coords(time=("time", np.arange(60), {"units": "hours since 2001-01-01"})),
        "error", "integer, the first is 0, in 'hours since 2001-01-01', not decoded", "xr.decode_cf(ds)",
    ),
    "forecast": (
        waves().rename(time="init_time").expand_dims(lead_time=pd.to_timedelta([6], unit="h")),
        "error", "forecasts", "isel(lead_time=0",
    ),
    "not-decoded": (undecoded(waves()), "error", "scale_factor=0.01", "xr.decode_cf(ds)"),
    "fill-values": (
        with_cell(9.96921e36, time=slice(None), latitude=2, longitude=slice(3, 5)),
        "error", "9.96921e+36", ".where(abs(",
    ),
    "infinite": (
        with_cell(np.inf, latitude=3, time=slice(None), longitude=4),
        "error", "latitude -11.25, longitude 90", "isfinite",
    ),
    "nan-moving": (
        with_cell(np.nan, latitude=3, longitude=4, time=slice(0, 30)),
        "error", "nan at 2001-01-01, latitude -11.25, longitude 90; 30 of 60", 'notnull().all("time")',
    ),
    "nan-times": (with_cell(np.nan, time=slice(0, 9)), "error", "the first is 2001-01-01", 'dropna("time"'),
    "blank-times": (with_cell(0, time=slice(0, 9)), "error", "first at 2001-01-01", 'isel(time='),
    "constant": (waves().assign(t2m=xr.zeros_like(waves()["t2m"])), "error", "0 in all cells", 'drop_vars("t2m")'),
    "stuck": (
        waves().assign(t2m=waves()["t2m"].where(waves()["time"] < waves()["time"][37], waves()["t2m"][37])),
        "error", "from 2001-01-10 06:00 to the end", 'slice(None, "2001-01-10 06:00")',
    ),
    "units-missing": (
        waves().assign(t2m=waves()["t2m"].drop_attrs()), "warning", "no attribute", '.attrs["units"] = "K"'
    ),
    "units-wrong": (
        waves().assign(t2m=waves()["t2m"].assign_attrs(units="m s-1")), "error", "'m s-1'", '.attrs["units"] = "K"'
    ),
    "units-mislabeled": (
        waves().assign(t2m=waves()["t2m"].assign_attrs(units="degC")), "error", "'degC'", '.attrs["units"] = "K"'
    ),
    "range": (
        with_cell(500, latitude=2, longitude=2), "error", "2001-01-01, latitude -33.75, longitude 45 (500)", "clip("
    ),
    "not-numbers": (waves().assign(t2m=waves()["t2m"].astype(str)), "error", "real numbers", 'astype("float32")'),
    "level-values": (on_levels().assign_coords(level=[500, 700, 700]), "error", "700, 700", 'drop_duplicates("level")'),
    "extra-dimension": (
        waves().expand_dims(scenario=[1, 2]), "error", "['scenario']", "isel(scenario=0)"
    ),
    "unknown-name": (waves().rename(t2m="2m_temprature"), "note", "vocabulary", '"2m_temperature"'),
}  # fmt: skip


@pytest.mark.parametrize("code", MENDED)
def test_fault_is_found_and_its_fix_mends_it(code):
    ds, severity, named, fix = MENDED[code]
    report = check(ds)
    one = found(report, code)
    assert one.severity == severity and named in one.message and fix in one.fix
    assert report.ok == (not codes(report, "error"))
    # one fault, one alarm
    assert set(codes(report, "error", "warning")) == {code} - {code if severity == "note" else None}
    after = check(mended(ds, one.fix))
    assert code not in codes(after)
    assert codes(after, "error") == []


def test_faults_hide_no_faults_behind_them():
    ds = shuffled_times(waves().isel(latitude=[0, 1, 3, 2, 4, 5, 6, 7]))
    ds = ds.assign(t2m=ds["t2m"].assign_attrs(units="degC"))
    assert set(codes(check(ds), "error")) == {"latitude-order", "time-order", "units-mislabeled"}


# ---- what cannot be mended in a line: found, named, and the way out


def curvilinear(ds):
    y, x = np.meshgrid(GLOBAL[0], GLOBAL[1], indexing="ij")
    ds = ds.rename(latitude="j", longitude="i").drop_vars(["j", "i"])
    return ds.assign_coords(lat=(("j", "i"), y), lon=(("j", "i"), x))


def unstructured(ds):
    ds = ds.stack(cell=("latitude", "longitude")).reset_index("cell")
    return ds.rename(latitude="lat", longitude="lon")


@pytest.mark.parametrize(
    ("ds", "code", "named", "fix"),
    [
        (curvilinear(waves()), "no-grid", "curvilinear", "cdo remapcon"),
        (unstructured(waves()), "no-grid", "unstructured", "cdo remapcon"),
        (waves().rename(latitude="rows").drop_vars("rows"), "no-grid", "no latitude", "standard_name"),
        (waves().assign_coords(latitude=GLOBAL[0] * 1e5), "latitude-values", "-7.875e+06", "cdo remapcon"),
        (waves().assign_coords(latitude=list("abcdefgh")), "latitude-values", "a, b, c", "assign_coords(latitude"),
        (waves().isel(time=0), "no-time", "latitude, longitude", "assign_coords(time"),
        (
            waves()[["t2m"]].mean("time").assign_coords(time=waves()["time"]),
            "no-variables",
            "no variable",
            "right file",
        ),
        (waves().assign(t2m=waves()["t2m"] * np.nan), "all-missing", "no value", "Leave 't2m' out"),
        (waves().assign(t2m=waves()["t2m"][20] + 0 * waves()["t2m"]), "static", "never changes", "static field"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_fault_without_a_line_that_mends_it(ds, code, named, fix):
    report = check(ds)
    one = found(report, code)
    assert one.severity == "error" and not report.ok
    assert named in one.message and fix in one.fix


HANDLED = {
    "longitude-seam": (waves(longitude=np.arange(-180, 180, 22.5)), "from -180 to 157.5"),
    "members": (waves().expand_dims(number=[0, 1, 2]), "3 members along 'number'"),
    "mask": (waves().where(waves()["longitude"] > 100), "31.2 % of the cells"),  # 5 of 16 columns
    "calendar": (waves().convert_calendar("noleap"), "noleap"),
    "units-other": (waves()[["t2m"]].assign(t2m=(waves()["t2m"] - 273.15).assign_attrs(units="degC")), "'degC'"),
}  # fmt: skip


@pytest.mark.parametrize("code", HANDLED)
def test_what_is_handled_is_a_note(code):
    ds, named = HANDLED[code]
    report = check(ds)
    assert codes(report) == [code] and report.ok
    assert report.findings[0].severity == "note" and named in report.findings[0].message


def test_a_series_that_is_too_short():
    ds = waves().isel(time=slice(0, 7))
    one = found(check(ds), "too-short")
    assert one.severity == "warning" and "8 states" in one.message and "history=3, horizon=4, step='6h'" in one.fix
    assert found(check(ds, sc.Task(["t2m"])), "too-short").severity == "error"
    assert codes(check(ds, sc.Task(["t2m"], history=3, horizon=4, step="6h"))) == []


def test_cftime_where_it_is_not_needed():
    ds = waves().convert_calendar("standard", use_cftime=True)
    one = found(check(ds), "calendar")
    assert one.severity == "note" and codes(check(mended(ds, one.fix))) == []


def test_a_region_across_greenwich_is_named():
    one = found(check(CLEAN["region cut at Greenwich"]), "longitude-seam")
    assert "crosses Greenwich (from -10 to 7.5 degrees east)" in one.message
    # 14 of 16 columns, across Greenwich and the date line
    both = found(check(waves(longitude=np.arange(123.75, 430, 22.5) % 360)), "longitude-seam")
    assert "crosses Greenwich (from 123.75 to 56.25 degrees east)" in both.message


def test_small_data_are_looked_at_whole():
    ds = waves(times=200)
    ds["t2m"][101] = 0
    ds["z500"][55:58] = ds["z500"][54].values
    report = check(ds)
    assert report.summary["sampled"] == 200 and set(codes(report)) == {"blank-times", "repeated"}
    assert "1 of 200 times examined, first at 2001-01-26 06:00" in found(report, "blank-times").message
    assert "3 of 199 neighbors" in found(report, "repeated").message


def test_nothing_found_says_where(monkeypatch):
    monkeypatch.setattr(samples, "_BUDGET", 2**14)  # 16 of the 200 states of 512 bytes
    report = check(waves(times=200))
    looked = report.summary["sampled"]
    assert 32 <= looked < 200
    assert (
        str(report).splitlines()[0] == f"check: nothing found in {looked} of 200 states; the others were not examined"
    )


def test_globe_without_its_last_column():
    report = check(waves(longitude=np.arange(0, 320, 22.5)))
    assert codes(report) == ["longitude-open"] and "1 columns between 315 and 0" in report.findings[0].message


@pytest.mark.parametrize("name", [*HANDLED, "float64", "whole numbers", "longitude first"])
def test_what_is_handled_is_trained_on_as_it_is(name):
    ds = HANDLED[name][0] if name in HANDLED else CLEAN[name]
    task = sc.Task(list(ds.data_vars), history=2, horizon=2)
    settings = dict(model=tiny_model(), config=quick(batch_size=64), device="cpu")
    forecaster = sc.train(task, ds, valid=None, **settings)
    if name == "units-other":  # in the units of what is handed in, whatever it was trained on
        kelvin = waves()[["t2m"]]
        np.testing.assert_allclose(forecaster(kelvin)["t2m"], forecaster(ds)["t2m"] + 273.15, atol=1e-3)
        assert forecaster(kelvin)["t2m"].attrs["units"] == "K"


def test_a_model_without_leap_days_in_the_wrong_calendar():
    one = found(check(no_leap_day()), "time-gaps")
    assert "29 February" in one.message and codes(check(mended(no_leap_day(), one.fix)), "error", "warning") == []


# ---- units and values


@pytest.mark.parametrize(
    ("units", "factor", "guess"),
    [("m2 s-2", 1 / 9.80665, "m"), ("m2 s-2", 1 / 98.0665, "dam"), ("m", 1, "m2 s-2"), ("gpm", 1, "m2 s-2")],
)
@pytest.mark.parametrize("name", ["z500", "z"])
def test_geopotential_and_height_are_told_apart(units, factor, guess, name):
    ds = waves() if name == "z500" else on_levels()
    ds = ds.assign({name: (ds[name] * factor).assign_attrs(units=units)})[[name]]
    one = found(check(ds), "units-mislabeled")
    assert one.fix == f'ds["{name}"].attrs["units"] = "{guess}"'
    assert codes(check(mended(ds, one.fix)), "error") == []


def test_values_without_units_are_guessed_from_the_range():
    ds = waves().assign(t2m=waves()["t2m"].drop_attrs() - 273.15)
    assert codes(check(ds)) == ["units-missing"]
    assert check(ds).findings[0].fix == 'ds["t2m"].attrs["units"] = "degC"'


@pytest.mark.parametrize("fill", [-9999, -999, 1e20, 32767, -32767, 9.96921e36, 3.4028235e38])
@pytest.mark.parametrize("name", ["t2m", "unheard_of"])
def test_fill_values(fill, name):
    ds = with_cell(fill, latitude=slice(0, 2)).rename(t2m=name)
    report = check(ds)
    assert codes(report, "error") == ["fill-values"] and "25 % of the values" in report.findings[0].message
    assert codes(check(mended(ds, report.findings[0].fix)), "error") == []


def test_numbers_that_look_like_fill_values_are_left_alone():
    ds = waves()[["z500"]].rename(z500="other")
    ds["other"][:] = np.linspace(-20000, 20000, 60)[:, None, None] + GLOBAL[0][:, None]
    ds["other"][10, 0, 0] = -9999
    assert codes(check(ds), "error", "warning") == []


def test_missing_values_outside_all_windows_are_ignored():
    ds = waves()
    ds["t2m"][59] = np.nan
    ds = ds.isel(time=[*range(40), 59])
    assert codes(check(ds, TASK), "error", "warning") == ["time-gaps"]


def test_rain_may_be_zero_for_a_while(monkeypatch):
    wet = np.maximum(waves()["t2m"] - 293, 0) / 1000
    wet[20:30] = 0
    ds = wet.assign_attrs(units="m").to_dataset(name="tp")
    assert codes(check(ds)) == []
    dry = ds.assign(tp=0 * ds["tp"])
    assert found(check(dry), "constant").severity == "error"  # training would refuse it
    monkeypatch.setattr(samples, "_BUDGET", 2**12)
    assert found(check(dry), "constant").severity == "warning"  # other times may be wet


@pytest.mark.parametrize("budget", [2**26, 2**19])  # 1500 states of 512 bytes: all of them, or some
def test_standstill_is_found_to_the_step(budget, monkeypatch):
    monkeypatch.setattr(samples, "_BUDGET", budget)
    ds = waves(times=1500)
    ds["t2m"][1111:] = ds["t2m"][1111].values
    assert f"from {str(ds['time'].values[1111])[:10]}" in found(check(ds), "stuck").message


def test_states_repeated_to_fill_a_gap():
    ds = waves()
    ds["t2m"][21:24] = ds["t2m"][20].values
    one = found(check(ds), "repeated")
    assert one.severity == "warning" and "2001-01-06 and 2001-01-06 06:00" in one.message
    assert mended(ds, one.fix).sizes["time"] == 59


def test_dead_level():
    ds = on_levels()
    ds["z"][:, 1] = 0
    one = found(check(ds), "dead-level")
    assert "level 700" in one.message and one.fix == "levels=[500, 850] in the Task"
    assert codes(check(ds), "error") == ["dead-level"]
    assert codes(check(ds, sc.Task(["z"], [500, 850], history=2, horizon=2))) == []
    ds["z"][:, 1] = np.nan
    assert "no values on level 700" in found(check(ds), "dead-level").message


# ---- against a task


@pytest.mark.parametrize(
    ("ds", "task", "code", "named", "fix"),
    [
        (waves(), dict(variables=["t2n"]), "unknown-variable", "'t2n'", "'t2m'"),
        (waves(), dict(variables=["soup"]), "unknown-variable", "'soup'", "Ask for one of these"),
        (on_levels(), dict(variables=["z"], levels=[500, 300]), "level-missing", "level 300 hPa", "500, 700, 850"),
        (on_levels(), dict(variables=["z300"]), "level-missing", "level 300 hPa", "500, 700, 850"),
        (waves(), dict(variables=["t2m"], levels=[500]), "levels-unused", "levels=[500.0]", "Leave levels out"),
        (
            waves().rename(t2m="2t").assign(tas=waves()["t2m"]),
            dict(variables=["2m_temperature"]), "two-names", "['2t', 'tas']", "one of these names",
        ),
        (
            waves().assign(orography=waves()["t2m"][0].drop_vars("time").assign_attrs(units="m")),
            dict(variables=["orography"]), "no-time-dimension", "no time", "Leave 'orography' out",
        ),
        (waves().mean("longitude").assign(z500=waves()["z500"]), dict(variables=["t2m"]), "off-grid", "lacks", "Leave"),
        (waves(), dict(variables=["t2m"], step="4h"), "step", "'4h' is not a multiple", "step='6h'"),
        (waves(), dict(variables=["t2m"], step="1MS"), "step", "counts months", "step='6h'"),
        (waves(), dict(variables=["t2m"], step="5D"), "too-short", "5D apart", "history=1, horizon=2, step='5D'"),
    ],
)  # fmt: skip
def test_what_a_task_asks_for_and_is_not_there(ds, task, code, named, fix):
    report = check(ds, sc.Task(**task))
    one = found(report, code)
    assert one.severity == "error" and named in one.message and fix in one.fix
    assert codes(report, "error", "warning") == [code]


STATIC = waves().assign(
    orography=waves()["t2m"][0].drop_vars("time").assign_attrs(units="m"),
    land=waves()["t2m"][0].drop_vars("time").where(waves()["latitude"] > 0),
    sst=waves()["t2m"] + 1,
    names=xr.full_like(waves()["t2m"][0].drop_vars("time"), "a", dtype=object),
)


@pytest.mark.parametrize(
    ("forcings", "step", "code", "named", "fix"),
    [
        (["orografy"], "6h", "forcing-unknown", "time_of_year, coordinates", "'orography'"),
        (["insulation"], "6h", "forcing-unknown", "'insulation'", "Did you mean 'insolation'?"),
        (["soup"], "6h", "forcing-unknown", "'soup'", "Ask for one of these"),
        (["names"], "6h", "forcing-unknown", "must hold real numbers", 'astype("float32")'),
        (["sst"], "6h", "forcing-changes", "dimensions time", 'ds["sst"] = ds["sst"].isel(time=0, drop=True)'),
        (["land"], "6h", "forcing-missing", "64 of 128 cells", 'ds["land"] = ds["land"].fillna(0)'),
        (["time_of_day"], "1D", "forcing-time-of-day", "a step of 1 day", "Leave it out of forcings"),
        (["insolation", "time_of_day"], "2D", "forcing-time-of-day", "2 days", "Leave it out"),
    ],
)
def test_forcings_that_training_refuses(forcings, step, code, named, fix):
    task = sc.Task(["t2m"], history=2, horizon=2, step=step, forcings=forcings)
    one = found(check(STATIC, task), code)
    assert codes(check(STATIC, task)) == [code]
    assert one.severity == "error" and named in one.message and fix in one.fix
    with pytest.raises(ValueError, match="forcing|real numbers"):
        sc.train(task, STATIC, valid=None, model=tiny_model(), config=quick(), device="cpu")
    if code in ("forcing-changes", "forcing-missing"):
        assert codes(check(mended(STATIC, one.fix), task)) == []


def test_time_of_day_of_monthly_data():
    ds = waves(times=72).assign_coords(time=pd.date_range("2000-01-01", periods=72, freq="MS", unit="ns"))
    task = sc.Task(["t2m"], history=2, horizon=2, step="1MS", forcings=["time_of_day"])
    assert codes(check(ds, task)) == ["forcing-time-of-day"]


def test_forcings_and_transforms_that_are_fine():
    forcings = ["orography", "insolation", "time_of_day", "time_of_year", "coordinates"]
    task = sc.Task(["t2m"], history=2, horizon=2, forcings=forcings, transforms={"t2m": (None, 400)})
    assert codes(check(STATIC, task)) == []
    assert codes(check(clouds("1"), sc.Task(["tcc"], history=2, horizon=2, transforms={"tcc": (0, 1)}))) == []
    # packing leaves a little beyond the bounds
    humid = waves()[["t2m"]].rename(t2m="q") / 1e5
    humid["q"][3, 2, 1] = -1e-9
    humid["q"].attrs["units"] = "kg kg-1"
    assert codes(check(humid, sc.Task(["q"], history=2, horizon=2, transforms={"q": (0, None)}))) == []


def clouds(units):
    share = (waves()["t2m"] - 250) / 50  # 0.1 to 0.9
    return (share * {"1": 1, "%": 100}[units]).assign_attrs(units=units).to_dataset(name="tcc")


def rain(units):
    return (np.maximum(waves()["t2m"] - 280, 0) / 1000).assign_attrs(units=units).to_dataset(name="tp")


def negative_rain():
    ds = rain("m")
    return ds.assign(tp=(ds["tp"] - 0.001).assign_attrs(ds["tp"].attrs))


@pytest.mark.parametrize(
    ("ds", "transforms", "code", "named", "fix"),
    [
        (clouds("%"), {"tcc": (0, 1)}, "bounds", "20.33 to 87.52 %", "{'tcc': (0, 100)} in the Task"),
        (clouds("%"), {"tcc": (None, 1)}, "bounds", "(None, 1)", "{'tcc': (None, 100)} in the Task"),
        (waves(), {"t2m": (300, 310)}, "bounds", "2001-01-01, latitude -78.75, longitude 90", "Leave 't2m' out"),
        (waves() - waves().mean(), {"t2m": ("log", 1)}, "bounds", "within 0 to inf", "Leave 't2m' out"),
        (waves(), {"t2m": "log"}, "transform", "'t2m' is in 'K'", "('log', 0.01)"),
        (rain("buckets"), {"tp": "log"}, "transform", "'tp' is in 'buckets'", "('log', 0.01)"),
        (
            rain("m").map(lambda v: v - 0.001, keep_attrs=True),
            {"tp": "log"},
            "bounds",
            "within 0 to inf",
            "Leave 'tp' out",
        ),
    ],
)
def test_transforms_that_cannot_be_meant(ds, transforms, code, named, fix):
    report = check(ds, sc.Task(list(transforms), history=2, horizon=2, transforms=transforms))
    one = found(report, code)
    assert one.severity == "error" and named in one.message and fix in one.fix


def test_windows_per_split():
    splits = {"train": slice("2001-01-01", "2001-01-05"), "valid": slice("2001-01-06", "2001-01-07")}
    report = check(waves(), TASK, splits=splits)
    assert report.ok and report.summary["windows"]["count"] == {"all": 55, "train": 15, "valid": 3}  # 20 - 5, 8 - 5
    bad = {
        "train": slice("2001-01-01", "2001-01-05"),
        "valid": slice("2001-01-05", "2001-01-06"),
        "test": slice("1999"),
    }
    report = check(waves(), TASK, splits=bad)
    assert codes(report, "error") == ["split", "split-overlap"]
    assert "'test'" in found(report, "split").message
    assert "4 times of 'valid', from 2001-01-05 to 2001-01-05 18:00" in found(report, "split-overlap").message


# ---- layout, cost, memory


def stored(tmp_path, ds, chunks):
    encoding = {name: {"chunks": chunks[: variable.ndim]} for name, variable in ds.data_vars.items()}
    ds.drop_encoding().to_zarr(tmp_path / "store.zarr", consolidated=False, encoding=encoding)
    return xr.open_zarr(tmp_path / "store.zarr", consolidated=False, chunks=None)


def test_read_amplification_by_hand(tmp_path):
    ds = stored(tmp_path, on_levels(), (10, 3, 8, 16))
    layout = check(ds, sc.Task(["z500"], history=2, horizon=2)).summary["layout"]["z"]
    # windows begin at 0..56; 3 of 10 begin 1 to 3 before an edge and touch two chunks of 10 times and 3 levels
    touched = np.mean([(start + 3) // 10 - start // 10 + 1 for start in range(57)])
    assert layout["window_amplification"] == pytest.approx(touched * 10 / 4 * 3)
    assert layout["epoch_amplification"] == 3 and layout["levels_decoded_per_level"] == 3
    assert layout["chunk_bytes"] == 10 * 3 * 8 * 16 * 4 and layout["epoch_bytes"] == 60 * 3 * 8 * 16 * 4
    both = check(ds, sc.Task(["z"], [850, 500], history=2, horizon=2)).summary["layout"]["z"]
    assert both["epoch_amplification"] == pytest.approx(1.5)


def test_levels_in_one_chunk(tmp_path, monkeypatch):
    levels = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
    ds = stored(tmp_path, on_levels(levels), (10, 13, 8, 16))
    task = sc.Task(["z500"], history=2, horizon=2)
    for dataset in (ds, sc.open_dataset(ds, ["z500"]), ds.rename(latitude="lat").sel(level=500).rename(z="z500")):
        one = found(check(dataset, task), "chunk-levels")
        assert "13 levels and 1 is wanted" in one.message and "13 times its size" in one.message
        assert "sc.cache(" in one.fix and one.severity == "note"  # 0.8 MB: nobody would feel it
    assert codes(check(ds, sc.Task(["z"], history=2, horizon=2))) == []
    few = found(check(ds, sc.Task(["z"], [500, 850], history=2, horizon=2)), "chunk-levels")
    assert few.fix == 'ds = sc.cache(sc.open_dataset(ds, ["z"], [500.0, 850.0]), "cache.zarr")'
    monkeypatch.chdir(tmp_path)
    written = mended(ds, few.fix)
    assert written["level"].values.tolist() == [500, 850] and (tmp_path / "cache.zarr").is_dir()
    assert codes(check(written, sc.Task(["z"], [500, 850], history=2, horizon=2))) == []
    assert "13 levels and 2 are wanted" in few.message and "6.5 times its size" in few.message


def big(chunks, shape=(4000, 181, 360), dims=("time", "latitude", "longitude"), dask_chunks=None):
    """A large field that is made when it is read, said to be stored in some chunks."""

    def make(block_info=None):
        (t0, t1), *_, (y0, y1), (x0, x1) = block_info[None]["array-location"]
        t, y, x = np.ogrid[t0:t1, y0:y1, x0:x1]
        return (280 + np.sin(t / 9 + x / 20) + y / 100).astype("f4").reshape(block_info[None]["chunk-shape"])

    sizes = dict(zip(dims, shape, strict=True))
    pieces = dask_chunks or tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
    data = dask.array.map_blocks(make, chunks=dask.array.core.normalize_chunks(pieces, shape), dtype="f4")
    coords = {
        "time": pd.date_range("2000-01-01", periods=sizes["time"], freq="6h", unit="ns"),
        "latitude": np.linspace(-90, 90, sizes["latitude"]),
        "longitude": np.arange(sizes["longitude"]) * 1.0,
    }
    ds = xr.Dataset({"t2m": (dims, data, {"units": "K"})}, coords)
    ds["t2m"].encoding = {"chunks": chunks, "preferred_chunks": dict(zip(dims, chunks, strict=True))}
    return ds


def test_chunks_that_hold_far_more_than_the_region(tmp_path):
    ds = big((100, 181, 360)).isel(latitude=slice(100, 140), longitude=slice(0, 40))
    one = found(check(ds), "chunk-space")
    # 181 x 360 cells decoded for 40 x 40: 40.7; 4000 x 181 x 360 x 4 bytes
    assert (
        one.severity == "warning" and "40.7 times" in one.message and "1.04 GB" in one.message and "sc.cache" in one.fix
    )


def test_whole_series_in_one_chunk():
    report = check(big((4000, 181, 360), dask_chunks=(50, 181, 360)).drop_encoding())
    assert "chunk-huge" not in codes(report)
    ds = big((4000, 181, 360))
    one = found(check(ds), "chunk-huge")
    assert "1.04 GB" in one.message and "sc.cache" in one.fix
    assert found(check(ds), "not-sampled").severity == "note"  # that chunk is not decoded for a look


def test_tiny_chunks():
    one = found(check(big((1, 61, 120), dask_chunks=(100, 181, 360))), "chunk-tiny")
    # 3 x 3 pieces of 61 x 120 cells (the last row of pieces is not full), 8 states to a window
    assert one.severity == "warning" and "36,000 chunks" in one.message and "a window takes 72 of them" in one.message


def test_memory(monkeypatch):
    monkeypatch.setattr(host_memory, "free_memory", lambda: 60_000)
    report = check(waves(), TASK)
    one = found(report, "memory")
    assert report.summary["memory"] == {"states_bytes": 2 * 60 * 8 * 16 * 4, "free_bytes": 60_000}
    assert (
        one.severity == "note" and "61.4 kB" in one.message and "60 kB" in one.message and "every epoch" in one.message
    )
    monkeypatch.setattr(host_memory, "free_memory", lambda: 20_000)
    one = found(check(waves(), TASK), "memory")
    # two stretches of a window of 6 states: 12 of 1 kB
    assert one.severity == "warning" and "at least 12.3 kB" in one.message
    assert "regrid" not in one.fix  # it is coarse already
    fine = waves(np.arange(-90, 90.1, 2), np.arange(0, 360, 2), times=12)
    assert mended(fine, found(check(fine, TASK), "memory").fix).sizes == {"time": 12, "latitude": 32, "longitude": 64}
    monkeypatch.setattr(host_memory, "free_memory", lambda: None)
    assert codes(check(waves(), TASK)) == []


def test_no_more_is_decoded_than_said():
    ds, read = big((10, 181, 360)), []
    counted = ds["t2m"].data.map_blocks(
        lambda block: read.append(block.nbytes) or block, dtype="f4", meta=np.empty(0, "f4")
    )
    ds["t2m"] = (ds["t2m"].dims, counted, ds["t2m"].attrs, ds["t2m"].encoding)
    report = check(ds)
    assert report.ok and 10 < report.summary["sampled"] <= 60
    assert sum(read) <= 2**26 * 1.1  # of 1.04 GB


def test_a_damaged_chunk_is_a_finding(tmp_path):
    ds = stored(tmp_path, waves(), (20, 8, 16))
    chunk = sorted(path for path in (tmp_path / "store.zarr" / "t2m" / "c").rglob("*") if path.is_file())[0]
    chunk.write_bytes(b"not a chunk")
    one = found(check(ds), "unreadable")
    assert one.subject == "t2m" and one.severity == "error" and "again" in one.fix


# ---- the layouts of the field


LAYOUTS = {
    # name: (what writes it, of which the task takes, codes)
    "WeatherBench 2": (layouts.weatherbench_2, ["temperature", "t2m"], []),
    "ARCO-ERA5": (layouts.arco, ["t2m"], []),
    "CMIP noleap": (lambda path: layouts.cmip(path, "noleap"), ["tas"], ["calendar"]),
    "CMIP 360_day": (lambda path: layouts.cmip(path, "360_day"), ["tas"], ["calendar"]),
    "CMIP standard": (lambda path: layouts.cmip(path, "standard"), ["tas"], []),
    "sea surface temperature": (lambda path: masked(path), ["sst"], ["mask"]),
}


def masked(path):
    """Packed, in float64, land at 4 of 32 cells."""
    sst = layouts.noise(6, 4, 8).astype("f8")
    sst[:, 1:3, 2:4] = np.nan
    coords = {"time": pd.date_range("2000-01-01", periods=6, freq="MS", unit="ns")}
    coords |= {"lat": np.arange(67.5, -90, -45.0), "lon": np.arange(0, 360, 45.0)}
    ds = xr.Dataset({"sst": (("time", "lat", "lon"), sst, {"units": "K"})}, coords)
    ds.to_netcdf(
        path, encoding={"sst": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_field_are_clean(name, tmp_path, monkeypatch):
    write, variables, handled = LAYOUTS[name]
    monkeypatch.setattr(layouts, "noise", lambda *shape: 280 + np.random.default_rng(0).standard_normal(shape, "f4"))
    write(tmp_path / "data")
    step = {"CMIP": "1D", "sea ": "1MS", "ARCO": "1h"}.get(name[:4], "6h")
    report = check(tmp_path / "data", sc.Task(variables, history=2, horizon=2, step=step))
    assert codes(report) == handled


def test_forecasts_are_known_by_any_names():
    lead = {"prediction_timedelta": pd.to_timedelta([6, 12], unit="h").as_unit("ns")}
    ds = waves().expand_dims(lead)
    report = check(ds)
    assert codes(report) == ["forecast"] and codes(check(mended(ds, report.findings[0].fix))) == []
    # a lead that is not said cannot be added
    one = found(check(ds.isel(prediction_timedelta=0, drop=True).rename(time="init_time")), "forecast")
    assert one.fix.splitlines()[0] == 'ds = ds.rename(init_time="time")' and "add the lead" in one.fix


TRUTH = waves(times=80)


def forecasts(init="init_time", lead="lead_time"):
    """Perfect forecasts 12 and 18 hours ahead."""
    leads = pd.to_timedelta([12, 18], unit="h").as_unit("ns")
    shifted = [TRUTH.assign_coords(time=TRUTH["time"] - ahead).isel(time=slice(3, None)) for ahead in leads]
    ds = xr.concat([one.isel(time=slice(0, 70)) for one in shifted], pd.Index(leads, name=lead), join="inner")
    return ds.rename({"time": init} if init != "time" else {})


def with_valid_time(ds):
    return ds.assign_coords(valid_time=ds["init_time"] + ds["lead_time"])


FORECASTS = {
    "of this package": with_valid_time(forecasts()),
    "without valid_time": forecasts(),
    "WeatherBench 2": forecasts("time", "prediction_timedelta"),
    "GRIB": with_valid_time(forecasts()).rename(init_time="time", lead_time="step"),
    "leads are numbers": with_valid_time(forecasts()).assign_coords(lead_time=[2, 3]),
    "one lead": with_valid_time(forecasts()).isel(lead_time=1),
    "one lead, no valid_time": forecasts().isel(lead_time=1),
    "one start": with_valid_time(forecasts()).isel(init_time=5),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_a_series_of_forecasts_is_at_the_times_it_is_valid_for(name):
    ds = FORECASTS[name]
    series = mended(ds, found(check(ds), "forecast").fix)
    assert set(series.coords) == {"time", "latitude", "longitude"}
    assert series["t2m"].dims == ("time", "latitude", "longitude")
    for variable in ("t2m", "z500"):  # joined by time: equal to the truth at the same time
        there = TRUTH[variable].sel(time=series["time"].values)
        np.testing.assert_array_equal(series[variable].values, there.values)
    assert "forecast" not in codes(check(series))


def test_a_folder_of_weatherbench_1_is_clean(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "noise", lambda *shape: 280 + np.random.default_rng(0).standard_normal(shape, "f4"))
    for year in (1979, 1980):
        layouts.weatherbench_1(tmp_path, "2m_temperature", "t2m", "2m_temperature", year)
        layouts.weatherbench_1(tmp_path, "temperature_850", "t", "temperature_850hPa", year, 850)
    report = check(tmp_path, sc.Task(["t2m", "t850"], history=1, horizon=2, step="1h"))
    # a year of these is three hours long, and they say no units
    assert set(codes(report)) == {"time-gaps", "units-missing"}
    assert report.summary["windows"]["count"] == {"all": 2}
    last = str(report).splitlines()[-1]
    assert last == 'In the fixes ds is sc.open_dataset(path, ["t2m", "t850"]), sc is simvp_climate.'
    # the fixes can be pasted behind that line, whatever the files call the grid
    files = sorted(tmp_path.rglob("2m_temperature_1980*.nc"))
    blank = xr.load_dataset(files[0])
    blank["t2m"][0] = 0
    blank.to_netcdf(files[0])
    one = found(check(tmp_path, sc.Task(["t2m", "t850"], history=1, horizon=2, step="1h")), "blank-times")
    ds = sc.open_dataset(tmp_path, ["t2m", "t850"]).load()
    assert "latitude" in one.fix and mended(ds, one.fix).sizes["time"] == ds.sizes["time"] - 1


def test_grib_whose_fields_make_no_single_dataset(tmp_path):
    t2m = 280 + layouts.fields(2, 5, 8) / 100
    messages = {("2t", None, None): t2m, ("t", 850, None): t2m, ("z", 500, 0): t2m, ("z", 500, 1): t2m}
    layouts.write_grib(tmp_path / "mixed.grib", messages)
    report = check(tmp_path / "mixed.grib", sc.Task(["t2m", "t850"], history=1, horizon=1, step="1D"))
    assert codes(report) == []
    # a forcing is looked for in all of the file
    task = sc.Task(["t2m"], history=1, horizon=1, step="1D", forcings=["t850"])
    assert codes(check(tmp_path / "mixed.grib", task)) == ["forcing-changes"]
    with pytest.raises(ValueError, match="no single Dataset"):
        check(tmp_path / "mixed.grib")


# ---- the report


def test_a_long_series_without_windows_is_no_burden():
    # a day of data, two without, and so on: never five states in a row
    times = pd.date_range("1900-01-01", periods=30_000, freq="6h", unit="ns")
    times = times[np.arange(30_000) % 12 < 4]
    ds = waves(times=len(times)).assign_coords(time=times)
    tracemalloc.start()
    one = found(check(ds, sc.Task(["t2m"], history=20, horizon=20)), "too-short")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "history=2, horizon=2, step='6h'" in one.fix and peak < 1e8


def test_a_path_is_opened(tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    report = check(tmp_path / "data.nc")
    assert codes(report) == [] and report.summary["source"].endswith("data.nc")
    assert [one["name"] for one in report.summary["variables"]] == ["z500", "t2m"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check(tmp_path / "other.nc")
    with pytest.raises(TypeError, match="DataArray"):
        check(waves()["t2m"])


ODD = {
    "nothing": xr.Dataset(),
    "one row": waves().isel(latitude=[3]),
    "one column": waves().isel(longitude=[3]),
    "one cell": waves().isel(latitude=[3], longitude=[3]),
    "one time": waves().isel(time=[3]),
    "two times": waves().isel(time=[3, 4]),
    "no time at all": waves().isel(time=[]),
    "no row at all": waves().isel(latitude=[]),
    "no latitude": waves().isel(latitude=0),
    "years": waves().assign_coords(time=pd.date_range("1900", periods=60, freq="YS", unit="ns")),
    "days of 360": waves().convert_calendar("360_day", align_on="date"),
    "seconds": waves().assign_coords(time=pd.date_range("2000", periods=60, freq="7s", unit="ns")),
    "all times the same": waves().assign_coords(time=waves()["time"][[0] * 60].values),
    "text levels": on_levels().assign_coords(level=["a", "b", "c"]),
    "levels twice": on_levels().assign_coords(level=[500, 500, 850]),
    "levels missing": on_levels().assign_coords(level=[500, np.nan, 850]),
    "complex": waves().astype("c8"),
    "bool": waves() > 280,
    "objects": waves().astype(object),
    "dates": waves().assign(t2m=waves()["t2m"].astype("i8").astype("M8[ns]")),
    "strange attributes": waves().map(lambda v: v.assign_attrs(units=3, scale_factor=[1, 2])),
    "all infinite": waves() / 0,
    "all missing": waves() * np.nan,
    "huge": waves().astype("f8") * 1e300,
    "latitude missing": waves().assign_coords(latitude=[np.nan] * 8),
    "longitude missing": waves().assign_coords(longitude=[np.nan] * 16),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("task", [None, sc.Task(["z"], [500, 300], history=2, horizon=2, step="1MS")])
def test_whatever_the_data_are_there_is_a_report(name, task):
    report = check(ODD[name], task, splits={"train": slice("2001"), "other": "nonsense"})
    assert "unforeseen" not in codes(report), report.findings
    assert str(report).startswith("check: ") and report._repr_html_().endswith("</div>")
    json.dumps(report.summary)


def test_summary_of_a_region():
    report = check(waves(np.arange(60, 39, -2.5), np.arange(-10, 10, 2.5)))
    latitude, longitude = report.summary["grid"]["latitude"], report.summary["grid"]["longitude"]
    assert latitude["descending"] and latitude["spacing"] == 2.5 and latitude["rows_at_poles"] == []
    assert not longitude["global"] and longitude["across_greenwich"]
    assert "9 rows from 60 to 40 (descending)" in str(report)
    assert check(CLEAN["poles"]).summary["grid"]["latitude"]["rows_at_poles"] == ["south", "north"]


def test_text_is_readable():
    ds = two_halves(waves().assign(t2m=waves()["t2m"].assign_attrs(units="degC")))
    report = check(ds)
    text = str(report)
    assert text == repr(report)
    lines = text.splitlines()
    assert lines[0] == "check: 1 error, 1 warning"
    assert max(map(len, lines)) <= 100
    assert lines.index("ERROR     units-mislabeled: t2m") < lines.index("WARNING   time-gaps: time")
    assert '     fix  ds["t2m"].attrs["units"] = "K"' in lines
    assert str(check(waves())).splitlines()[0] == "check: nothing found"


class Tags(HTMLParser):
    """Collects the text, and fails where tags are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_well_formed_and_escapes():
    ds = waves().rename(t2m="<script>&")
    ds["<script>&"].attrs["units"] = "<b>"
    page = check(ds)._repr_html_()
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == [] and "<script>" not in page and "<b>:" not in page
    assert any("<script>&" in text for text in tags.text)


def test_what_is_advised_exists():
    source = "".join(path.read_text() for path in Path(module.__file__).parent.glob("*.py"))
    advised = set(re.findall(r"\bsc\.(\w+)\(", source))
    assert {"Task", "cache", "open_dataset", "regrid"} <= advised <= set(sc.__all__)


def test_report_holds_what_it_is_given():
    note = Finding("note", "a", "b", "c", "d")
    assert Report((note,)).ok and not Report((note, Finding("error", "a", "b", "c", "d"))).ok
    assert str(Report((note,))).startswith("check: 1 note")
