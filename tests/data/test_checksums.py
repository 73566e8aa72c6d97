"""Stores that this package writes notice flipped bits and chunks in the place of others, with both engines."""

import json
import shutil
import warnings

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr
from factories import waves
from http_server import serve

from simvp_climate.data import reader
from simvp_climate.data.cache import cache
from simvp_climate.data.checksums import checksums_in_shard, write_checksums
from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.opening import open_dataset
from simvp_climate.data.zarr_store import open_zarr
from simvp_climate.quality.check import check

NAMES = ["z500", "t2m"]


def noisy(times=20):
    random = np.random.default_rng(0)
    return waves(times=times).map(lambda v: (v + random.normal(size=v.shape)).astype("f4"), keep_attrs=True)


@pytest.fixture(params=["float32", "int16", "shards"])
def store(request, tmp_path):
    """A cache of several chunks."""
    settings = {"shard_bytes": 8 * 16 * 4 * 10} if request.param == "shards" else {"dtype": request.param}
    cache(noisy(), tmp_path / "c.zarr", chunk_bytes=8 * 16 * 4 * 5, progress=False, **settings)
    return tmp_path / "c.zarr"


def states(path, engine):
    canonical = canonicalize(open_dataset(path, NAMES), NAMES)
    source = reader.open_source(canonical.dataset, engine)
    return reader.read(source, np.arange(canonical.dataset.sizes["time"]))


def chunk_files(path, name):
    return sorted(file for file in (path / name).rglob("*") if file.is_file() and file.suffix != ".json")


@pytest.mark.parametrize("engine", ["zarr", "tensorstore"])
def test_a_flipped_bit_anywhere_in_a_chunk_is_an_error(store, engine):
    file = chunk_files(store, "t2m")[1]
    content = file.read_bytes()
    for at in np.linspace(0, len(content) - 1, 12, dtype=int):
        damaged = bytearray(content)
        damaged[at] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(OSError, match=r"'t2m'.*times 2001-01-0.*(damaged|checksum|corrupt)"):
            states(store, engine)
    file.write_bytes(content)
    assert np.isfinite(states(store, engine)).all()


@pytest.mark.parametrize("engine", ["zarr", "tensorstore"])
@pytest.mark.parametrize("other", ["another time", "another variable"])
def test_a_chunk_in_the_place_of_another_is_an_error(store, engine, other):
    first = chunk_files(store, "t2m")[0]
    second = chunk_files(store, "t2m")[1] if other == "another time" else chunk_files(store, "z500")[0]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    with pytest.raises(OSError, match=r"2001-01-01 00:00:00.*is damaged: it does not match its checksum"):
        states(store, engine)


def test_changed_metadata_and_coordinates_are_errors(store):
    document = store / "t2m" / "zarr.json"
    text = document.read_text()
    document.write_text(text.replace('"units": "K"', '"units": "k"'))
    with pytest.raises(ValueError, match=r"'t2m/zarr.json' of the Zarr store .*c\.zarr.* does not match its checksum"):
        open_dataset(store, NAMES)
    document.write_text(text)
    coordinate = chunk_files(store, "latitude")[0]
    coordinate.write_bytes(chunk_files(store, "longitude")[0].read_bytes())
    with pytest.raises(ValueError, match=r"'latitude'.*is damaged"):
        open_dataset(store, NAMES)


def consolidate(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not in the specification of Zarr format 3 yet
        zarr.consolidate_metadata(path)


@pytest.mark.parametrize("backend", ["obstore", "fsspec"])
def test_a_store_is_checked_on_a_web_server_that_lists_nothing(store, forecaster, tmp_path, monkeypatch, backend):
    consolidate(store)
    forecaster.hindcast(waves(times=12), every="6h", store=tmp_path / "h.zarr", progress=False)
    if backend == "fsspec":
        monkeypatch.setattr("simvp_climate.data.remote.importlib.util.find_spec", lambda name: None)
    with serve(tmp_path) as server:
        np.testing.assert_allclose(open_dataset(f"{server.url}/c.zarr", NAMES).t2m, noisy().t2m, atol=2e-3)
        report = check(open_dataset(f"{server.url}/c.zarr", NAMES))
        assert report.summary["layout"]["t2m"]["checksums"] is True
        assert np.isfinite(open_dataset(f"{server.url}/h.zarr", NAMES).t2m).all()
        for path in (store, tmp_path / "h.zarr"):
            file = chunk_files(path, "t2m")[-1]
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
            with pytest.raises(ValueError, match="'t2m'.*(damaged|checksum)|[Cc]hecksum"):
                open_dataset(f"{server.url}/{path.name}", NAMES).t2m.load()


@pytest.mark.parametrize("engine", ["zarr", "tensorstore"])
def test_metadata_consolidated_later_are_compared(store, engine):
    before = states(store, engine)
    consolidate(store)
    np.testing.assert_array_equal(states(store, engine), before)
    assert "with checksums" in str(check(open_dataset(store, NAMES)))
    text = (store / "zarr.json").read_text()
    document = json.loads(text)
    document["consolidated_metadata"]["metadata"]["t2m"]["attributes"]["units"] = "degC"
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"'t2m/zarr.json' of the Zarr store .* does not match its checksum"):
        open_dataset(store, NAMES)
    (store / "zarr.json").write_text(text)
    file = chunk_files(store, "t2m")[1]
    file.write_bytes(chunk_files(store, "z500")[1].read_bytes())
    with pytest.raises(OSError, match="'t2m'.*is damaged: it does not match its checksum"):
        states(store, engine)


def test_a_hindcast_consolidated_again_opens_and_what_was_added_is_refused(forecaster, tmp_path):
    path = tmp_path / "h.zarr"
    written = forecaster.hindcast(waves(times=12), every="6h", store=path, progress=False).load()
    consolidate(path)
    xr.testing.assert_equal(open_dataset(path, NAMES).load(), written[NAMES].drop_vars("pressure_500"))
    text = (path / ".zmetadata").read_text()
    assert '"units": "K"' in text
    (path / ".zmetadata").write_text(text.replace('"units": "K"', '"units": "k"'))
    with pytest.raises(ValueError, match=r"'t2m/.zattrs' of the Zarr store .* does not match its checksum"):
        open_dataset(path, NAMES)
    (path / ".zmetadata").write_text(text)
    zarr.open_group(path, mode="r+").attrs["title"] = "mine"
    with pytest.raises(ValueError, match=r"To keep an edit.*: xr.open_zarr\('.*h.zarr'\).to_zarr\(another_path\)"):
        open_dataset(path, NAMES)


def test_a_copy_of_a_selection_is_a_store_of_its_own(store, forecaster, tmp_path):
    forecaster.hindcast(waves(times=12), every="6h", store=tmp_path / "h.zarr", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, dim in ((store, "time"), (tmp_path / "h.zarr", "init_time")):
            part = open_dataset(path, NAMES).isel({dim: slice(0, 2)})
            part.to_zarr(tmp_path / "part.zarr", mode="w", consolidated=False, zarr_format=3)
            xr.testing.assert_equal(open_dataset(tmp_path / "part.zarr", NAMES).load(), part.load())
    shutil.rmtree(store / "checksums")
    with pytest.warns(UserWarning, match="has no checksums .*or it is a copy without them.*: sc.cache"):
        open_dataset(store, NAMES)


def test_checksums_of_older_versions_are_compared_where_they_can_be_listed(store, tmp_path):
    consolidate(store)
    document = json.loads((store / "checksums" / "zarr.json").read_text())
    del document["attributes"]["arrays"]
    for checksum in (google_crc32c.value((store / "zarr.json").read_bytes()), 7):
        document["attributes"]["metadata"] = {"zarr.json": checksum}
        (store / "checksums" / "zarr.json").write_text(json.dumps(document))
        with serve(tmp_path) as server, pytest.warns(UserWarning, match="has no checksums .an older version wrote it"):
            open_dataset(f"{server.url}/c.zarr", NAMES)
        if checksum != 7:
            assert "with checksums" in str(check(open_dataset(store, NAMES)))
    with pytest.raises(ValueError, match=r"'zarr.json' of the Zarr store .* does not match its checksum"):
        open_dataset(store, NAMES)


def test_other_programs_read_the_store_and_check_its_chunks(store):
    ds = xr.open_zarr(store, consolidated=False)
    np.testing.assert_allclose(ds.t2m, noisy().t2m, atol=2e-3)
    assert set(ds.data_vars) == set(NAMES)
    assert xr.open_datatree(store, engine="zarr", consolidated=False)["checksums"].ds.sizes
    file = chunk_files(store, "t2m")[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(store, mode="r")["t2m"][...]


def test_checksums_in_a_shard_by_hand():
    chunks = [b"abc" + bytes([1, 0, 0, 0]), b"defgh" + bytes([2, 0, 0, 0])]
    absent = (2**64 - 1).to_bytes(8, "little") * 2
    index = b"".join(n.to_bytes(8, "little") for n in (0, 7, 7, 9)) + absent
    shard = b"".join(chunks) + index + b"\0" * 4
    assert checksums_in_shard(lambda start, stop: shard[start:stop], len(shard), 3).tolist() == [1, 2, 0]
    assert checksums_in_shard(lambda start, stop: shard[start:stop], 40, 3) is None  # shorter than its index
    index = b"".join(n.to_bytes(8, "little") for n in (0, 7, 7, 900)) + absent
    shard = b"".join(chunks) + index + b"\0" * 4
    assert checksums_in_shard(lambda start, stop: shard[start:stop], len(shard), 3) is None


def test_check_says_whether_a_store_has_checksums(store, tmp_path):
    noisy().to_zarr(tmp_path / "plain.zarr", consolidated=False)
    for path, expected in ((store, True), (tmp_path / "plain.zarr", False)):
        report = check(open_dataset(path, NAMES))
        assert report.summary["layout"]["t2m"]["checksums"] is expected
        assert ("with checksums" if expected else "without checksums") in str(report)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_scalar_has_a_checksum(tmp_path, zarr_format):
    path = tmp_path / "s.zarr"
    waves(times=4).assign_coords(pressure_500=500.0).to_zarr(path, zarr_format=zarr_format, consolidated=False)
    write_checksums(path)
    assert open_zarr(str(path), "error").pressure_500 == 500
    (file,) = chunk_files(path, "pressure_500") if zarr_format == 3 else [path / "pressure_500" / "0"]
    content = bytearray(file.read_bytes())
    content[-6] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match="pressure_500.*checksum"):
        open_zarr(str(path), "error").pressure_500.load()
