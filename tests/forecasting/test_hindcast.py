import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
from factories import waves

from simvp_climate.data.files import lock
from simvp_climate.forecasting import hindcast, predict

BYTES = 3 * 2 * 8 * 16 * 4  # of a forecast: leads, variables, cells


@pytest.fixture(autouse=True)
def small_batches(monkeypatch, forecaster):
    """Batches of four initializations."""
    monkeypatch.setattr(hindcast, "_BATCH_BYTES", 4 * BYTES)


def without_changing_attributes(dataset):
    """Return a dataset without the attributes that depend on the time and on the way of writing."""
    dataset = dataset.load().copy()
    attributes = {name for name in dataset.attrs if name not in ("history", "hindcast")}
    dataset.attrs = {name: dataset.attrs[name] for name in attributes}
    return dataset


def assert_same(result, expected):
    """Labels and attributes are identical; sums over batches of another size round differently."""
    result, expected = without_changing_attributes(result), without_changing_attributes(expected)
    for name in expected.data_vars:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5)
        result[name] = result[name].copy(data=expected[name].values)
    xr.testing.assert_identical(result, expected)


def files(path):
    """Return the content of every file of a store without its creation time."""
    result = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if file.parent.name == "checksums" and file.name == ".zattrs":
            checksums = json.loads(content)["metadata"]  # two of them are of files with the creation time
            content = str({key: value for key, value in checksums.items() if key not in (".zattrs", ".zmetadata")})
        elif file.name in (".zattrs", ".zmetadata"):
            content = json.dumps(json.loads(content), sort_keys=True)
            content = "".join(text for text in content.split('"') if "forecast by simvp_climate" not in text)
        result[str(file.relative_to(path))] = content
    return result


def stop_at(call, monkeypatch):
    """Interrupt the call of this number, counted from 1; return the list of the batch sizes so far."""
    batch_sizes, predict_states = [], predict.predict_states

    def stop(forecaster, request, member, histories, *args, **options):
        batch_sizes.append(len(histories))
        if len(batch_sizes) == call:
            raise KeyboardInterrupt
        return predict_states(forecaster, request, member, histories, *args, **options)

    monkeypatch.setattr(predict, "predict_states", stop)
    return batch_sizes


def test_a_hindcast_equals_the_forecasts(forecaster, tmp_path):
    ds = waves()
    result = forecaster.hindcast(ds, every="6h", store=tmp_path / "h.zarr", progress=False)
    assert result.sizes["init_time"] == 58 and result.t2m.variable._in_memory is False
    assert_same(result, forecaster(ds, every="6h"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.zarr"]
    # a repeated call only opens the store
    before = os.stat(tmp_path / "h.zarr" / ".zmetadata").st_mtime_ns
    again = forecaster.hindcast(ds, every="6h", store=tmp_path / "h.zarr", progress=False)
    xr.testing.assert_identical(again.load(), result.load())
    assert os.stat(tmp_path / "h.zarr" / ".zmetadata").st_mtime_ns == before


@pytest.mark.parametrize("change", ["descending", "renamed", "members"])
def test_the_store_has_the_layout_of_the_data(forecaster, tmp_path, change):
    ds = waves()
    if change == "descending":
        ds = ds.isel(latitude=slice(None, None, -1))
    elif change == "renamed":
        ds = ds.rename(latitude="lat", longitude="lon")
    elif change == "members":
        ds = xr.concat([ds, ds + 0.5], xr.DataArray([1, 2], dims="number", name="number"), combine_attrs="override")
        ds = ds.assign({name: ds[name].assign_attrs(waves()[name].attrs) for name in ds})
    result = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert_same(result, forecaster(ds, every="12h"))


def test_an_interrupted_hindcast_resumes(forecaster, tmp_path, monkeypatch):
    ds = waves()
    whole = forecaster.hindcast(ds, every="12h", store=tmp_path / "whole.zarr", progress=False)
    batch_sizes = stop_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert not (tmp_path / "h.zarr").exists() and batch_sizes == [4, 4, 4, 4]
    result = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert batch_sizes == [4, 4, 4, 4, 4, 4, 4, 4, 1]  # no batch is forecast twice
    xr.testing.assert_identical(without_changing_attributes(result), without_changing_attributes(whole))
    assert files(tmp_path / "h.zarr") == files(tmp_path / "whole.zarr")
    assert result.attrs["data_sha256"] == whole.attrs["data_sha256"]


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from factories import waves
from simvp_climate.forecasting import hindcast, predict
from simvp_climate.forecasting.forecaster import Forecaster
import torch
torch.set_num_threads(1)
forecaster = Forecaster.load({model!r}, device="cpu")
hindcast._BATCH_BYTES = 4 * {size}
predict_states = predict.predict_states
def slow(*args, **options):
    time.sleep(0.05)
    return predict_states(*args, **options)
predict.predict_states = slow
print("begin", flush=True)
forecaster.hindcast(waves(), every="6h", store={to!r}, progress=False)
print("end", flush=True)
"""


def test_a_killed_hindcast_resumes(forecaster, tmp_path):
    model, store = tmp_path / "f.safetensors", tmp_path / "h.zarr"
    forecaster.save(model)
    script = SCRIPT.format(
        tests=os.path.dirname(os.path.dirname(__file__)), model=str(model), to=str(store), size=BYTES
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for pause in (0.1, 0.35):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True)
        assert process.stdout.readline() == "begin\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not store.exists()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, stdout=subprocess.DEVNULL)
    whole = forecaster.hindcast(waves(), every="6h", store=tmp_path / "whole.zarr", progress=False)
    result = xr.open_zarr(store, chunks=None, decode_timedelta=True)
    np.testing.assert_allclose(result.t2m, whole.t2m, rtol=1e-5)  # the other process may use another number of threads
    assert result.attrs["data_sha256"] == whole.attrs["data_sha256"]


def test_another_hindcast_is_an_error(forecaster, tmp_path, monkeypatch):
    ds, store = waves(), tmp_path / "h.zarr"
    forecaster.hindcast(ds, every="12h", store=store, progress=False)
    with pytest.raises(FileExistsError, match="another hindcast: horizon is 2, was 3"):
        forecaster.hindcast(ds, every="12h", horizon=2, store=store, progress=False)
    with pytest.raises(FileExistsError, match="another hindcast: initializations is 14, was 29"):
        forecaster.hindcast(ds, every="24h", store=store, progress=False)
    shifted = ds.assign_coords(longitude=ds.longitude + 1e-5)
    with pytest.raises(FileExistsError, match="another hindcast: grid"):
        forecaster.hindcast(shifted, every="12h", store=store, progress=False)
    stop_at(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        forecaster.hindcast(ds, every="12h", store=tmp_path / "part.zarr", progress=False)
    with pytest.raises(FileExistsError, match=r"part.zarr.unfinished' is another hindcast"):
        forecaster.hindcast(ds, every="24h", store=tmp_path / "part.zarr", progress=False)


def test_other_data_or_units_are_an_error(forecaster, tmp_path, monkeypatch):
    ds = waves()
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    celsius = ds.assign(t2m=(ds.t2m - 273.15).assign_attrs(units="degC"))
    with pytest.raises(FileExistsError, match="another hindcast: units"):
        forecaster.hindcast(celsius, every="12h", store=tmp_path / "h.zarr", progress=False)
    forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    other = ds.assign(t2m=(ds.t2m + 0.01).assign_attrs(ds.t2m.attrs))
    with pytest.raises(FileExistsError, match="another hindcast: data"):
        forecaster.hindcast(other, every="12h", store=tmp_path / "h.zarr", progress=False)


def test_a_deleted_store_is_written_again(forecaster, tmp_path):
    ds = waves()
    result = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False).load()
    for name in ("h.zarr", "h.zarr.unfinished"):  # remains of a killed call
        (tmp_path / f"{name}.json").write_text(json.dumps({"plan": {}, "digests": ["a"] * 29}))
    shutil.rmtree(tmp_path / "h.zarr")
    again = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    np.testing.assert_array_equal(again.t2m, result.t2m)


def test_other_files_are_left_alone(forecaster, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="mine.* not a hindcast"):
        forecaster.hindcast(waves(), every="12h", store=tmp_path / "mine", progress=False)
    (tmp_path / "x.zarr.unfinished").mkdir()
    with pytest.raises(FileExistsError, match="x.zarr.unfinished.* not a hindcast"):
        forecaster.hindcast(waves(), every="12h", store=tmp_path / "x.zarr", progress=False)
    (tmp_path / "y.zarr.unfinished").mkdir()
    (tmp_path / "y.zarr.unfinished.json").write_text("{")
    with pytest.raises(FileExistsError, match="y.zarr.unfinished.json.* cannot be read"):
        forecaster.hindcast(waves(), every="12h", store=tmp_path / "y.zarr", progress=False)
    with pytest.raises(FileNotFoundError, match="no folder"):
        forecaster.hindcast(waves(), every="12h", store=tmp_path / "nowhere" / "h.zarr", progress=False)
    with pytest.raises(ValueError, match="initializations.* every="):
        forecaster.hindcast(waves(), store=tmp_path / "h.zarr")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_a_hindcast_that_another_process_writes_is_refused(forecaster, tmp_path):
    store = tmp_path / "h.zarr"
    (tmp_path / "h.zarr.unfinished.lock").touch()
    with lock(tmp_path / "h.zarr.unfinished.lock"), pytest.raises(RuntimeError, match="h.zarr' is being written by"):
        forecaster.hindcast(waves(), every="24h", store=store, progress=False)
    assert not store.exists()
    assert forecaster.hindcast(waves(), every="24h", store=store, progress=False).sizes["init_time"] > 2
    assert [file.name for file in tmp_path.iterdir()] == ["h.zarr"]
