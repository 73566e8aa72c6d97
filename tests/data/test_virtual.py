"""Virtual references, Icechunk repositories and remote NetCDF files open like the data they stand for."""

import base64
import importlib.util
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from factories import waves
from http_server import serve
from store_layouts import write_references

from simvp_climate.data import remote
from simvp_climate.data.opening import open_dataset
from simvp_climate.data.zarr_store import MissingChunkError


def hide(monkeypatch, *hidden):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))


class TestReferences:
    def test_a_file_of_references(self, tmp_path):
        write_references(tmp_path)
        ds = open_dataset(tmp_path / "refs.json", ["z500", "t2m"])
        xr.testing.assert_equal(ds.load(), waves(times=6))
        assert ds.encoding["source"] == str(tmp_path / "refs.json")

    @pytest.mark.filterwarnings("ignore:The 'fastparquet' engine")  # fsspec asks pandas for it
    def test_a_folder_of_references(self, tmp_path):
        pytest.importorskip("fastparquet")
        from fsspec.implementations.reference import LazyReferenceMapper

        refs = write_references(tmp_path)
        out = LazyReferenceMapper.create(str(tmp_path / "refs"), record_size=100)
        for key, value in refs.items():
            out[key] = base64.b64decode(value[7:]) if isinstance(value, str) else value
        out.flush()
        xr.testing.assert_equal(open_dataset(tmp_path / "refs", ["z500", "t2m"]).load(), waves(times=6))

    def test_references_over_http(self, tmp_path):
        write_references(tmp_path)
        with serve(tmp_path) as server:
            text = (
                (tmp_path / "refs.json").read_text().replace(str(tmp_path / "packed.bin"), f"{server.url}/packed.bin")
            )
            (tmp_path / "refs.json").write_text(text)
            ds = open_dataset(f"{server.url}/refs.json", ["t2m"]).load()
        np.testing.assert_array_equal(ds.t2m, waves(times=6).t2m)

    def test_an_absent_chunk_is_an_error(self, tmp_path):
        write_references(tmp_path, leave_out=("t2m/1.0.0",))
        ds = open_dataset(tmp_path / "refs.json", ["t2m"])
        with pytest.raises(MissingChunkError, match=r"no chunk \(1, 0, 0\) of 't2m'"):
            ds.load()
        filled = open_dataset(tmp_path / "refs.json", ["t2m"], missing_chunks="fill").load()
        assert filled.t2m[3:].isnull().all() and filled.t2m[:3].notnull().all()

    def test_a_file_without_references(self, tmp_path):
        (tmp_path / "refs.json").write_text("{]")
        with pytest.raises(ValueError, match="holds no references to Zarr chunks"):
            open_dataset(tmp_path / "refs.json", ["t2m"])
        with pytest.raises(FileNotFoundError, match=r"none.json' does not exist"):
            open_dataset(tmp_path / "none.json", ["t2m"])


class TestIcechunk:
    @pytest.fixture
    def repository(self, tmp_path):
        icechunk = pytest.importorskip("icechunk")
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
        session = repository.writable_session("main")
        waves(times=6).to_zarr(session.store, consolidated=False)
        session.commit("six states")
        return repository

    def test_a_folder(self, repository, tmp_path):
        ds = open_dataset(tmp_path / "repo", ["z500", "t2m"])
        xr.testing.assert_equal(pickle.loads(pickle.dumps(ds)).load(), waves(times=6))

    def test_an_open_store(self, repository):
        ds = open_dataset(repository.readonly_session("main").store, ["t2m"])
        np.testing.assert_array_equal(ds.t2m, waves(times=6).t2m)

    def test_an_open_store_of_zarr(self, tmp_path):
        waves(times=6).to_zarr(tmp_path / "s.zarr", consolidated=False)
        ds = open_dataset(zarr.storage.LocalStore(tmp_path / "s.zarr", read_only=True), ["t2m"])
        np.testing.assert_array_equal(ds.t2m, waves(times=6).t2m)

    def test_errors(self, tmp_path, monkeypatch):
        for name in ("refs", "snapshots"):
            (tmp_path / "broken" / name).mkdir(parents=True)
        if importlib.util.find_spec("icechunk"):
            with pytest.raises(ValueError, match="Icechunk repository .*broken' cannot be opened"):
                open_dataset(tmp_path / "broken", ["t2m"])
        hide(monkeypatch, "icechunk")
        with pytest.raises(ImportError, match=r"pip install 'simvp-climate\[icechunk\]'"):
            open_dataset(tmp_path / "broken", ["t2m"])


class TestRemoteNetCDF:
    def test_netcdf4(self, tmp_path, capfd):
        pytest.importorskip("h5netcdf")
        waves(times=400).to_netcdf(tmp_path / "a.nc")
        with serve(tmp_path) as server:
            ds = open_dataset(f"{server.url}/a.nc", {"t2m": "t2m"})
            assert ds.encoding["source"] == f"{server.url}/a.nc"
            np.testing.assert_array_equal(ds.t2m[5], waves(times=400).t2m[5])
        assert capfd.readouterr().err == ""

    def test_classic_netcdf_and_several_files(self, tmp_path):
        for name, times in {"a": slice(0, 3), "b": slice(3, 6)}.items():
            waves(times=6).isel(time=times).to_netcdf(tmp_path / f"{name}.nc", format="NETCDF3_64BIT")
        with serve(tmp_path) as server:
            one = open_dataset(f"{server.url}/a.nc", ["t2m"]).load()
            both = open_dataset([f"{server.url}/{name}.nc" for name in "ab"], ["t2m"]).load()
        np.testing.assert_array_equal(one.t2m, waves(times=3).t2m)
        np.testing.assert_array_equal(both.t2m, waves(times=6).t2m)
        assert isinstance(both.indexes["time"], pd.DatetimeIndex)

    def test_errors(self, tmp_path, monkeypatch):
        (tmp_path / "page.nc").write_text("<html>")
        waves(times=3).to_netcdf(tmp_path / "a.nc")
        with serve(tmp_path) as server:
            with pytest.raises(FileNotFoundError, match=r"no file at 'http://.*/none.nc'"):
                open_dataset(f"{server.url}/none.nc", ["t2m"])
            with pytest.raises(ValueError, match=r"page.nc' is no NetCDF file"):
                open_dataset(f"{server.url}/page.nc", ["t2m"])
            hide(monkeypatch, "h5netcdf")
            with pytest.raises(ImportError, match=r"h5netcdf.*pip install 'simvp-climate\[cloud\]'"):
                open_dataset(f"{server.url}/a.nc", ["t2m"])
        with pytest.raises(ConnectionError, match="no server listens"):
            open_dataset(f"{server.url}/a.nc", ["t2m"])
        with pytest.raises(ValueError, match="Supported are http"):
            remote.open_remote_file("nowhere://a/b.nc")
