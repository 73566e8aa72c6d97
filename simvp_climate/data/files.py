"""Write files and folders atomically and once, lock a directory, and list how two records differ."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


def unfinished_path(path: Path) -> Path:
    """Return the temporary name, in the same folder and with the same suffix, under which `path` is written."""
    return path.with_name(f"unfinished-{path.name}")


def write_atomically(
    path: Path, write: Callable[[Path], object], *, sync: bool = True, concurrent: bool = False
) -> None:
    """Write a file or folder under a temporary name and rename it: at any moment `path` is absent, old or complete.

    An existing file is replaced; an existing folder must be empty. `write` gets the temporary path. With `sync` content
    and name survive a power failure; with `concurrent` other processes may write the same path at the same time.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path  # replace what it points to, not the link
    unfinished = unfinished_path(path)
    if concurrent:
        unfinished = unfinished.with_stem(f"{unfinished.stem}-{os.getpid()}")
    _remove(unfinished)
    try:
        write(unfinished)
        if sync:
            _sync(unfinished)
        os.replace(unfinished, path)
        if sync:
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):  # the first error matters
            _remove(unfinished)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_parent(path: str | os.PathLike) -> Path:
    """Return `path` as a Path; raise FileNotFoundError unless the folder that is to contain it exists."""
    path = Path(path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r}: there is no folder {str(parent)!r}. Create it: mkdir -p '{parent}'")
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock a file or directory until the context or process ends; BlockingIOError if another process has locked it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                raise BlockingIOError(f"{path} was removed and made anew")
        except (BlockingIOError, FileNotFoundError):
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def write_once(path: Path, write: Callable[[], None]) -> None:
    """Call `write` unless `path` exists; RuntimeError if another process is calling it for the same path."""
    lock_file = path.with_name(f"{path.name}.unfinished.lock")
    if path.exists():
        with suppress(OSError):  # it remains if a call is killed after its last step
            lock_file.unlink()
        return
    with ExitStack() as stack:
        lock_file.touch()
        try:
            stack.enter_context(lock(lock_file))
        except (BlockingIOError, FileNotFoundError) as error:
            message = f"{str(path)!r} is being written by another process."
            raise RuntimeError(f"{message} Wait until it ends, or choose another name.") from error
        try:
            if not path.exists():
                write()
        finally:
            lock_file.unlink(missing_ok=True)


def differences(before: Mapping, now: Mapping, digests: Mapping[str, str] = {}, prefix: str = "") -> list[str]:
    """Return a phrase for each difference of two records, "config.seed is 1, was 0"; `digests` explains some by key."""
    changes = []
    for key in [*now, *(key for key in before if key not in now)]:
        label, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differences(old, new, digests, f"{label}.")
        elif json.dumps(old, default=repr) == json.dumps(new, default=repr):  # as text, NaN equals itself
            continue
        elif key not in before or key not in now:
            changes.append(f"{label} is new" if key in now else f"{label} is missing")
        elif key in digests and None not in (old, new):
            changes.append(f"{label} differs ({digests[key]})")
        else:
            changes.append(f"{label} is {new!r}, was {old!r}")
    return changes
