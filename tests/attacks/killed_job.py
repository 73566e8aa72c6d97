"""Train, cache and write a hindcast in a folder: python killed_job.py FOLDER [--kill N | --limit BYTES].

With --kill the process kills itself at its Nth write below the folder: the same moment in every run. With --limit no
file can grow beyond a size, as on a full disk. It prints the number of writes.
"""

import os
import resource
import signal
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1]).resolve()
OPTION, VALUE = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 3 else ("", 0)
writes = 0


def count_writes(event: str, arguments: tuple) -> None:
    """Count the events of files below the folder, and kill the process at the chosen one."""
    global writes
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes | os.PathLike) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        path = arguments[0]
    else:
        return
    if not os.fsdecode(path).startswith(str(FOLDER)):
        return
    writes += 1
    if OPTION == "--kill" and writes == VALUE:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the job; what is complete from an earlier run is kept."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from factories import quick, tiny_model, waves

    import simvp_climate as sc

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    sys.addaudithook(count_writes)
    if OPTION == "--limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (VALUE, VALUE))
    ds = waves(times=40)
    task = sc.Task(["z500", "t2m"], history=2, horizon=2)
    settings = dict(valid=ds.isel(time=slice(30, None)), model=tiny_model(), config=quick(epochs=2), device="cpu")
    forecaster = sc.train(task, ds.isel(time=slice(0, 30)), directory=FOLDER / "run", **settings)
    sc.cache(ds, FOLDER / "cache.zarr", dtype="int16", chunk_bytes=8 * 16 * 2 * 10, progress=False)
    forecaster.hindcast(ds, every="12h", store=FOLDER / "hindcast.zarr", progress=False)
    print(writes)


if __name__ == "__main__":
    main()
