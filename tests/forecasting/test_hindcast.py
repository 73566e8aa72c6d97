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

from simvp_climate.forecasting import forecaster as forecaster_module
from simvp_climate.forecasting import hindcast

BYTES = 3 * 2 * 8 * 16 * 4  # of a forecast: leads, variables, cells


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch, forecaster):
    """Four initializations at a time."""
    monkeypatch.setattr(hindcast, "_BATCH_BYTES", 4 * BYTES)


def plain(dataset):
    """Return a dataset without what says when and how it was made."""
    dataset = dataset.load().copy()
    kept = {name for name in dataset.attrs if name not in ("history", "hindcast")}
    dataset.attrs = {name: dataset.attrs[name] for name in kept}
    return dataset


def assert_same(found, expected):
    """Labels and attributes are identical; sums of another number of windows at a time round differently."""
    found, expected = plain(found), plain(expected)
    for name in expected.data_vars:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
        found[name] = found[name].copy(data=expected[name].values)
    xr.testing.assert_identical(found, expected)


def files(path):
    """Return the bytes of every file of a store; what says when it was made is cut out."""
    found = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        if file.name in (".zattrs", ".zmetadata"):
            content = json.dumps(json.loads(content), sort_keys=True)
            content = "".join(part for part in content.split('"') if "forecast by simvp_climate" not in part)
        found[str(file.relative_to(path))] = content
    return found


def stop_at(call, monkeypatch):
    """Interrupt the given call of the network, counted from 1; return the list of the numbers of histories so far."""
    made, predict_states = [], forecaster_module.predict_states

    def stop(forecaster, request, member, histories, *args, **options):
        made.append(len(histories))
        if len(made) == call:
            raise KeyboardInterrupt
        return predict_states(forecaster, request, member, histories, *args, **options)

    monkeypatch.setattr(forecaster_module, "predict_states", stop)
    return made


def test_is_the_forecast(forecaster, tmp_path):
    ds = waves()
    found = forecaster.hindcast(ds, every="6h", store=tmp_path / "h.zarr", progress=False)
    assert found.sizes["init_time"] == 58 and found.t2m.variable._in_memory is False
    assert_same(found, forecaster(ds, every="6h"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.zarr"]
    # once more it is only opened
    before = os.stat(tmp_path / "h.zarr" / ".zmetadata").st_mtime_ns
    again = forecaster.hindcast(ds, every="6h", store=tmp_path / "h.zarr", progress=False)
    xr.testing.assert_identical(again.load(), found.load())
    assert os.stat(tmp_path / "h.zarr" / ".zmetadata").st_mtime_ns == before


@pytest.mark.parametrize("change", ["descending", "renamed", "members"])
def test_the_layout_of_the_data(forecaster, tmp_path, change):
    ds = waves()
    if change == "descending":
        ds = ds.isel(latitude=slice(None, None, -1))
    elif change == "renamed":
        ds = ds.rename(latitude="lat", longitude="lon")
    elif change == "members":
        ds = xr.concat([ds, ds + 0.5], xr.DataArray([1, 2], dims="number", name="number"), combine_attrs="override")
        ds = ds.assign({name: ds[name].assign_attrs(waves()[name].attrs) for name in ds})
    found = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert_same(found, forecaster(ds, every="12h"))


def test_goes_on_where_it_was_stopped(forecaster, tmp_path, monkeypatch):
    ds = waves()
    whole = forecaster.hindcast(ds, every="12h", store=tmp_path / "whole.zarr", progress=False)
    made = stop_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert not (tmp_path / "h.zarr").exists() and made == [4, 4, 4, 4]
    found = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    assert made == [4, 4, 4, 4, 4, 4, 4, 4, 1]  # what was written is not made again
    xr.testing.assert_identical(plain(found), plain(whole))
    assert files(tmp_path / "h.zarr") == files(tmp_path / "whole.zarr")
    assert found.attrs["data_sha256"] == whole.attrs["data_sha256"]


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from factories import waves
from simvp_climate.forecasting import forecaster as module, hindcast
import torch
torch.set_num_threads(1)
forecaster = module.Forecaster.load({model!r}, device="cpu")
hindcast._BATCH_BYTES = 4 * {size}
predict_states = module.predict_states
def slow(*args, **options):
    time.sleep(0.05)
    return predict_states(*args, **options)
module.predict_states = slow
print("begin", flush=True)
forecaster.hindcast(waves(), every="6h", store={to!r}, progress=False)
print("end", flush=True)
"""


def test_a_killed_process(forecaster, tmp_path):
    model, to = tmp_path / "f.safetensors", tmp_path / "h.zarr"
    forecaster.save(model)
    script = SCRIPT.format(tests=os.path.dirname(os.path.dirname(__file__)), model=str(model), to=str(to), size=BYTES)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for pause in (0.1, 0.35):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True)
        assert process.stdout.readline() == "begin\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not to.exists()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, stdout=subprocess.DEVNULL)
    whole = forecaster.hindcast(waves(), every="6h", store=tmp_path / "whole.zarr", progress=False)
    found = xr.open_zarr(to, chunks=None, decode_timedelta=True)
    np.testing.assert_allclose(found.t2m, whole.t2m, rtol=1e-5)  # another number of threads
    assert found.attrs["data_sha256"] == whole.attrs["data_sha256"]


def test_another_run_is_refused(forecaster, tmp_path, monkeypatch):
    ds, to = waves(), tmp_path / "h.zarr"
    forecaster.hindcast(ds, every="12h", store=to, progress=False)
    with pytest.raises(FileExistsError, match="another hindcast: horizon is 2, was 3"):
        forecaster.hindcast(ds, every="12h", horizon=2, store=to, progress=False)
    with pytest.raises(FileExistsError, match="another hindcast: initializations is 14, was 29"):
        forecaster.hindcast(ds, every="24h", store=to, progress=False)
    shifted = ds.assign_coords(longitude=ds.longitude + 1e-5)
    with pytest.raises(FileExistsError, match="another hindcast: grid"):
        forecaster.hindcast(shifted, every="12h", store=to, progress=False)
    stop_at(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        forecaster.hindcast(ds, every="12h", store=tmp_path / "part.zarr", progress=False)
    with pytest.raises(FileExistsError, match=r"part.zarr.unfinished' is another hindcast"):
        forecaster.hindcast(ds, every="24h", store=tmp_path / "part.zarr", progress=False)


def test_other_data_or_units_are_another_run(forecaster, tmp_path, monkeypatch):
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


def test_a_store_that_was_deleted_is_begun_anew(forecaster, tmp_path):
    ds = waves()
    found = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False).load()
    for name in ("h.zarr", "h.zarr.unfinished"):  # what a kill may leave when its store is gone
        (tmp_path / f"{name}.json").write_text(json.dumps({"plan": {}, "digests": ["a"] * 29}))
    shutil.rmtree(tmp_path / "h.zarr")
    again = forecaster.hindcast(ds, every="12h", store=tmp_path / "h.zarr", progress=False)
    np.testing.assert_array_equal(again.t2m, found.t2m)


def test_what_is_not_ours_is_left_alone(forecaster, tmp_path):
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
    with pytest.raises(ValueError, match="initializations: pass every"):
        forecaster.hindcast(waves(), store=tmp_path / "h.zarr")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
