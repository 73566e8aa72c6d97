"""Data as they should not be, through the public door: an error that names the value, the rule and the way out."""

import os
import re
import shutil

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from factories import quick, tiny_model, waves

import simvp_climate as sc
from simvp_climate.training import loader

TASK = sc.Task(["z500", "t2m"], history=2, horizon=2)


def train(dataset, *, valid=None, task=TASK, **settings):
    return sc.train(task, dataset, valid=valid, model=tiny_model(), config=quick(**settings), device="cpu")


def says(error, *parts):
    """Assert that a message has some parts, in this order."""
    assert re.search(".*".join(parts), str(error.value), re.DOTALL), str(error.value)


def stored(path, ds=None, zarr_format=2, **encoding):
    """Chunks of five times, packed by Blosc as most stores are."""
    ds = waves(times=30) if ds is None else ds
    compressor = numcodecs.Blosc("lz4") if zarr_format == 2 else zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle")
    chunks = {name: {"chunks": (5, 8, 16), "compressors": compressor, **encoding} for name in ds}
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=chunks)
    return path


# ---- chunks

LOST = ("'t2m' of the store '", "s.zarr", "cannot be read at the times 2001-01-02 06:00:00 to 2001-01-03 06:00:00")


@pytest.mark.parametrize("memory", ["auto", 70_000], ids=["kept", "streamed"])
@pytest.mark.parametrize("engine", ["zarr", "tensorstore"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("how", ["cut by a byte", "cut in half", "empty", "missing"])
def test_a_chunk_that_is_not_whole_stops_the_training(tmp_path, how, zarr_format, engine, memory):
    path = stored(tmp_path / "s.zarr", zarr_format=zarr_format)
    chunk = path / ("t2m/1.0.0" if zarr_format == 2 else "t2m/c/1/0/0")
    size = chunk.stat().st_size
    if how == "missing":
        chunk.unlink()
    else:
        os.truncate(chunk, {"cut by a byte": size - 1, "cut in half": size // 2, "empty": 0}[how])
    ds = sc.open_dataset(path, ["z500", "t2m"])
    with pytest.raises(OSError) as error:
        train(ds, engine=engine, memory=memory, batch_size=2)
    rest = (r"the chunk \(1, 0, 0\) of 't2m'", "is damaged", "[Cc]opy or download it again")
    if how == "missing":
        rest = (r"no chunk \(1, 0, 0\) of 't2m'", "[Cc]opy or download it again", 'missing_chunks="fill"')
    says(error, *LOST, "one chunk, 5 times", *rest)
    # what comes after is of use
    assert len(train(ds.isel(time=slice(10, None)), engine=engine).provenance["epochs"]) == 1


def test_a_chunk_that_is_not_whole_stops_a_forecast(tmp_path):
    path = stored(tmp_path / "s.zarr")
    ds = sc.open_dataset(path, ["z500", "t2m"])
    forecaster = train(ds)
    os.truncate(path / "t2m" / "1.0.0", 100)
    with pytest.raises(OSError) as error:
        forecaster(ds, init_times=ds.time.values[5:6])
    says(error, "'t2m'", "s.zarr", "2001-01-02 06:00:00", "is damaged", "100 bytes", "[Cc]opy or download it again")
    assert forecaster(ds).notnull().all().to_array().all()  # from other times


def test_fill_values_that_are_meant_are_missing_values(tmp_path):
    path = stored(tmp_path / "s.zarr", _FillValue=np.nan)
    (path / "t2m" / "1.0.0").unlink()
    ds = sc.open_dataset(path, ["z500", "t2m"], missing_chunks="fill")
    with pytest.raises(ValueError) as error:
        train(ds)
    says(error, "t2m has no value", "5 of 30 times", "2001-01-02 06:00", r'ds\.dropna\("time"')
    assert len(train(ds.dropna("time", how="any", subset=["t2m"])).provenance["epochs"]) == 1


# ---- a store that changes under the run


def change_at(monkeypatch, path, epoch, batch):
    """Rewrite a chunk when a batch of an epoch comes."""
    epoch_of = loader.WindowStream.epoch

    def watched(self, number, first_batch=0):
        for at, one in enumerate(epoch_of(self, number, first_batch)):
            if (number, at) == (epoch, batch):
                zarr.open_group(path)["t2m"][50:55] = 250.0
            yield one

    monkeypatch.setattr(loader.WindowStream, "epoch", watched)


@pytest.mark.parametrize("engine", ["zarr", "tensorstore"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_store_that_changes_stops_the_training(tmp_path, monkeypatch, engine, epoch):
    path = stored(tmp_path / "s.zarr", waves(times=120))
    change_at(monkeypatch, path, epoch, 1)
    with pytest.raises(ValueError) as error:
        train(sc.open_dataset(path, ["z500", "t2m"]), epochs=3, memory=225_000, engine=engine)
    says(error, "the store of dataset", "changed", "another directory")


def test_a_store_that_changes_in_the_last_epoch_is_no_result(tmp_path, monkeypatch):
    path = stored(tmp_path / "s.zarr", waves(times=120))
    change_at(monkeypatch, path, 2, 0)
    with pytest.raises(ValueError, match="store of dataset changed"):
        train(sc.open_dataset(path, ["z500", "t2m"]), epochs=3, memory=225_000)


def test_a_store_that_changed_before_it_is_resumed_is_another_run(tmp_path):
    path = stored(tmp_path / "s.zarr", waves(times=120))

    def run():
        ds, config = sc.open_dataset(path, ["z500", "t2m"]), quick(memory=225_000)
        settings = dict(valid=None, model=tiny_model(), config=config, device="cpu")
        return sc.train(TASK, ds, directory=tmp_path / "run", **settings)

    run()
    zarr.open_group(path)["t2m"][50, 3, 3] += 0.5
    with pytest.raises(ValueError) as error:
        run()
    says(error, "another run", "data_sha256", "another directory")


# ---- times


def noleap(ds):
    times = xr.date_range("2001-01-01", periods=ds.sizes["time"], freq="6h", calendar="noleap", use_cftime=True)
    return ds.assign_coords(time=times)


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        ([1, 0, 2, 3, 4, 5], ("2001-01-01 00:00:00 comes after 2001-01-01 06:00:00", "sortby")),
        ([5, 4, 3, 2, 1, 0], ("2001-01-02 00:00:00 comes after 2001-01-02 06:00:00", "sortby")),
        ([0, 1, 2, 2, 3, 4], ("2001-01-01 12:00:00 appears more than once", "drop_duplicates")),
    ],
    ids=["out of order", "backward", "twice"],
)
def test_times_that_do_not_ascend(tmp_path, forecaster, times, parts):
    good = waves(times=30)
    bad = good.isel(time=times)
    opened = sc.open_dataset(stored(tmp_path / "s.zarr", bad), ["z500", "t2m"])
    for call in (
        lambda: train(bad),
        lambda: train(opened),
        lambda: train([good, bad]),
        lambda: train(good.isel(time=slice(0, 20)), valid=bad.assign_coords(time=bad.time + np.timedelta64(90, "D"))),
    ):
        with pytest.raises(ValueError) as error:
            call()
        # the validation period is three months later
        says(error, *(part.replace("2001-01-", r"2001-0\d-") for part in parts))
    with pytest.raises(ValueError) as error:
        forecaster(bad)
    says(error, *parts)


def test_validation_in_another_calendar():
    ds = waves(times=30)
    with pytest.raises(ValueError) as error:
        train(ds, valid=noleap(ds))
    says(error, "calendars", "noleap", "convert_calendar")


def test_series_in_several_calendars():
    ds = waves(times=30)
    with pytest.raises(ValueError) as error:
        train([ds, noleap(ds)])
    says(error, "calendar", "noleap", "convert_calendar")


# ---- names


@pytest.mark.parametrize(("first", "second"), [("t2m", "2m_temperature"), ("z500", "geopotential_500")])
def test_one_variable_by_two_names(first, second):
    with pytest.raises(ValueError) as error:
        sc.open_dataset(waves(), [first, second])
    says(error, f"'{first}'", f"'{second}'")
    with pytest.raises(ValueError) as error:
        train(waves(), task=sc.Task([first, second], history=2, horizon=2))
    says(error, f"'{first}'", f"'{second}'")


def test_two_variables_that_one_name_could_mean():
    ds = waves()
    ds = ds.drop_vars("t2m").assign({"2t": ds["t2m"], "2m_temperature": ds["t2m"] + 1})
    with pytest.raises(ValueError) as error:
        sc.open_dataset(ds, ["t2m"])
    says(error, "'t2m' could be any of", "'2t', '2m_temperature'", "Ask for one of these")
    assert float(sc.open_dataset(ds, ["2t"])["2t"].mean()) == pytest.approx(float(ds["2t"].mean()))


def test_a_variable_that_is_not_there():
    with pytest.raises(ValueError) as error:
        train(waves(), task=sc.Task(["z500", "t850"], history=2, horizon=2))
    says(error, r"no variable 't850' in this dataset, which has \['t2m', 'z500'\]")


# ---- values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_missing_now_and_then(value, forecaster):
    ds = waves(times=30).copy(deep=True)
    ds["t2m"][3:9, 2, 3] = value
    with pytest.raises(ValueError) as error:
        train(ds)
    fix = r"6 of 30 times.*where\(.*notnull\(\).all" if np.isnan(value) else r"where\(np.isfinite"
    says(error, f"t2m is {value} at 2001-01-01 18:00, latitude -33.75, longitude 67.5", fix)
    with pytest.raises(ValueError) as error:
        forecaster(ds, init_times=ds.time.values[3:4])
    says(error, f"t2m is {value} at 2001-01-01 18:00", "latitude -33.75, longitude 67.5", "Fill")


@pytest.mark.parametrize(
    ("units", "change", "parts"),
    [
        ("m s-1", lambda x: x, ("t2m has the units 'm s-1'", r'attrs\["units"\] = "K"')),
        ("parsec", lambda x: x, ("t2m has the units 'parsec'", r'attrs\["units"\] = "K"')),
        ("degC", lambda x: x, ("t2m has values from 260", "'degC'", r'attrs\["units"\] = "K"')),
        ("K", lambda x: x - 273.15, ("t2m has values from -1", "'K'", r'attrs\["units"\] = "degC"')),
        ("K", lambda x: x * 0 + 1e20, (r"fill value 1e\+20", r"where\(")),
        ("K", lambda x: x * 0, ("t2m is constant, 0", "drop_vars")),
        ("K", lambda x: x * 10, ("t2m has values from 26", "within 170 to 345", r"clip\(170, 345\)")),
    ],
)  # fmt: skip
def test_units_that_cannot_be(units, change, parts):
    ds = waves(times=30)
    ds["t2m"] = change(ds["t2m"]).assign_attrs(units=units)
    with pytest.raises(ValueError) as error:
        train(ds)
    says(error, *parts)


def test_units_that_a_forecaster_cannot_take(forecaster):
    ds = waves()
    ds["t2m"] = ds["t2m"].assign_attrs(units="m s-1")
    with pytest.raises(ValueError) as error:
        forecaster(ds)
    says(error, "t2m is in 'm s-1'", "must be in 'K'", "[Cc]onvert the data")


def test_packed_numbers_that_overflowed(tmp_path):
    """16 bits hold 65 K in thousandths, and zarr wraps around without a word."""
    ds = waves(times=30)
    packed = {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -32768}
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"t2m": packed})
    opened = sc.open_dataset(tmp_path / "s.zarr", ["z500", "t2m"])
    assert float(abs(opened["t2m"]).max()) < 33
    with pytest.raises(ValueError) as error:
        train(opened)
    says(error, r"t2m has values from [-\d.]+ to", "'K'")
    assert not sc.check(opened, TASK).ok


def test_packed_numbers_that_were_not_decoded():
    ds = waves(times=30)
    ds["t2m"] = ((ds["t2m"] - 273.15) * 100).astype("i2").assign_attrs(units="K", scale_factor=0.01, add_offset=273.15)
    with pytest.raises(ValueError) as error:
        train(ds)
    says(error, r"t2m has values from [-\d.]+ to", "within 170 to 345", "decode_cf")
    assert len(train(xr.decode_cf(ds)).provenance["epochs"]) == 1


def test_fill_values_in_a_few_cells_that_were_not_decoded():
    ds = waves(times=30).copy(deep=True)
    ds["t2m"][:, 0, 0] = -9999
    with pytest.raises(ValueError, match="-9999"):
        train(ds)


def test_a_field_that_never_changes():
    ds = waves(times=30)
    ds["t2m"] = (ds["t2m"] * 0 + 280).assign_attrs(units="K")
    with pytest.raises(ValueError) as error:
        train(ds)
    says(error, "t2m is constant, 280", "Task.variables")


# ---- selections


@pytest.mark.parametrize(
    ("select", "parts"),
    [
        (lambda ds: ds.sel(time=slice("1950", "1951")), ("dataset has no times", "period")),
        (lambda ds: ds.isel(time=slice(0, 3)), ("dataset has no window of 4 states",)),
        (lambda ds: ds.isel(latitude=slice(0, 0)), ("latitude.* is empty",)),
        (lambda ds: [], ("dataset is an empty list", "at least one series")),
    ],
    ids=["no time", "too short", "no latitude", "no series"],
)
def test_selections_that_hold_nothing(select, parts):
    with pytest.raises(ValueError) as error:
        train(select(waves(times=30)))
    says(error, *parts)


def test_a_selection_without_a_longitude():
    with pytest.raises(ValueError, match="longitude.* is empty"):
        train(waves(times=30).isel(longitude=slice(0, 0)))


def test_no_variables():
    for call in (lambda: sc.Task([]), lambda: sc.open_dataset(waves(), [])):
        with pytest.raises(ValueError) as error:
            call()
        says(error, "variables is empty", "Name at least one")


def test_a_forecast_from_a_selection_that_holds_nothing(forecaster):
    with pytest.raises(ValueError) as error:
        forecaster(waves().sel(time=slice("1950", "1951")))
    says(error, "the dataset has no times", "period")


# ---- paths


def test_paths_that_cannot_be_opened(tmp_path):
    stored(tmp_path / "era5.zarr")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.nc").write_text("hello")
    for path, kind, parts in (
        (tmp_path / "era.zarr", FileNotFoundError, ("era.zarr' does not exist", "Did you mean 'era5.zarr'")),
        (tmp_path / "empty", ValueError, ("neither a Zarr store", "contains nothing", "Pass the path")),
        (tmp_path / "text.nc", ValueError, ("text.nc' is neither NetCDF nor GRIB",)),
    ):
        with pytest.raises(kind) as error:
            sc.open_dataset(path, ["t2m"])
        says(error, *parts)


@pytest.mark.parametrize("name", [".zgroup", "t2m/.zarray"])
def test_metadata_that_are_damaged(tmp_path, name):
    path = stored(tmp_path / "s.zarr")
    (path / name).write_text('{"zarr_format"')
    with pytest.raises(ValueError) as error:
        sc.open_dataset(path, ["t2m"])
    says(error, "s.zarr")


@pytest.mark.parametrize("other", ["latitude", "longitude"])
def test_a_store_whose_times_have_the_metadata_of_another_array_is_damaged(tmp_path, other):
    waves(times=8).to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    shutil.copy(tmp_path / "s.zarr" / other / "zarr.json", tmp_path / "s.zarr" / "time" / "zarr.json")
    with pytest.raises(ValueError, match=f"'time' in the Zarr store .*s.zarr' are damaged: it is on '{other}'"):
        sc.open_dataset(tmp_path / "s.zarr", ["t2m"])
