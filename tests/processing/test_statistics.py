"""Statistics in one pass: the numbers of two passes in double precision, whatever the blocks."""

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
from simvp_climate.processing.statistics import (
    Statistics,
    check_transforms,
    check_units,
    check_varies,
    compute_statistics,
    transforms_of,
)

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


def statistics_of(*parts: xr.Dataset, log_scale=(0, 0), **options):
    sources = [reader.open_source(orient(part[["a", "b"]])) for part in parts]
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
    assert not found.mask.any()


def test_the_outcome_does_not_depend_on_chunks_engine_or_keeping(tmp_path):
    ds = series(60)
    whole = statistics_of(ds)
    keep = np.empty((60, 2, 4, 6), "f4")
    kept = statistics_of(ds, out=keep)
    np.testing.assert_array_equal(keep, ds.to_array().transpose("time", "variable", ...).values)
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"a": {"chunks": (7, 4, 6)}})
    read = statistics_of(xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False), use_cache=False)
    for other in (kept, read):
        assert other.digest == whole.digest
        np.testing.assert_array_equal(other.mean, whole.mean)
        np.testing.assert_array_equal(other.std, whole.std)


def test_several_series_count_as_one():
    first, second = series(40), series(30, seed=1)
    found = statistics_of(first, second)
    joined = xr.concat([first, second], "time")
    weight = latitude_weights(joined["latitude"])
    np.testing.assert_allclose(found.mean, joined.astype("f8").weighted(weight).mean().to_array(), rtol=1e-6)
    np.testing.assert_allclose(found.std, joined.astype("f8").weighted(weight).std().to_array(), rtol=1e-5)


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


@pytest.mark.parametrize("times", [[0], [17], [39], [5, 6, 7]])
def test_a_mask_that_moves_is_reported(times):
    ds = series()
    ds["b"][times, 2, 4] = np.nan
    ds["b"][:, 0, 0] = np.nan
    when = ds.indexes["time"][times[0]]
    message = (
        f"b is nan at {when}, latitude 25, longitude 240, .* none at {len(times)} of the 40 times read, and 1 cells"
    )
    with pytest.raises(ValueError, match=message):
        statistics_of(ds)


def test_infinite_values_are_no_values():
    ds = series()
    ds["a"][7, 1, 1] = np.inf
    with pytest.raises(ValueError, match="a is inf at 2001-01-02 18:00:00, latitude -25, longitude 60"):
        statistics_of(ds)


def test_times_in_no_window_are_not_looked_at():
    ds = series()
    ds["a"][2, 0, 0] = np.nan
    alone = ds.drop_isel(time=4)  # the first four times are no window
    assert not statistics_of(alone).mask.any()


def test_the_outcome_is_remembered_in_the_cache_folder(tmp_path, cache_folder, monkeypatch):
    ds = series()
    path = tmp_path / "s.zarr"
    ds.to_zarr(path, consolidated=False)
    lazy = xr.open_zarr(path, chunks=None, consolidated=False)
    first = statistics_of(lazy)
    folder = cache_folder / "simvp_climate"
    assert [file.suffix for file in folder.iterdir()] == [".npz"]
    assert {entry.name for entry in path.iterdir()} == {"a", "b", "time", "latitude", "longitude", "zarr.json"}

    with monkeypatch.context() as patch:
        patch.setattr(reader, "fetch", lambda requests: pytest.fail("read again"))
        again = statistics_of(lazy)
    for name in ("mean", "std", "change_std", "mask", "digest"):
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


def test_transforms_by_name():
    channels = (Channel("tp"), Channel("tcc"), Channel("q", 500.0), Channel("t2m"))
    scale, bounds = transforms_of(
        channels, ("mm", "1", "kg kg-1", "K"), [("tp", "log"), ("tcc", (0, 1)), ("q", (0, None))]
    )
    np.testing.assert_allclose(scale, [0.01, 0, 0, 0])
    assert bounds.tolist() == [[0, np.inf], [0, 1], [0, np.inf], [-np.inf, np.inf]]
    scale, _ = transforms_of((Channel("rain"),), ("",), [("rain", ("log", 3.0))])
    assert scale.tolist() == [3.0]
    with pytest.raises(ValueError, match="transforms={'rain': 'log'} knows what counts as none .* 'rain' is in 'dBZ'"):
        transforms_of((Channel("rain"),), ("dBZ",), [("rain", "log")])


def test_units_and_values_are_held_against_the_vocabulary():
    channels, log = (Channel("t2m"), Channel("mine")), np.zeros(2)

    def checked(units, mean, low, high):
        found = Statistics(
            np.array([mean, 0.0]),
            None,
            None,
            np.zeros((2, 1, 1), bool),
            np.array([low, 0.0]),
            np.array([high, 0.0]),
            "",
        )
        check_units(found, channels, (units, ""), log)

    checked("K", 288, 220, 320)
    checked("degC", 15, -60, 45)
    with pytest.raises(ValueError, match="t2m averages 15 K: 2m_temperature lies between 170 and 345 K"):
        checked("K", 15, -60, 45)
    with pytest.raises(ValueError, match="t2m goes down to -9999 K: 2m_temperature lies between 170 and 345 K"):
        checked("K", 288, -9999, 320)
    with pytest.raises(ValueError, match="t2m goes up to 1e.20 K"):
        checked("K", 288, 220, 1e20)
    with pytest.raises(ValueError, match="t2m has the units 'm s-1', which are none of 2m_temperature"):
        checked("m s-1", 15, 0, 30)


def test_the_extremes_are_those_of_the_values():
    ds = series(offset=300)
    ds["a"][:, 0, 0] = np.nan
    found = statistics_of(ds)
    np.testing.assert_allclose(found.low, ds.min().to_array(), rtol=1e-6)
    np.testing.assert_allclose(found.high, ds.max().to_array(), rtol=1e-6)


def test_transforms_are_held_against_the_data():
    def checked(name, units, low, high, how, std=1.0):
        found = Statistics(np.zeros(1), np.array([std]), None, None, np.array([low]), np.array([high]), "")
        scale, bounds = transforms_of((Channel(name),), (units,), [(name, how)])
        check_transforms(found, (Channel(name),), (units,), scale, bounds)

    checked("tcc", "1", -0.001, 1.001, (0, 1), std=0.3)
    checked("q", "kg kg-1", -1e-6, 0.02, (0, None), std=5e-3)
    checked("tp", "m", -1e-4, 0.1, "log")
    with pytest.raises(ValueError, match="holds 'tcc' within 0 and 1, and dataset goes from 0 to 100 %"):
        checked("tcc", "%", 0, 100, (0, 1), std=30)
    with pytest.raises(ValueError, match="logarithm of 'u10', which goes down to -20 m s-1"):
        checked("u10", "m s-1", -20, 20, ("log", 1.0))


def test_a_cell_that_is_always_infinite_is_no_mask():
    ds = series()
    ds["a"][:, 1, 1] = np.inf
    with pytest.raises(ValueError, match="a is inf at 2001-01-01 00:00:00, latitude -25, longitude 60"):
        statistics_of(ds)


def test_channels_without_anything_to_learn():
    ds = series()
    with pytest.raises(ValueError, match=r"b is constant .value 273. over the training period"):
        check_varies(statistics_of(ds.assign(b=ds["b"] * 0 + 273)), (Channel("a"), Channel("b")))
    with pytest.raises(ValueError, match="a has no value at any time"):
        check_varies(statistics_of(ds.assign(a=ds["a"] * np.nan)), (Channel("a"), Channel("b")))
