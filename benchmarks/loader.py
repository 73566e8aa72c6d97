"""Compare the loader with its upper limit and with other loaders, on generated stores, in one table.

    python benchmarks/loader.py --quick                      under two minutes: small stores, few rows, once each
    python benchmarks/loader.py --data stores                the whole table, about half an hour, 3 GB of disk

Cases: a is WeatherBench's 5.625 degree grid, 10 years 6-hourly, 4 variables, windows of 8; b is 1.40625 degree, a year
hourly, windows of 24; c is 0.25 degree, 100 steps of 2 variables, one step per chunk, windows of 3. Files are read from
the page cache. Values are waves and noise, rounded to compress about as well as ERA5.

Each measurement runs in a new process, the rows take turns, and the table shows medians. Each measurement is reported
to stderr, and each row is printed after its last one. `--quick` measures the upper limit and the loader only. The rows
of other loaders need `pip install xbatcher`, and `--insitubatch PYTHON`, a Python (3.12 or newer) that has insitubatch.
Rows that cannot run are named before the work begins.

Columns: windows per second of wall time and of CPU time (all threads and child processes); MB/s of float32 delivered;
amplification: bytes decoded in an epoch over bytes of the dataset; memory: peak resident size above the size before
the first read, and the bound that the loader states.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

MB = 1e6


@dataclasses.dataclass(frozen=True)
class Case:
    """A store, its windows, and the memory limit for streaming."""

    variables: tuple[str, ...]
    times: int
    latitudes: int
    longitudes: int
    chunk: int
    history: int
    horizon: int
    batch: int
    step: str
    memory: int  # of the states in flight

    @property
    def length(self) -> int:
        return self.history + self.horizon

    @property
    def state_bytes(self) -> int:
        return 4 * len(self.variables) * self.latitudes * self.longitudes

    @property
    def windows(self) -> int:
        return self.times - self.length + 1


CASES = {
    "a": Case(("z500", "t850", "t2m", "u10"), 14610, 32, 64, 100, 4, 4, 32, "6h", 300 * 2**20),
    "b": Case(("t2m",), 8760, 128, 256, 100, 12, 12, 16, "1h", 800 * 2**20),
    "c": Case(("z500", "t2m"), 100, 721, 1440, 1, 2, 1, 4, "6h", 1100 * 2**20),
}
QUICK = {
    "a": dataclasses.replace(CASES["a"], times=4000, memory=80 * 2**20),
    "b": dataclasses.replace(CASES["b"], times=1500, memory=250 * 2**20),
    "c": dataclasses.replace(CASES["c"], times=30, memory=600 * 2**20),
}


# ---- stores


def write_store(path: Path, case: Case) -> None:
    """Write waves that travel east, and noise, as Zarr format 2 with Blosc-lz4, like WeatherBench 2."""
    import numcodecs
    import xarray as xr
    import zarr

    latitude = np.linspace(-90, 90, case.latitudes + 1)[:-1] + 90 / case.latitudes
    longitude = np.arange(case.longitudes) * 360 / case.longitudes
    time = xr.date_range("2000-01-01", periods=case.times, freq=case.step, use_cftime=False)
    coords = xr.Dataset(coords={"time": time, "latitude": latitude, "longitude": longitude})
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    coords.to_zarr(unfinished, zarr_format=2, consolidated=False)
    rng = np.random.default_rng(0)
    y, x = np.deg2rad(latitude)[None, :, None], np.deg2rad(longitude)[None, None, :]
    for index, name in enumerate(case.variables):
        array = zarr.create_array(
            unfinished / name,
            shape=(case.times, case.latitudes, case.longitudes),
            chunks=(case.chunk, case.latitudes, case.longitudes),
            dtype="f4",
            compressors=numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
            fill_value=np.nan,  # as xarray writes it; with zarr-python's default 0 every zero would be missing
            zarr_format=2,
            attributes={"_ARRAY_DIMENSIONS": ["time", "latitude", "longitude"], "units": "K"},
        )
        for start in range(0, case.times, case.chunk):
            t = np.arange(start, min(start + case.chunk, case.times))[:, None, None]
            wave = 290 - 30 * np.sin(y) ** 2 + 8 * np.cos(y) * np.sin((3 + index) * x - t / 20)
            noise = rng.standard_normal(wave.shape, dtype="f4")
            array[start : start + len(t)] = np.round((wave + 0.5 * noise) * 512) / 512
    zarr.consolidate_metadata(unfinished)  # over HTTP a store cannot be listed
    unfinished.rename(path)


def write_caches(path: Path, case: Case) -> None:
    """Write the store as `sc.cache` does, to <path>.cache, and the same without checksums, to <path>.plain."""
    import xarray as xr
    import zarr

    import simvp_climate as sc

    ds = sc.open_dataset(path, case.variables)
    cached = path.with_suffix(".cache")
    sc.cache(ds, cached, progress=False)
    blosc = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    with xr.open_zarr(cached, consolidated=False) as stored:
        chunks = stored[case.variables[0]].encoding["chunks"]
        encoding = {name: {"chunks": chunks, "compressors": [blosc]} for name in case.variables}
        stored.drop_encoding().to_zarr(
            path.with_suffix(".plain"), zarr_format=3, consolidated=False, encoding=encoding, safe_chunks=False
        )


# ---- rows of the table: each takes a store and yields batches without end


def random_batches(case: Case) -> Iterator[np.ndarray]:
    """Yield random batches of windows, as the index of the first time of each window."""
    rng = np.random.default_rng(1)
    while True:
        shuffled = rng.permutation(case.windows)
        for start in range(0, case.windows - case.batch + 1, case.batch):
            yield shuffled[start : start + case.batch]


def gather_in_memory(path: Path, case: Case) -> Iterator[np.ndarray]:
    """Yield batches gathered from states in memory into four buffers in turn: the upper limit."""
    import zarr

    states = np.empty((case.times, case.state_bytes // 4), dtype="f4")
    width = case.latitudes * case.longitudes
    for index, name in enumerate(case.variables):
        array = zarr.open_array(path / name, mode="r")
        for start in range(0, case.times, 1000):
            block = array[start : start + 1000]
            states[start : start + len(block), index * width : (index + 1) * width] = block.reshape(len(block), -1)
    ring = [np.empty((case.batch * case.length, states.shape[1]), dtype="f4") for _ in range(4)]
    for batch, first in enumerate(random_batches(case)):
        out = ring[batch % 4]
        # mode="clip": with "raise" numpy gathers into a temporary buffer first
        np.take(states, (first[:, None] + np.arange(case.length)).ravel(), axis=0, out=out, mode="clip")
        yield out.reshape(case.batch, case.length, -1)


def xarray_samples(path: Path, case: Case, chunks: dict | None) -> Iterator[np.ndarray]:
    """Yield batches of windows read one by one with xarray, as in the __getitem__ of a torch Dataset."""
    import xarray as xr

    ds = xr.open_zarr(path, chunks=chunks)
    for first in random_batches(case):
        batch = []
        for start in first:
            window = ds.isel(time=slice(start, start + case.length)).load()
            batch.append(np.stack([window[name].values for name in case.variables], axis=1))
        yield np.stack(batch)


def xbatcher_samples(path: Path, case: Case) -> Iterator[np.ndarray]:
    """Yield the batches of xbatcher's recipe for torch: BatchGenerator, MapDataset and a shuffling DataLoader.

    In this process, with the threads of dask.
    """
    import torch
    import xarray as xr
    import xbatcher
    from xbatcher.loaders.torch import MapDataset

    ds = xr.open_zarr(path, chunks={})
    sizes = {"time": case.length, "latitude": case.latitudes, "longitude": case.longitudes}
    generator = xbatcher.BatchGenerator(ds, sizes, {"time": case.length - 1}, preload_batch=False)
    # xbatcher's to_tensor supports one variable only
    windows = MapDataset(generator, transform=lambda window: torch.from_numpy(window.to_array().values))
    loader = torch.utils.data.DataLoader(windows, batch_size=case.batch, shuffle=True, drop_last=True)
    while True:
        yield from loader


def insitubatch_views(path: Path, case: Case) -> Iterator[np.ndarray]:
    """Yield the batches of insitubatch: the states of a window are views of one array with offsets, stacked."""
    from insitubatch import InSituDataset, obstore_store, open_geometries, split_by_chunk

    store = obstore_store(f"file://{path}")
    plain = open_geometries(store, variables=list(case.variables))
    views = {
        f"{name} {lead}": dataclasses.replace(geometry, offset=lead, path=name)
        for name, geometry in plain.items()
        for lead in range(case.length)
    }
    split = split_by_chunk(plain[case.variables[0]], fractions=(1.0, 0.0, 0.0))
    dataset = InSituDataset(store, split, geometries=views, batch_size=case.batch)
    epoch = 0
    while True:
        dataset.set_epoch(epoch)
        for batch in dataset.train:
            leads = [[batch.arrays[f"{name} {lead}"] for name in case.variables] for lead in range(case.length)]
            yield np.stack([np.stack(variables, axis=1) for variables in leads], axis=1)
        epoch += 1


# ---- this package


def open_windows(path: Path | str, case: Case, engine: str):
    from simvp_climate.data.conventions import orient
    from simvp_climate.data.opening import open_dataset
    from simvp_climate.data.reader import open_source
    from simvp_climate.data.windows import find_windows

    ds = orient(open_dataset(path, case.variables))
    windows = find_windows(ds.indexes["time"], case.step, case.history, case.horizon, "the data")
    return open_source(ds, engine), windows


def open_stream(source, windows: np.ndarray, case: Case, memory: int):
    from simvp_climate.training.loader import WindowStream, choose_plan

    plan = choose_plan([source], [windows], case.batch, memory)
    return WindowStream([source], [windows], batch_size=case.batch, plan=plan, seed=0)


def our_statistics(source, windows: np.ndarray, case: Case) -> None:
    from simvp_climate.processing.statistics import compute_statistics

    weights, logged = np.ones(case.latitudes), np.zeros(len(case.variables))
    compute_statistics([source], [windows], weights, case.history, logged, use_cache=False)


# ---- measurements, each in its own process


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_bytes() -> int:
    """Return the largest resident size of this process; unlike ru_maxrss without that of the parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def count_reads() -> dict[str, int]:
    """Return a counter of the chunks that zarr-python reads from local stores from now on."""
    from zarr.storage import LocalStore

    counted = {"chunks": 0}
    get = LocalStore.get

    async def counting(self, key, *args, **options):
        counted["chunks"] += not key.rsplit("/")[-1].startswith((".z", "zarr.json"))
        return await get(self, key, *args, **options)

    LocalStore.get = counting
    return counted


def measure_peer(batches: Iterator, case: Case, seconds: float) -> dict:
    """Measure random batches for some seconds, after a first batch."""
    counted, before = count_reads(), peak_bytes()
    next(batches)
    wall, cpu, count = time.perf_counter(), cpu_seconds(), 0
    while count == 0 or time.perf_counter() - wall < seconds:
        next(batches)
        count += 1
    wall, cpu, windows = time.perf_counter() - wall, cpu_seconds() - cpu, count * case.batch
    # the count includes the first batch
    decoded = counted["chunks"] * case.chunk / len(case.variables) / (windows + case.batch)
    return {
        "wall": windows / wall,
        "cpu": windows / cpu,
        "amplification": decoded * case.windows / case.times,
        "extra": peak_bytes() - before,
    }


def measure_stream(path: Path | str, case: Case, engine: str, memory: int, seconds: float) -> dict:
    """Measure whole epochs after a first one, in which the process allocates its memory."""
    source, windows = open_windows(path, case, engine)
    before = peak_bytes()
    stream = open_stream(source, windows, case, memory)
    for _ in stream.epoch(0):
        pass
    counted, decoded = count_reads(), stream.decoded_steps
    wall, cpu, epochs = time.perf_counter(), cpu_seconds(), 0
    while epochs == 0 or time.perf_counter() - wall < seconds:
        epochs += 1
        for _ in stream.epoch(epochs):
            pass
    wall, cpu, windows = time.perf_counter() - wall, cpu_seconds() - cpu, epochs * case.windows
    # counted where zarr-python opens files; for tensorstore by the loader itself
    times = counted["chunks"] * case.chunk / len(case.variables) if engine == "zarr" else stream.decoded_steps - decoded
    return {
        "wall": windows / wall,
        "cpu": windows / cpu,
        "amplification": times / epochs / case.times,
        "extra": peak_bytes() - before,
        "bound": stream.bound,
        "mode": stream.plan.mode,
    }


def measure_statistics(work: Callable[[], None]) -> dict:
    before, wall, cpu = peak_bytes(), time.perf_counter(), cpu_seconds()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "extra": peak_bytes() - before}


LIMIT = "RAM gather (limit)"
OUR_MODULES = ("simvp_climate.training.loader", "simvp_climate.data.opening")
MODULES = {"xbatcher": ("xbatcher.loaders.torch",), "insitubatch": ("insitubatch",), LIMIT: ()}
PEERS = {
    "xarray, no dask": lambda path, case: xarray_samples(path, case, None),
    "xarray, dask": lambda path, case: xarray_samples(path, case, {}),
    "xbatcher": xbatcher_samples,
    "insitubatch": insitubatch_views,
    LIMIT: gather_in_memory,
}
# engine, and memory limit if not that of the case
CHECKED = {f"{store}, {engine}": (store, engine) for engine in ("zarr", "tensorstore") for store in ("cache", "plain")}
OURS = {"stream, zarr": ("zarr", None), "stream, tensorstore": ("tensorstore", None), "in memory": ("auto", 2**40)}
HTTP = {"http, no latency": 0.0, "http, 50 ms": 0.05}  # the latency in seconds
STATISTICS = ("statistics", "statistics, dask")
ROWS = (LIMIT, "xbatcher", *OURS, "xarray, no dask", "xarray, dask", "insitubatch", *STATISTICS)
QUICK_ROWS = (LIMIT, *OURS)


def measure(row: str, path: str, case: Case, seconds: float) -> dict:
    """Measure one row in this process."""
    for library in ("dask.array", "xarray", "zarr", "torch", "tensorstore", *MODULES.get(row, OUR_MODULES)):
        with contextlib.suppress(ImportError):  # before the measurement, because every run needs this memory
            importlib.import_module(library)
    if row in PEERS:
        return measure_peer(PEERS[row](Path(path), case), case, seconds)
    if row in CHECKED:
        store, engine = CHECKED[row]
        return measure_stream(Path(path).with_suffix(f".{store}"), case, engine, case.memory, seconds)
    if row in OURS:
        engine, memory = OURS[row]
        return measure_stream(Path(path), case, engine, memory or case.memory, seconds)
    if row.startswith("http"):
        return measure_stream(path, case, "auto", case.memory, 0)
    if row == "statistics":
        opened = open_windows(path, case, "auto")
        return measure_statistics(lambda: our_statistics(*opened, case))
    import dask
    import xarray as xr

    # the fastest with dask: both in one graph, which reads every chunk once
    ds = xr.open_zarr(path, chunks={})
    return measure_statistics(lambda: dask.compute(ds.mean(), ds.std()))


# ---- the table


def run_in_process(python: str, *arguments: str) -> dict:
    """Run this file with some arguments in a new process, and return its result."""
    process = subprocess.run([python, __file__, *arguments], capture_output=True, text=True)
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"the process ended with status {process.returncode}"}
    return json.loads(process.stdout.splitlines()[-1])


@contextlib.contextmanager
def server(folder: Path, latency: float) -> Iterator[str]:
    """Serve a folder over HTTP from another process, and yield the address."""
    command = [sys.executable, __file__, "--row", "serve", "--path", str(folder), "--seconds", str(latency)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        yield running.stdout.readline().strip()
    finally:
        running.stdin.close()  # ends the server
        running.wait()


def serve(folder: str, latency: float) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from http_server import serve as serve_files

    with serve_files(folder, latency=latency) as running:
        print(running.url, flush=True)
        sys.stdin.read()


def report(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def find_obstacles(insitubatch: str) -> dict[str, str]:
    """Return the rows that cannot run on this machine, and why."""
    obstacles = {}
    for row, library in {"xbatcher": "xbatcher", "stream, tensorstore": "tensorstore"}.items():
        if importlib.util.find_spec(library) is None:
            obstacles[row] = f"{library} is not installed: pip install {library}"
    if "stream, tensorstore" in obstacles:
        obstacles |= {row: obstacles["stream, tensorstore"] for row in CHECKED if "tensorstore" in row}
    if not insitubatch:
        obstacles["insitubatch"] = "needs --insitubatch PYTHON, a Python that has it"
    elif shutil.which(insitubatch) is None:
        obstacles["insitubatch"] = f"--insitubatch {insitubatch} is no program"
    elif subprocess.run([insitubatch, "-c", "import insitubatch, typer"], capture_output=True).returncode:
        obstacles["insitubatch"] = f"{insitubatch} cannot import insitubatch and typer"
    if not Path("/proc/self/status").exists():
        obstacles |= {row: "the peak memory of a process is read from Linux's /proc" for row in ROWS}
    return obstacles


def rows_of(name: str, options: dict) -> list[str]:
    """Return the rows of a case in the order of the table; first those that columns are relative to."""
    rows = [row for row in ROWS if row in QUICK_ROWS or not options["quick"]]
    rows += [*CHECKED, *HTTP] if name == "a" and not options["quick"] else []
    return [row for row in rows if row not in options["obstacles"]]


def run_case(name: str, case: Case, path: Path, options: dict) -> None:
    """Measure all rows of a case in turn, several times; print each row after its last turn, then the ratios."""
    rows = rows_of(name, options)
    if any(row in CHECKED for row in rows):
        report(f"{name}: writes caches with and without checksums")
        write_caches(path, case)
    print_header(name, case, path)
    repeats, results = {row: [] for row in rows}, {}

    def measure_row(row: str, path: str) -> dict:
        python = options["insitubatch"] if row == "insitubatch" else sys.executable
        quick = ["--quick"] if options["quick"] else []
        seconds = ["--seconds", str(options["seconds"])]
        return run_in_process(python, "--row", row, "--cases", name, "--path", path, *seconds, *quick)

    for turn in range(options["repeats"]):
        for row in rows:
            report(f"{name}, turn {turn + 1} of {options['repeats']}, {row}")
            if row in HTTP:
                with server(path.parent, HTTP[row]) as url:
                    result = measure_row(row, f"{url}/{path.name}")
            else:
                result = measure_row(row, str(path))
            report(f"    {json.dumps(result)}")
            repeats[row].append(result)
            if turn + 1 == options["repeats"]:
                results[row] = median(repeats[row])
                print_row(row, results, case)
    print_ratios(results)


def median(repeats: list[dict]) -> dict:
    failures = [result for result in repeats if "failed" in result]
    if failures:
        return failures[0]
    return {
        key: value if isinstance(value, str) else statistics.median(result[key] for result in repeats)
        for key, value in repeats[0].items()
    }


def print_header(name: str, case: Case, path: Path) -> None:
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    raw = case.times * case.state_bytes
    print(
        f"\n{name}: {len(case.variables)} x {case.times} x {case.latitudes} x {case.longitudes}, {case.chunk} per "
        f"chunk, {raw / MB:.0f} MB ({raw / stored:.2f} times the files), windows of {case.length} "
        f"({case.length * case.state_bytes / MB:.2f} MB), batches of {case.batch}"
    )
    columns = ["windows/s", "per CPU-s", "MB/s", "of RAM/CPU-s", "x xbatcher"]
    columns += ["amplification", "memory", "bound", "ratio"]
    print(f"{'':22}" + "".join(f"{column:>14}" for column in columns), flush=True)


def print_row(row: str, results: dict[str, dict], case: Case) -> None:
    """Print a row of the table; rows without a rate of windows are in `print_ratios`."""
    result = results[row]
    if "failed" in result:
        print(f"{row:22}  failed: {result['failed'][:110]}", flush=True)
        return
    if row.startswith("statistics") or row in CHECKED:
        return
    limit, xbatcher = (results.get(peer, {}).get("cpu") for peer in (LIMIT, "xbatcher"))
    bound = result.get("bound")
    cells = [
        f"{result['wall']:.0f}",
        f"{result['cpu']:.0f}",
        f"{result['wall'] * case.length * case.state_bytes / MB:.0f}",
        f"{result['cpu'] / limit:.2f}" if limit else "",
        f"{result['cpu'] / xbatcher:.1f}" if xbatcher else "",
        # insitubatch reads in Rust, uncounted; the limit reads before the measurement
        "" if row in ("insitubatch", LIMIT) else f"{result['amplification']:.2f}",
        f"{result['extra'] / MB:.0f} MB",
        f"{bound / MB:.0f} MB" if bound else "",
        f"{result['extra'] / bound:.2f}" if bound else "",
    ]
    print(f"{row:22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def print_ratios(results: dict[str, dict]) -> None:
    """Print statistics beside dask, the cost of checksums and that of latency, where these were measured."""
    ours, dask = (results.get(row, {}) for row in ("statistics", "statistics, dask"))
    if "cpu" in ours and "cpu" in dask:
        print(
            f"statistics: {ours['cpu']:.2f} CPU-s, {ours['wall']:.2f} s, +{ours['extra'] / MB:.0f} MB; dask "
            f"{dask['cpu']:.2f} CPU-s, {dask['wall']:.2f} s, +{dask['extra'] / MB:.0f} MB; ratio of CPU "
            f"{ours['cpu'] / dask['cpu']:.2f}"
        )
    for engine in ("zarr", "tensorstore"):
        checked, plain = (results.get(f"{store}, {engine}", {}) for store in ("cache", "plain"))
        if "cpu" in checked and "cpu" in plain:
            ratios = checked["cpu"] / plain["cpu"], checked["wall"] / plain["wall"]
            print(f"checksums, {engine}: {ratios[0]:.3f} of the windows per CPU-s without, {ratios[1]:.3f} per s")
    fast, slow = (results.get(row, {}) for row in HTTP)
    if "wall" in fast and "wall" in slow:
        print(f"http: with 50 ms latency {slow['wall'] / fast['wall']:.2f} of the rate without")


def main(
    cases: Annotated[str, typer.Option(help="Which cases, for example a,b.")] = "a,b,c",
    quick: Annotated[bool, typer.Option(help="Small stores, few rows, one turn of a second: under 2 minutes.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder for the stores, kept; else a temporary one.")] = None,
    repeats: Annotated[int, typer.Option(help="Turns of all rows.")] = 3,
    seconds: Annotated[float, typer.Option(help="Length of a measurement.")] = 5.0,
    insitubatch: Annotated[str, typer.Option(help="A Python that has insitubatch.")] = "",
    row: Annotated[str, typer.Option(hidden=True)] = "",
    path: Annotated[str, typer.Option(hidden=True)] = "",
):
    """Print the table."""
    sizes = QUICK if quick else CASES
    if row == "serve":
        serve(path, seconds)
        return
    if row == "write":
        write_store(Path(path), sizes[cases])
        print("{}")
        return
    if row:
        print(json.dumps(measure(row, path, sizes[cases], seconds)))
        return
    if quick:
        repeats, seconds = 1, 1.0
    obstacles = find_obstacles(insitubatch)
    options = {"insitubatch": insitubatch, "quick": quick, "seconds": seconds, "repeats": repeats}
    options |= {"obstacles": obstacles}
    for missing, reason in obstacles.items():
        if missing in QUICK_ROWS or not quick:
            print(f"without the row {missing!r}: {reason}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in cases.split(","):
            store = (folder / f"{name}{'_quick' if quick else ''}.zarr").absolute()
            if not store.exists():
                report(f"{name}: writes the store")
                arguments = ["--row", "write", "--cases", name, "--path", str(store), *(["--quick"] if quick else [])]
                if failed := run_in_process(sys.executable, *arguments).get("failed"):
                    raise SystemExit(failed)
            run_case(name, sizes[name], store, options)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; medians of {repeats}")


if __name__ == "__main__":
    typer.run(main)
