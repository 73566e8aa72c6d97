"""Read stores over the network, from servers on loopback."""

import http.client
import importlib.util
import json
import socket
import time
import urllib.error
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import boto3
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from factories import waves
from http_server import serve
from moto.server import ThreadedMotoServer
from packaging.version import Version
from store_layouts import write_references

from simvp_climate.data import remote
from simvp_climate.data.opening import open_dataset
from simvp_climate.data.zarr_store import MissingChunkError

# ---- the server that the tests read from


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def test_the_server_serves_files_and_parts_of_them(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(range(100)))
    with serve(tmp_path) as server:
        assert get(f"{server.url}/a/b") == (200, bytes(range(100)))
        assert get(f"{server.url}/a/b", Range="bytes=10-19") == (206, bytes(range(10, 20)))
        assert get(f"{server.url}/a/b", Range="bytes=95-") == (206, bytes(range(95, 100)))
        assert get(f"{server.url}/a/b", Range="bytes=-3") == (206, bytes(range(97, 100)))
        head = urllib.request.Request(f"{server.url}/a/b", method="HEAD")
        with urllib.request.urlopen(head, timeout=10) as answer:
            assert answer.headers["Content-Length"] == "100" and answer.read() == b""
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(f"{server.url}/c")
        error.value.close()
        assert (server.requests, server.failures) == (6, 0)
        server.stop()
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(f"{server.url}/a/b")


def test_the_server_keeps_connections_and_waits_for_many_requests_at_once(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    with serve(tmp_path, latency=0.1) as server:
        host = server.url.removeprefix("http://")

        def twice(_):
            connection = http.client.HTTPConnection(host, timeout=10)
            for _ in range(2):  # on one connection
                connection.request("GET", "/a")
                assert connection.getresponse().read() == b"x" * 1000
            connection.close()

        start = time.perf_counter()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(twice, range(20)))
        assert 0.2 <= time.perf_counter() - start < 2  # one after the other it would be 4 s
        assert server.most_at_once > 10


def test_the_server_fails_at_the_set_rate_and_the_same_way_each_time(tmp_path):
    for name in range(60):
        (tmp_path / str(name)).write_bytes(b"x" * 1000)

    def outcomes():
        with serve(tmp_path, failure_rate=0.3, seed=1) as server:
            results = []
            for name in range(60):
                try:
                    results.append(len(get(f"{server.url}/{name}")[1]))
                except urllib.error.HTTPError as error:
                    results.append(error.code)
                    error.close()
                except (http.client.HTTPException, ConnectionError) as error:
                    results.append(type(error).__name__)
            return results, server.failures

    results, failures = outcomes()
    assert set(results) == {1000, 503, "IncompleteRead", "RemoteDisconnected"}
    assert failures == sum(outcome != 1000 for outcome in results) and 8 <= failures <= 30
    assert outcomes() == (results, failures)


# ---- stores over HTTP

TIMES = xr.date_range("2000-01-01", periods=24, freq="6h", use_cftime=False)


def write(path, zarr_format=2, consolidated=True):
    """Write a store of 24 chunks of one time, and return its values."""
    values = np.random.default_rng(0).standard_normal((24, 8, 16)).astype("f4")
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values)},
        {"time": TIMES, "latitude": np.arange(-78.75, 90, 22.5), "longitude": np.arange(0, 360, 22.5)},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part in the Zarr format 3")
        ds.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding={"t2m": {"chunks": (1, 8, 16)}})
    return values


@pytest.fixture
def impatient(monkeypatch):
    """Wait little between attempts."""
    monkeypatch.setitem(remote._RETRY, "backoff", {"init_backoff": timedelta(seconds=0.01), "base": 1.1})


@pytest.fixture(autouse=True)
def zarr_as_it_was():
    with zarr.config.set({"async.concurrency": zarr.config.get("async.concurrency")}):
        yield


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_over_http(tmp_path, zarr_format):
    values = write(tmp_path / "a.zarr", zarr_format)
    with serve(tmp_path) as server:
        ds = open_dataset(f"{server.url}/a.zarr", ["t2m"])
        opened = server.requests
        assert not ds["t2m"].variable._in_memory and ds.encoding["source"] == f"{server.url}/a.zarr"
        np.testing.assert_array_equal(ds["t2m"][5, ::-1], values[5, ::-1])
        assert server.requests == opened + 1  # one chunk
        np.testing.assert_array_equal(ds["t2m"], values)


def test_many_requests_are_in_flight(tmp_path):
    values = write(tmp_path / "a.zarr")
    with serve(tmp_path, latency=0.2) as server:
        np.testing.assert_array_equal(open_dataset(f"{server.url}/a.zarr", ["t2m"])["t2m"], values)
        assert server.most_at_once > 20  # of 24; zarr left to itself makes ten


def test_the_number_of_requests_that_a_user_set_stays(tmp_path):
    write(tmp_path / "a.zarr")
    with serve(tmp_path) as server:
        open_dataset(f"{server.url}/a.zarr", ["t2m"])
        assert zarr.config.get("async.concurrency") == 64
        zarr.config.set({"async.concurrency": 4})
        open_dataset(f"{server.url}/a.zarr", ["t2m"])
        assert zarr.config.get("async.concurrency") == 4


def test_a_slow_and_faulty_server_gives_the_same_values(tmp_path, impatient):
    values = write(tmp_path / "a.zarr")
    with serve(tmp_path, latency=0.05, failure_rate=0.05, seed=3) as server:
        for _ in range(4):
            np.testing.assert_array_equal(open_dataset(f"{server.url}/a.zarr", ["t2m"])["t2m"], values)
        assert server.failures >= 3
    with serve(tmp_path, failure_rate=0.4, seed=3) as server:
        np.testing.assert_array_equal(open_dataset(f"{server.url}/a.zarr", ["t2m"])["t2m"], values)
        assert server.by_status["truncated"] >= 5 and server.by_status["dropped"] >= 2


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_absent_from_the_server_is_an_error(tmp_path, zarr_format):
    write(tmp_path / "a.zarr", zarr_format)
    key = "t2m/3.0.0" if zarr_format == 2 else "t2m/c/3/0/0"
    (tmp_path / "a.zarr" / key).unlink()
    with serve(tmp_path) as server:
        url = f"{server.url}/a.zarr"
        with pytest.raises(MissingChunkError, match=rf"{url}' has no chunk \(3, 0, 0\) of 't2m' .*2000-01-01 18:00:00"):
            open_dataset(url, ["t2m"]).load()
        filled = open_dataset(url, ["t2m"], missing_chunks="fill")["t2m"][3]
        # before 2025.3 xarray wrote 0 as the fill value of Zarr format 3
        is_old = zarr_format == 3 and Version(xr.__version__) < Version("2025.3")
        assert (filled == 0 if is_old else np.isnan(filled)).all()


def test_a_server_that_stops_is_an_error_in_bounded_time(tmp_path, impatient):
    write(tmp_path / "a.zarr")
    with serve(tmp_path) as server:
        ds = open_dataset(f"{server.url}/a.zarr", ["t2m"])
        server.stop()
        start = time.perf_counter()
        host = server.url.removeprefix("http://")
        with pytest.raises(ConnectionError, match=rf"a.zarr' cannot be read: no server listens at '{host}'"):
            ds.load()
        with pytest.raises(ConnectionError, match=f"no server listens at '{host}'"):
            open_dataset(f"{server.url}/a.zarr", ["t2m"])
        assert time.perf_counter() - start < 10


def test_requests_are_repeated_long_enough_for_a_restart_but_not_forever():
    assert timedelta(seconds=30) <= remote._RETRY["retry_timeout"] <= timedelta(minutes=2)
    assert remote._TIMEOUTS["read_timeout"] <= timedelta(seconds=30)


def test_a_server_that_does_not_answer_is_an_error_in_bounded_time(impatient, monkeypatch):
    monkeypatch.setitem(remote._TIMEOUTS, "read_timeout", timedelta(seconds=0.2))
    monkeypatch.setitem(remote._RETRY, "retry_timeout", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zarr"
        start = time.perf_counter()
        with pytest.raises(ConnectionError, match="does not answer in time"):
            open_dataset(url, ["t2m"])
        assert time.perf_counter() - start < 10


def test_a_server_that_drops_every_connection_is_not_called_slow(tmp_path, impatient, monkeypatch):
    monkeypatch.setitem(remote._RETRY, "max_retries", 2)
    server = serve(tmp_path, failure_rate=1, failure_modes=["dropped"])
    with server as running, pytest.raises(ConnectionError, match="server failed repeatedly"):
        open_dataset(f"{running.url}/a.zarr", ["t2m"])


def test_a_timeout_without_a_message_is_recognized():
    assert "does not answer in time" in str(remote.request_error("https://host/a.zarr", TimeoutError()))


def test_a_host_without_an_address(impatient, monkeypatch):
    monkeypatch.setitem(remote._RETRY, "max_retries", 1)
    with pytest.raises(ConnectionError, match=r"host 'nowhere.invalid' has no address"):
        open_dataset("https://nowhere.invalid/a.zarr", ["t2m"])


def test_absent_stores_and_stores_that_cannot_be_listed_are_errors(tmp_path):
    write(tmp_path / "a.zarr", consolidated=False)
    with serve(tmp_path) as server:
        with pytest.raises(FileNotFoundError, match=r"no Zarr store at 'http://.*/b.zarr'.*spelling"):
            open_dataset(f"{server.url}/b.zarr", ["t2m"])
        with pytest.raises(ValueError, match=r"no consolidated metadata.*zarr.consolidate_metadata\(path\)"):
            open_dataset(f"{server.url}/a.zarr", ["t2m"])


def test_remote_grib_files_must_be_downloaded(tmp_path):
    with serve(tmp_path) as server, pytest.raises(ValueError, match=r"is GRIB.*local path"):
        open_dataset(f"{server.url}/a.grib2", ["t2m"])


# ---- the same through fsspec, and without either package


def hide(monkeypatch, *hidden):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))


def test_without_obstore_fsspec_reads(tmp_path, monkeypatch):
    values = write(tmp_path / "a.zarr")
    hide(monkeypatch, "obstore")
    with serve(tmp_path) as server:
        ds = open_dataset(f"{server.url}/a.zarr", ["t2m"])
        np.testing.assert_array_equal(ds["t2m"][4:], values[4:])
        assert isinstance(remote.open_remote_store(f"{server.url}/a.zarr"), zarr.storage.FsspecStore)
        server.stop()
        with pytest.raises(ConnectionError, match="no server listens at"):
            ds["t2m"].load()


def test_without_obstore_a_truncated_body_is_an_error(tmp_path, monkeypatch):
    values = write(tmp_path / "a.zarr")
    hide(monkeypatch, "obstore")
    with serve(tmp_path) as server:
        ds = open_dataset(f"{server.url}/a.zarr", ["t2m"])
        server.failure_rate = 0.5
        outcomes = set()
        for time in range(24):
            try:
                np.testing.assert_array_equal(ds["t2m"][time], values[time])
                outcomes.add("data")
            except ConnectionError:
                outcomes.add("error")
        assert outcomes == {"data", "error"} and server.by_status["truncated"] >= 1


@pytest.mark.parametrize("url", ["gs://bucket/a.zarr", "s3://bucket/a.zarr"])
def test_without_a_reader_the_extra_is_named(monkeypatch, url):
    hide(monkeypatch, "obstore")

    def missing(*args, **options):
        raise ImportError("Install gcsfs")

    monkeypatch.setattr(zarr.storage.FsspecStore, "from_url", missing)
    with pytest.raises(ImportError, match=r"needs a package.*simvp-climate\[cloud\]"):
        open_dataset(url, ["t2m"])


def test_unknown_addresses_are_named():
    with pytest.raises(ValueError, match=r"'htps://host/a.zarr' cannot be opened.*Supported are http, https, gs, s3"):
        open_dataset("htps://host/a.zarr", ["t2m"])
    for url in ("ftp://nowhere.invalid/a.zarr", "az://container/a.zarr"):
        with pytest.raises(ValueError, match=rf"'{url}' cannot be opened.*Supported are http, https, gs, s3 and local"):
            open_dataset(url, ["t2m"])


# ---- Google Cloud and S3


@pytest.fixture
def no_credentials(monkeypatch):
    for names in remote._CREDENTIALS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_weatherbench_on_google_is_read_anonymously(tmp_path, monkeypatch, no_credentials):
    values = write(tmp_path / "era5.zarr")
    asked = []

    def from_url(url, **options):
        asked.append((url, options))
        return obstore.store.LocalStore(tmp_path / "era5.zarr")

    monkeypatch.setattr(obstore.store, "from_url", from_url)
    url = "gs://weatherbench2/datasets/era5/era5.zarr"
    np.testing.assert_array_equal(open_dataset(url, ["t2m"])["t2m"], values)
    ((address, options),) = asked
    assert address == url and options["config"] == {"skip_signature": True}
    assert options["retry_config"]["max_retries"] >= 5 and not options["client_options"]["allow_http"]
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    open_dataset(url, ["t2m"])
    assert asked[1][1]["config"] is None


def test_the_url_names_the_bucket_of_google(no_credentials):
    bucket = remote._open_obstore("gs://weatherbench2/datasets/era5/a.zarr")
    assert isinstance(bucket, obstore.store.GCSStore)
    assert (bucket.config["bucket"], bucket.prefix) == ("weatherbench2", "datasets/era5/a.zarr")


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3, on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def upload(endpoint, folder, access="public-read"):
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket="climate")
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            client.upload_file(str(file), "climate", f"{folder.name}/{file.relative_to(folder)}", {"ACL": access})
    client.close()


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("credentials", [True, False])
def test_a_store_on_s3(tmp_path, s3, monkeypatch, no_credentials, consolidated, credentials):
    values = write(tmp_path / f"{consolidated}.zarr", 2, consolidated)
    upload(s3, tmp_path / f"{consolidated}.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    if credentials:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    ds = open_dataset(f"s3://climate/{consolidated}.zarr", ["2m_temperature"])
    np.testing.assert_array_equal(ds["2m_temperature"], values)
    with pytest.raises(FileNotFoundError, match="no Zarr store at 's3://climate/other.zarr'"):
        open_dataset("s3://climate/other.zarr", ["t2m"])


def test_an_s3_server_that_is_not_there(monkeypatch, impatient, no_credentials):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        ConnectionError, match=r"'s3://climate/a.zarr' cannot be read: no server listens at '127.0.0.1:9'"
    ):
        open_dataset("s3://climate/a.zarr", ["t2m"])


def test_a_bucket_is_not_called_a_host(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    error = OSError("dns error: failed to lookup address information")
    text = str(remote.request_error("s3://climate/a.zarr", error))
    assert "the host 's3.us-east-1.amazonaws.com' has no address" in text
    assert "if the bucket 'climate' is on another server, set AWS_ENDPOINT_URL" in text
    assert "'storage.googleapis.com' has no address" in str(remote.request_error("gs://climate/a.zarr", error))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert "'s3.eu-west-1.amazonaws.com'" in str(remote.request_error("s3://climate/a.zarr", error))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.local:9000")
    assert "the host 'minio.local:9000' has no address" in str(remote.request_error("s3://climate/a.zarr", error))


def test_a_bucket_without_permission_is_an_error(tmp_path, s3, monkeypatch, no_credentials):
    write(tmp_path / "private.zarr")
    upload(s3, tmp_path / "private.zarr", "private")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    with pytest.raises(PermissionError, match=r"no permission to read 's3://climate/private.zarr' .*AWS_ACCESS_KEY_ID"):
        open_dataset("s3://climate/private.zarr", ["t2m"])


class TestFilesOnS3:
    """NetCDF files, references and Icechunk repositories on a server that speaks S3."""

    @pytest.fixture(params=["public", "private"], autouse=True)
    def access(self, request, s3, monkeypatch, no_credentials):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        if request.param == "private":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        return "public-read" if request.param == "public" else "private"

    def test_netcdf(self, tmp_path, s3, access):
        pytest.importorskip("h5netcdf")
        folder = tmp_path / f"netcdf {access}"
        folder.mkdir()
        waves(times=40).to_netcdf(folder / "a.nc")
        waves(times=6).to_netcdf(folder / "b.nc", format="NETCDF3_64BIT")
        (folder / "page.nc").write_text("<html>")
        upload(s3, folder, access)
        url = f"s3://climate/{folder.name}"
        for name, times in {"a": 40, "b": 6}.items():
            np.testing.assert_array_equal(open_dataset(f"{url}/{name}.nc", ["t2m"]).t2m, waves(times=times).t2m)
        with pytest.raises(FileNotFoundError, match=r"no file at 's3://climate/.*none.nc'"):
            open_dataset(f"{url}/none.nc", ["t2m"])
        with pytest.raises(ValueError, match=r"page.nc' is no NetCDF file"):
            open_dataset(f"{url}/page.nc", ["t2m"])

    def test_references_there_and_here(self, tmp_path, s3, access):
        folder = tmp_path / f"references-{access}"
        folder.mkdir()
        write_references(folder, address=f"s3://climate/{folder.name}/packed.bin")
        upload(s3, folder, access)
        for path in (folder / "refs.json", f"s3://climate/{folder.name}/refs.json"):
            xr.testing.assert_equal(open_dataset(path, ["z500", "t2m"]).load(), waves(times=6))
        with pytest.raises(FileNotFoundError, match=r"no file at 's3://climate/.*none.json'"):
            open_dataset(f"s3://climate/{folder.name}/none.json", ["t2m"])

    def test_references_of_kerchunk(self, tmp_path, s3, access):
        kerchunk = pytest.importorskip("kerchunk.hdf")
        folder = tmp_path / f"kerchunk-{access}"
        folder.mkdir()
        waves(times=40).to_netcdf(folder / "a.nc")
        url = f"s3://climate/{folder.name}"
        references = kerchunk.SingleHdf5ToZarr(str(folder / "a.nc"), url=f"{url}/a.nc", inline_threshold=0).translate()
        (folder / "refs.json").write_text(json.dumps(references))
        upload(s3, folder, access)
        np.testing.assert_array_equal(open_dataset(f"{url}/refs.json", ["t2m"]).t2m, waves(times=40).t2m)

    def test_an_open_store_of_icechunk(self, s3, access):
        icechunk = pytest.importorskip("icechunk")
        where = {"endpoint_url": s3, "allow_http": True, "force_path_style": True, "region": "us-east-1"}
        keys = {"access_key_id": "k", "secret_access_key": "s"}
        boto3.client("s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="k",
                     aws_secret_access_key="s").create_bucket(Bucket="climate")  # fmt: skip
        storage = icechunk.s3_storage(bucket="climate", prefix=f"repository-{access}", **where, **keys)
        repository = icechunk.Repository.create(storage)
        session = repository.writable_session("main")
        waves(times=6).to_zarr(session.store, consolidated=False)
        session.commit("six states")
        xr.testing.assert_equal(
            open_dataset(repository.readonly_session("main").store, ["z500", "t2m"]).load(), waves(times=6)
        )


def test_a_netcdf_file_without_permission_is_an_error(tmp_path, s3, monkeypatch, no_credentials):
    folder = tmp_path / "forbidden"
    folder.mkdir()
    waves(times=3).to_netcdf(folder / "a.nc")
    upload(s3, folder, "private")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    with pytest.raises(PermissionError, match=r"no permission to read 's3://climate/forbidden/a.nc' .*AWS_ACCESS_KEY"):
        open_dataset("s3://climate/forbidden/a.nc", ["t2m"])
