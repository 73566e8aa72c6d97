"""Stores that are no folder of Zarr chunks: virtual references (kerchunk, VirtualiZarr) and Icechunk repositories."""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore

from simvp_climate.data.remote import file_system, open_remote

_REFERENCES = (".json", ".parq", ".parquet")


def is_virtual(path: str | os.PathLike) -> bool:
    """Return whether a path is that of a reference file or folder, or of an Icechunk repository."""
    return _is_references(str(path)) or _is_icechunk(str(path))


def open_virtual(path: str) -> Store:
    """Return the Zarr store that references or an Icechunk repository, on its branch main, stand for, read only."""
    return _open_icechunk(path) if _is_icechunk(path) else _open_references(path)


def _is_references(path: str) -> bool:
    if Path(urlsplit(path).path if "://" in path else path).suffix.lower() in _REFERENCES:
        return True
    # a folder of references has the metadata in one file, and the references of each array in a folder
    folder = Path(path)
    return "://" not in path and (folder / ".zmetadata").is_file() and any(folder.glob("*/refs.*.parq"))


def _is_icechunk(path: str) -> bool:
    folder = Path(path)
    is_repository = (folder / "refs").is_dir() or (folder / "repo").is_file()
    return "://" not in path and is_repository and (folder / "snapshots").is_dir()


def _open_references(path: str) -> Store:
    # the files that are referred to are opened when they are read
    options: dict[str, Any] = {"fo": path, "remote_options": {"asynchronous": True}}
    try:
        if urlsplit(path).path.lower().endswith(".json"):
            with open_remote(path) if "://" in path else open(path, "rb") as file:
                text = file.read()
            if "://" in path:
                options["fo"] = json.loads(text)
            if match := re.search(rb'"(s3|gs)://', text):
                options["fs"] = file_system(match[1].decode(), asynchronous=True)
        system = fsspec.filesystem("reference", asynchronous=True, **options)
    except OSError:  # absent, not permitted, or the server failed
        raise
    except ImportError as error:
        raise ImportError(f"reading {path!r} needs a package that is not installed ({error}). Install it") from error
    except Exception as error:  # whatever fsspec raises where a file is no reference
        fix = "Make it again with kerchunk or VirtualiZarr"
        raise ValueError(f"{path!r} holds no references to Zarr chunks: {error!r}. {fix}") from error
    return FsspecStore(system, read_only=True, path="")


def _open_icechunk(path: str) -> Store:
    if importlib.util.find_spec("icechunk") is None:
        fix = "Run: pip install 'simvp-climate[icechunk]'"
        raise ImportError(f"{path!r} is an Icechunk repository, and icechunk is not installed. {fix}")
    import icechunk

    try:
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(path))
        return repository.readonly_session("main").store
    except icechunk.IcechunkError as error:
        fix = "Another branch: open_dataset(repository.readonly_session(branch).store, [...])"
        raise ValueError(f"the Icechunk repository {path!r} cannot be opened: {error}. {fix}") from error
