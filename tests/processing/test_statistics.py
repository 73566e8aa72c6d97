"""Statistics in one pass: the numbers of two passes in double precision, whatever the blocks."""

import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.reader import Channel
from simvp_climate.data.windows import find_windows
from simvp_climate.processing import statistics
from simvp_climate.processing.statistics import compute_statistics, resolve_log_scale_and_bounds

HISTORY, HORIZON = 3, 2


def series(times=40, offset=0.0, seed=0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(times, 4, 6)).cumsum(axis=0) * 10
    coords = {
        "time": pd.date_range("2001", periods=times, freq="6h"),
        "latitude": [-75.0, -25.0, 25.0, 75.0],
        "longitude": np.arange(6) * 60.0,
    }
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({"a": (dims, (values + offset).astype("f4")), "b": (dims, (values * 2 - 5).astype("f4"))}, coords)


def statistics_of(*parts: xr.Dataset, log_scale=(0, 0), engine="auto", **options):
    sources = [reader.open_source(orient(part[["a", "b"]]), engine) for part in parts]
    windows = [find_windows(part.indexes["time"], "6h", HISTORY, HORIZON, "ds") for part in parts]
    weights = latitude_weights(parts[0]["latitude"]).values
    return compute_statistics(sources, windows, weights, HISTORY, np.array(log_scale, dtype=float), **options)


def by_hand(ds: xr.Dataset):
    """Weighted mean and standard deviation, and changes over all windows, from the definitions."""
    weight = latitude_weights(ds["latitude"])
    ds = ds.astype("f8")
    mean = ds.weighted(weight).mean().to_array().values
    std = ds.weighted(weight).std().to_array().values
    changes = []
    for lead in (1, 2, 2):  # the third lead of a call lies beyond a window of five
        shifted = ds.shift(time=-lead).isel(time=slice(HISTORY - 1, ds.sizes["time"] - HORIZON))
        change = shifted - ds.isel(time=slice(HISTORY - 1, ds.sizes["time"] - HORIZON))
        changes.append(np.sqrt((change**2).weighted(weight).mean().to_array().values))
    return mean, std, np.array(changes)


def mean_field(*parts: xr.Dataset):
    """Mean of each cell over the times of all parts, (channel, latitude, longitude)."""
    return xr.concat(parts, "time").astype("f8").mean("time").to_array().values


@pytest.mark.parametrize("block_bytes", [2**25, 5000, 1])
@pytest.mark.parametrize("offset", [0, 5e5])
def test_the_numbers_of_the_definitions(monkeypatch, block_bytes, offset):
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(statistics, "_CACHED_BYTES", block_bytes // 4)
    ds = series(offset=offset)
    found, (mean, std, change) = statistics_of(ds), by_hand(ds)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(found.std, std, rtol=1e-5)
    np.testing.assert_allclose(found.change_std, change, rtol=1e-5)
    np.testing.assert_allclose(found.mean_field, mean_field(ds), rtol=1e-7, atol=1e-4)
    assert not found.mask.any()


def test_the_outcome_does_not_depend_on_chunks_engine_or_keeping(tmp_path):
    ds = series(60)
    whole = statistics_of(ds)
    keep = np.empty((60, 2, 4, 6), "f4")
    kept = statistics_of(ds, out=keep)
    np.testing.assert_array_equal(keep, ds.to_array().transpose("time", "variable", ...).values)
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"a": {"chunks": (7, 4, 6)}})
    lazy = xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False)
    read = [statistics_of(lazy, engine=engine, use_cache=False) for engine in ("zarr", "auto")]
    for other in (kept, *read):
        assert other.digest == whole.digest
        np.testing.assert_array_equal(other.mean, whole.mean)
        np.testing.assert_array_equal(other.std, whole.std)
        np.testing.assert_array_equal(other.mean_field, whole.mean_field)


def test_several_series_count_as_one():
    first, second = series(40), series(30, seed=1)
    found = statistics_of(first, second)
    joined = xr.concat([first, second], "time")
    weight = latitude_weights(joined["latitude"])
    np.testing.assert_allclose(found.mean, joined.astype("f8").weighted(weight).mean().to_array(), rtol=1e-6)
    np.testing.assert_allclose(found.std, joined.astype("f8").weighted(weight).std().to_array(), rtol=1e-5)
    # 40 and 30 times: each time counts the same, whatever its series
    np.testing.assert_allclose(found.mean_field, mean_field(first, second), atol=1e-4)


def test_the_digest_tells_data_apart():
    ds = series()
    flipped = ds.copy(data={name: ds[name].values[:, ::-1] for name in ds})
    others = (ds, ds + 1, ds.isel(time=slice(1, None)), flipped)
    assert len({statistics_of(other).digest for other in others}) == 4


def test_cells_that_never_have_a_value_are_a_mask():
    ds = series()
    ds["a"][:, 1, 2] = np.nan
    found = statistics_of(ds)
    assert found.mask.sum() == 1 and found.mask[0, 1, 2]
    weight = latitude_weights(ds["latitude"])
    expected = ds["a"].astype("f8").weighted(weight)
    assert found.mean[0] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert found.std[0] == pytest.approx(expected.std().item(), rel=1e-5)
    _, _, change = by_hand(ds)
    np.testing.assert_allclose(found.change_std, change, rtol=1e-5)
    assert np.isfinite(found.mean_field).all()
    np.testing.assert_allclose(found.mean_field[~found.mask], mean_field(ds)[~found.mask], atol=1e-4)


@pytest.mark.parametrize("times", [[0], [17], [39], [5, 6, 7]])
def test_cells_without_a_value_at_some_times_are_reported(times):
    ds = series()
    ds["b"][times, 2, 4] = np.nan
    ds["b"][:, 0, 0] = np.nan  # a mask
    incomplete = statistics_of(ds).incomplete
    assert incomplete.count == 40 and incomplete.times[1, 2, 4] == len(times)
    assert incomplete.first[:, 1, 2, 4].tolist() == [0, times[0]]
    assert not incomplete.infinite.any() and not incomplete.empty.any()


def test_times_without_any_value_are_reported():
    first, second = series(), series()
    second["b"][[7, 9]] = np.nan
    incomplete = statistics_of(first, second).incomplete
    assert incomplete.empty.tolist() == [0, 2] and incomplete.first_empty[:, 1].tolist() == [1, 7]


@pytest.mark.parametrize("times", [[7], slice(None)])
def test_infinite_values_are_reported_even_at_all_times(times):
    ds = series()
    ds["a"][times, 1, 1] = np.inf
    incomplete = statistics_of(ds).incomplete
    assert np.argwhere(incomplete.infinite).tolist() == [[0, 1, 1]]


def test_incomplete_statistics_are_not_cached(tmp_path, cache_folder):
    ds = series()
    ds["a"][7, 1, 1] = np.nan
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    assert statistics_of(xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False)).incomplete is not None
    assert not list(cache_folder.rglob("*.npz"))


def test_times_in_no_window_are_not_looked_at():
    ds = series()
    ds["a"][2, 0, 0] = np.nan
    alone = ds.drop_isel(time=4)  # the first four times are no window
    assert not statistics_of(alone).mask.any() and statistics_of(alone).incomplete is None


def test_the_outcome_is_remembered_in_the_cache_folder(tmp_path, cache_folder, monkeypatch):
    ds = series()
    path = tmp_path / "s.zarr"
    ds.to_zarr(path, consolidated=False)
    lazy = xr.open_zarr(path, chunks=None, consolidated=False)
    first = statistics_of(lazy)
    folder = cache_folder / "simvp_climate"
    assert [file.suffix for file in folder.iterdir()] == [".npz"]
    assert {entry.name for entry in path.iterdir()} == {"a", "b", "time", "latitude", "longitude", "zarr.json"}

    counts = []
    with monkeypatch.context() as patch:
        fetch = reader.fetch
        patch.setattr(reader, "fetch", lambda requests: counts.extend(len(r.out) for r in requests) or fetch(requests))
        again = statistics_of(lazy)
    assert sum(counts) == 4  # a sample that shows whether the content is the same
    for name in ("mean", "std", "change_std", "mask", "mean_field", "digest"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    # another part, other values under the same names: other statistics
    statistics_of(lazy.isel(time=slice(0, 30)))
    (ds + 1).to_zarr(path, mode="w", consolidated=False)
    rewritten = statistics_of(xr.open_zarr(path, chunks=None, consolidated=False))
    assert rewritten.mean[0] == pytest.approx(first.mean[0] + 1)
    assert len(list(folder.iterdir())) == 3
    next(iter(folder.iterdir())).write_bytes(b"damaged")
    for part in (lazy.isel(time=slice(0, 30)), xr.open_zarr(path, chunks=None, consolidated=False)):
        statistics_of(part)
    # what is no untouched view of a store is not remembered
    statistics_of(lazy - 1)
    assert len(list(folder.iterdir())) in (3, 4)


def test_content_that_changed_with_sizes_and_times_kept_is_noticed(tmp_path, cache_folder):
    path = tmp_path / "s.zarr"
    series().to_zarr(path, consolidated=False, encoding={name: {"compressors": None} for name in "ab"})
    first = statistics_of(xr.open_zarr(path, chunks=None, consolidated=False))
    file = next(file for file in (path / "a" / "c").rglob("*") if file.is_file())
    before, content = file.stat(), np.frombuffer(file.read_bytes(), "<f4").copy()
    content += 100
    file.write_bytes(content.tobytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = statistics_of(xr.open_zarr(path, chunks=None, consolidated=False))
    assert again.mean[0] == pytest.approx(first.mean[0] + 100)


def test_cached_statistics_that_are_damaged_anywhere_are_made_anew(tmp_path, cache_folder):
    path = tmp_path / "s.zarr"
    series().to_zarr(path, consolidated=False)
    lazy = xr.open_zarr(path, chunks=None, consolidated=False)
    first = statistics_of(lazy)
    (file,) = (cache_folder / "simvp_climate").iterdir()
    content = file.read_bytes()
    for at in np.linspace(0, len(content) - 1, 60, dtype=int):
        damaged = bytearray(content)
        damaged[at] ^= 16
        file.write_bytes(damaged)
        again = statistics_of(lazy)
        np.testing.assert_array_equal(again.mean, first.mean)
        np.testing.assert_array_equal(again.mask, first.mask)


def test_logarithms_have_statistics_of_their_own():
    ds = series()
    ds["a"] = np.abs(ds["a"])
    ds["a"][3, 1, 1] = -1e-9  # packing leaves such values
    found = statistics_of(ds, log_scale=(0.5, 0))
    logged = ds.assign(a=np.log1p(ds["a"].clip(min=0) / 0.5))
    mean, std, change = by_hand(logged)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.std, std, rtol=1e-5)
    np.testing.assert_allclose(found.change_std, change, rtol=1e-5)
    np.testing.assert_allclose(found.mean_field, mean_field(logged), rtol=1e-5, atol=1e-4)


def test_transforms_by_name():
    channels = (Channel("tp"), Channel("tcc"), Channel("q", 500.0), Channel("t2m"))
    scale, bounds = resolve_log_scale_and_bounds(
        channels, ("mm", "1", "kg kg-1", "K"), [("tp", "log"), ("tcc", (0, 1)), ("q", (0, None))]
    )
    np.testing.assert_allclose(scale, [0.01, 0, 0, 0])
    assert bounds.tolist() == [[0, np.inf], [0, 1], [0, np.inf], [-np.inf, np.inf]]
    scale, _ = resolve_log_scale_and_bounds((Channel("rain"),), ("",), [("rain", ("log", 3.0))])
    assert scale.tolist() == [3.0]
    with pytest.raises(ValueError, match="transforms={'rain': 'log'} .* 'dBZ'"):
        resolve_log_scale_and_bounds((Channel("rain"),), ("dBZ",), [("rain", "log")])


def test_the_extremes_are_those_of_the_values():
    ds = series(offset=300)
    ds["a"][:, 0, 0] = np.nan
    found = statistics_of(ds)
    np.testing.assert_allclose(found.minimum, ds.min().to_array(), rtol=1e-6)
    np.testing.assert_allclose(found.maximum, ds.max().to_array(), rtol=1e-6)
