"""Remote Zarr stores: open them over HTTP, on Google Cloud and on S3, and explain failed requests."""

import importlib.util
import os
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, ObjectStore

_SCHEMES = ("http", "https", "gs", "s3")
# A request takes about 50 ms wherever the store is: many at the same time make remote stores fast.
_REQUESTS_IN_FLIGHT = 64
_RETRY = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
}
# A chunk of ARCO-ERA5 is 100 MB and may take minutes; a server that sends nothing for 20 s has failed.
_TIMEOUTS = {
    "connect_timeout": timedelta(seconds=5), "read_timeout": timedelta(seconds=20), "timeout": timedelta(minutes=10),
}  # fmt: skip
_CREDENTIALS = {
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
           "GOOGLE_SERVICE_ACCOUNT_KEY"),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
}  # fmt: skip


def open_remote_store(url: str) -> Store:
    """Return the Zarr store at an address, read only, through obstore if installed, else through fsspec."""
    if zarr.config.get("async.concurrency") == zarr.config.defaults[0]["async"]["concurrency"]:
        zarr.config.set({"async.concurrency": _REQUESTS_IN_FLIGHT})
    scheme = urlsplit(url).scheme
    if scheme in _SCHEMES and importlib.util.find_spec("obstore"):
        return ObjectStore(_open_obstore(url), read_only=True)
    try:
        # without credentials, as in `_open_obstore`
        options = {"gs": {"token": "anon"}, "s3": {"anon": True}} if _is_anonymous(scheme) else {}
        return FsspecStore.from_url(url, storage_options=options.get(scheme), read_only=True)
    except Exception as error:  # each file system of fsspec has its own errors
        if scheme not in _SCHEMES or isinstance(error, ValueError):
            message = f"{url!r} cannot be opened: {error}. Supported are {', '.join(_SCHEMES)} and local paths"
            raise ValueError(message) from error
        if isinstance(error, ImportError):
            raise _missing_package(url, error) from error
        raise


def file_system(scheme: str, asynchronous: bool = False) -> Any:
    """Return the file system of "s3" or "gs": that of obstore if installed, else that of fsspec (s3fs, gcsfs)."""
    if importlib.util.find_spec("obstore"):
        from obstore.fsspec import FsspecStore as ObstoreFileSystem

        return ObstoreFileSystem(scheme, asynchronous=asynchronous, **_obstore_options(f"{scheme}://"))
    anonymous = {"gs": {"token": "anon"}, "s3": {"anon": True}}[scheme] if _is_anonymous(scheme) else {}
    return fsspec.filesystem(scheme, asynchronous=asynchronous, **anonymous)


def open_remote(url: str) -> Any:
    """Return an open remote file, read in blocks; FileNotFoundError, PermissionError, ConnectionError or ImportError.

    Through obstore on S3 and Google Cloud if installed, else through fsspec.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme not in _CREDENTIALS:
            return fsspec.open(url).open()
        system = file_system(scheme)
        system.info(url)  # a file of obstore that fails to open also fails when it is deleted
        return system.open(url)
    except FileNotFoundError as error:
        cause = None if scheme in _CREDENTIALS else error.__cause__
        if cause is not None and getattr(cause, "status", None) != 404:
            raise request_error(url, cause) from error  # fsspec calls every failure so
        raise FileNotFoundError(f"no file at {url!r}. Check the spelling") from error
    except ImportError as error:
        raise _missing_package(url, error) from error
    except ValueError as error:  # an unknown scheme
        message = f"{url!r} cannot be opened: {error}. Supported are {', '.join(_SCHEMES)} and local paths"
        raise ValueError(message) from error
    except Exception as error:  # each file system has its own errors
        raise request_error(url, error) from error


def open_remote_file(url: str) -> tuple[Any, str]:
    """Return an open remote NetCDF file, and the engine with which xarray reads it.

    Only what is needed is requested, in blocks, if the server knows ranges of bytes.
    """
    file = open_remote(url)
    try:
        magic = file.read(4)
        file.seek(0)
    except Exception as error:  # each file system has its own errors
        raise request_error(url, error) from error
    if magic.startswith(b"CDF"):
        return file, "scipy"
    if not magic.startswith(b"\x89HDF"):
        raise ValueError(f"{url!r} is no NetCDF file: it begins with {magic!r}. Download it to look into it")
    for package in ("h5netcdf", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise _missing_package(url, ImportError(package))
    return file, "h5netcdf"


def _missing_package(url: str, error: ImportError) -> ImportError:
    fix = "Run: pip install 'simvp-climate[cloud]'"
    return ImportError(f"reading {url!r} needs a package that is not installed ({error}). {fix}")


def _is_anonymous(scheme: str) -> bool:
    return not any(os.environ.get(name) for name in _CREDENTIALS.get(scheme, ()))


def _open_obstore(url: str) -> Any:
    from obstore.store import from_url

    return from_url(url, **_obstore_options(url))


def _obstore_options(url: str) -> dict[str, Any]:
    scheme = urlsplit(url).scheme
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if scheme == "s3" else url
    client = {**_TIMEOUTS, "allow_http": endpoint.startswith("http://")}
    config = {"skip_signature": True} if scheme in _CREDENTIALS and _is_anonymous(scheme) else None
    return {"config": config, "client_options": client, "retry_config": _RETRY}


def request_error(url: str, error: Exception) -> Exception:
    """Return a PermissionError or ConnectionError that explains why a request failed, with a fix."""
    name = type(error).__name__
    text = f"{name} {error} {error.__cause__ or ''}"
    first = next(iter(str(error).strip().splitlines()), name)
    if re.search("Unauthenticated|Permission|Unauthorized|Forbidden|code: 40[13]", f"{name} {first}"):
        credentials = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        fix = f"Unless the store is public, set {credentials}"
        return PermissionError(f"no permission to read {url!r} ({first}). {fix}")
    scheme, host = urlsplit(url)[:2]  # s3:// and gs:// addresses begin with a bucket instead of a host
    if scheme == "s3":
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or f"s3.{region}.amazonaws.com"
        host = urlsplit(endpoint).netloc or endpoint
    elif scheme == "gs":
        host = "storage.googleapis.com"
    if re.search("dns error|failed to lookup|Name or service not known|name resolution", text, re.IGNORECASE):
        reason = f"the host {host!r} has no address. Check its spelling, and the network"
        if scheme == "s3":
            reason += f"; if the bucket {urlsplit(url).netloc!r} is on another server, set AWS_ENDPOINT_URL"
    elif re.search("Connection ?refused|Connect call failed", text):
        reason = f"no server listens at {host!r}. Check the port, or wait until the server is up"
    elif re.search("(?<!retry_)time(d ?)?out", text, re.IGNORECASE):  # every message of obstore has a `retry_timeout`
        reason = f"{host!r} does not answer in time. Check the network, or try again later"
    else:
        reason = "the server failed repeatedly. Try again later, or copy the store to a local disk"
    return ConnectionError(f"{url!r} cannot be read: {reason}. {first}")
