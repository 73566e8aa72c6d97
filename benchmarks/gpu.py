"""Run this package on a GPU: its tests, its speed, a demo, a large grid, and SimVP. At most 8 minutes on an H200.

    python benchmarks/gpu.py --out gpu.json                  all parts; a second call measures what is missing or failed
    python benchmarks/gpu.py --out gpu.json --budget 240     leave out parts that do not fit into 240 seconds
    python benchmarks/gpu.py --out gpu.json --table          write the results into docs/speed.md
    python benchmarks/gpu.py --out quick.json --quick        tiny networks, also on a CPU: does the script run?

Needs no network. The package must be installed (`pip install --no-deps --editable .`); the tests need pytest, the demo
typer, matplotlib and cartopy. The most important parts come first. Each part is a process, and its results are
added to the file when it ends.

"plain, float32" is the published network in PyTorch's own modules, run eagerly (with TF32 in convolutions, which is
PyTorch's default); "plain, all three changes" has channels-last memory, bfloat16 and `torch.compile`. A step includes
the loader and the copy to the GPU. The GPU waits for the share of a step that is saved if the batch is on it already.
"sc.train, Forecaster" are the public functions with default settings: with running average of the weights, area weights
and padding on the sphere; with labels and the copy to the host. Networks are compiled in the background while the tests
run; the measurements take them from torch's cache.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- benchmarks/gpu.py: begin -->", "<!-- benchmarks/gpu.py: end -->"
# rows of benchmarks/model.py, which imports torch; and the public functions
PLAIN, STACK, DEFAULTS = "plain, float32", "plain, all three changes", "simvp_climate, defaults on a GPU"
PUBLIC = "sc.train, Forecaster"
# as the plain network is trained
ADAMW = {"optimizer": "adamw", "learning_rate": 4e-3}
TARGETS = {"training": 3.0, "forecast": 4.0, "training, of the stack": 1.3, "waiting": 0.05}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a part is measured."""

    device: str
    quick: bool
    seconds: float  # that are left for the part
    save: Callable[[dict], None]  # keeps a result that is not complete, should the part be stopped
    compile_only: bool = False  # only fill the caches of torch.compile


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the measurements: what it needs, and the seconds that it takes on an H200, estimated."""

    name: str
    seconds: float
    run: Callable[[Options], dict]
    needs: tuple[str, ...] = ()


def report(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


# ---- parts, each in its own process


def run_tests(options: Options) -> dict:
    """Run the tests marked `gpu`; return their numbers, and the names of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.xml"
        # other versions than the project's may warn
        command = [sys.executable, "-m", "pytest", "-m", "gpu", str(ROOT / "tests" / "test_gpu.py"), "-q"]
        command += ["-p", "no:cacheprovider", "-o", "filterwarnings=default", f"--junitxml={path}"]
        if options.quick:
            command += ["-k", "losses_of_the_cpu or states_kept"]
        environment = {**os.environ, "SIMVP_GPU_TESTS": options.device}
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, env=environment)
        return read_test_results(path)


def read_test_results(path: Path) -> dict:
    """Return the numbers of tests in a JUnit file, the names of those that failed, and whether resuming was exact."""
    suite = next(ElementTree.parse(path).iter("testsuite"))
    count = {name: int(suite.get(name, "0")) for name in ("tests", "skipped")}
    failed = [
        str(case.get("name"))
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    exact = [node.get("value") for node in suite.iter("property") if node.get("name") == "bit_exact"]
    return {
        "passed": count["tests"] - len(failed) - count["skipped"],
        "skipped": count["skipped"],
        "failures": failed,
        "resumed bit-exactly": exact[0] == "True" if exact else None,
    }


def measure_speed(options: Options, name: str, batch: int) -> dict:
    """Return the seconds of a training step and of a forecast by row, and the share of a step that the GPU waits."""
    import model
    import torch

    case = next(case for case in model.CASES if case.name == name)
    steps, repeats, backend, obstacle = 20, 3, "inductor", None
    if options.quick:  # without code generation, which takes minutes on a CPU
        case, batch, steps, repeats, backend = model.QUICK, 2, 1, 2, "eager"
    elif obstacle := model.compile_obstacle(options.device):
        report(f"without the row {STACK!r}: {obstacle}")
    variants = model.build_variants(case, options.device, obstacle is None, backend)
    variants = [variant for variant in variants if variant.name in (PLAIN, STACK) or "simvp" in variant.name]
    clock, stream = time.perf_counter, model.stream_windows(case, batch, options.device)
    if options.compile_only:
        list(model.time_variants(variants, stream, case, options.device, 0, clock))
        return {}
    timed = model.time_variants(variants, stream, case, options.device, repeats, clock, steps)
    rows = {}
    for row, median in timed:
        rows[row] = {phase: median[phase] for phase in ("step", "forecast")}
        options.save({"batch": batch, "rows": rows})
    fast = next(variant for variant in variants if variant.name == own_row(rows))
    resident = itertools.repeat(next(stream).to(options.device))
    shares = []
    for _ in range(repeats):
        streamed, kept = (
            model.time_steps(fast, source, case.history, options.device, clock, steps)["step"]
            for source in (stream, resident)
        )
        shares.append(max(0.0, 1 - kept / streamed))
    del variants, resident
    if options.device == "cuda":
        torch.cuda.empty_cache()
    result = {"batch": batch, "rows": rows, "waiting": sorted(shares)[len(shares) // 2]}
    if name == "t2m" and batch <= 16:  # compiled once more, because it pads on the sphere
        options.save(result)
        rows[PUBLIC] = measure_public(options, case, batch)
    return result


def measure_public(options: Options, case, batch: int) -> dict[str, float]:
    """Return the seconds of a step of `sc.train` and of a batch of forecasts by `Forecaster`, default settings."""
    import numpy as np
    import xarray as xr

    import simvp_climate as sc

    batches = 2 if options.quick else 40
    count = batches * batch + 2 * case.history - 1
    values = np.random.default_rng(0).normal(280, 10, (count, case.latitudes, case.longitudes)).astype("f4")
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(1, "h"),
            "latitude": (np.arange(case.latitudes) + 0.5) * 180 / case.latitudes - 90,
            "longitude": np.arange(case.longitudes) * 360 / case.longitudes,
        },
    )
    task = sc.Task(["t2m"], history=case.history, horizon=case.history, step="1h")
    network = dataclasses.replace(case.model, padding="auto", predict="change")
    config = sc.TrainConfig(**ADAMW, epochs=2, batch_size=batch, progress=False)
    report(f"{case.name}: sc.train")
    with tempfile.TemporaryDirectory() as folder:
        forecaster = sc.train(
            task, ds, valid=None, model=network, config=config, directory=folder, device=options.device
        )
        speed = last_speed(Path(folder))
    report(f"{case.name}: Forecaster")
    inits = ds["time"].values[case.history : case.history + min(8 * batch, batches * batch)]
    forecaster(ds, inits)  # warms up
    start = time.perf_counter()
    forecaster(ds, inits)
    return {"step": batch / speed, "forecast": (time.perf_counter() - start) / len(inits) * batch}


def last_speed(directory: Path) -> float:
    """Return the windows per second of the last epoch of a training."""
    lines = (directory / "training_curve.csv").read_text().splitlines()
    return float(lines[-1].split(",")[lines[0].split(",").index("windows_per_second")])


def run_demo(options: Options) -> dict:
    """Run the demo; return its seconds and the sentence with its scores."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "simvp_climate", "demo", "--out", f"{folder}/demo", "--device", options.device]
        command += ["--months", "1"] if options.quick else []
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "scores": done.stdout.splitlines()[-2]}


def train_published_size(options: Options) -> dict:
    """Train a network of the published size on the simulated climate for the time that is left; return its scores."""
    import simvp_climate as sc

    started = time.perf_counter()
    ds = sc.open_sample()
    train, valid, test = (
        ds.sel(time=slice(None, "2003-08")),
        ds.sel(time=slice("2003-09", "2003-12")),
        ds.sel(time="2004"),
    )
    history, network = (12, sc.SimVPv2Config())
    if options.quick:
        history, network = 2, sc.SimVPv2Config(hidden_space=4, hidden_time=8, blocks=2, mlp_ratio=2)
        train, valid, test = (part.isel(time=slice(None, 60)) for part in (train, valid, test))
    task = sc.Task(["z500", "t2m"], history=history, horizon=history)
    with tempfile.TemporaryDirectory() as folder:
        # a short training, to choose the epochs of the long one
        config = sc.TrainConfig(**ADAMW, epochs=2, batch_size=16, progress=False)
        short = train.isel(time=slice(None, 360))
        sc.train(task, short, valid=None, model=network, config=config, directory=folder, device=options.device)
        speed = last_speed(Path(folder))
    windows = train.sizes["time"] - 2 * history + 1
    left = options.seconds - (time.perf_counter() - started) - 15  # forecasts and scores
    epochs = 1 if options.quick else max(1, min(50, int(0.9 * left * speed / windows)))
    report(f"published size: {epochs} epochs at {speed:.0f} windows/s")
    with tempfile.TemporaryDirectory() as folder:
        config = sc.TrainConfig(**ADAMW, epochs=epochs, batch_size=16, progress=False)
        forecaster = sc.train(
            task, train, valid=valid, model=network, config=config, directory=folder, device=options.device
        )
        speed = last_speed(Path(folder))
    leads = ["24h", "72h", "120h"] if not options.quick else ["6h"]
    forecast = forecaster(test, every="12h", horizon=20 if not options.quick else 1).sel(lead_time=leads)
    climatology = sc.baselines.climatology(train, method="hourly") if options.quick else sc.baselines.climatology(train)
    scores = sc.score(forecast, test, climatology=climatology, metrics=["rmse"], bootstrap=None).sel(metric="rmse")
    rmse = {
        name: {str(system): scores[name].sel(system=system).values.tolist() for system in scores["system"].values}
        for name in ("z500", "t2m")
    }
    return {"epochs": epochs, "windows per second": speed, "leads": leads, "rmse": rmse}


def measure_large_grid(options: Options) -> dict:
    """Return peak memory in GB and the seconds of a training step of one window at 721 x 1440, by setting."""
    import model
    import torch

    from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config

    latitudes, longitudes = (25, 48) if options.quick else (721, 1440)
    config = dataclasses.replace(model.SMALL if options.quick else SimVPv2Config(), padding="sphere_with_poles")
    rows = {}
    for precision, checkpointing in (("bfloat16", True), ("float32", True), ("bfloat16", False)):
        row = f"{precision}, {'with' if checkpointing else 'without'} checkpointing"
        report(f"{latitudes} x {longitudes}: {row}")
        torch.manual_seed(0)
        network = SimVPv2(config, history=12, channels=1).to(options.device, memory_format=torch.channels_last)
        network.activation_checkpointing = checkpointing
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        case = model.Case("", 12, 1, latitudes, longitudes, 1, 1)
        variant = model.build_variant("", network, case, optimizer, precision == "bfloat16", False)
        windows_BTCHW = torch.randn(1, 24, 1, latitudes, longitudes, device=options.device)
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            for _ in range(3):  # the last one is timed
                start = time.perf_counter()
                loss = variant.step(windows_BTCHW).item()  # waits for the GPU
                seconds = time.perf_counter() - start
            peak = torch.cuda.max_memory_allocated() / 1e9 if options.device == "cuda" else None
            rows[row] = {"step": seconds, "peak GB": peak, "loss": loss}
        except torch.OutOfMemoryError as error:
            rows[row] = {"failed": str(error).splitlines()[0]}
        result = {"grid": f"{latitudes} x {longitudes}", "rows": rows}
        options.save(result)
        del network, optimizer, variant, windows_BTCHW
        if options.device == "cuda":
            torch.cuda.empty_cache()
    return result


def compare_with_simvp(options: Options) -> dict:
    """Return the ratios of SimVPv2 to SimVP at both shapes."""
    import simvp

    cases, batch, repeats = simvp.CASES, 16, 10
    if options.quick:
        cases, batch, repeats = {"small": simvp.Case(4, 1, 16, 16, 8, 16, 2, 4)}, 2, 1
    results = {}
    result = {"batch": batch, "cases": results}
    for name, case in cases.items():
        fastest = simvp.measure(case, options.device, batch, repeats)
        seconds = {phase: {version: value[0] for version, value in rows.items()} for phase, rows in fastest.items()}
        training, inference = seconds["training"], seconds["inference"]
        results[name] = {
            "seconds": seconds,
            "training step, v2 / v1": training["v2"] / training["v1"],
            "forecasts per s, v2 / v1": inference["v1"] / inference["v2"],
        }
        options.save(result)
    return result


PARTS = (
    Part("tests", 75, run_tests, ("pytest",)),
    Part("t2m, batch 16", 75, lambda options: measure_speed(options, "t2m", 16)),
    Part("t2m, batch 64", 50, lambda options: measure_speed(options, "t2m", 64)),
    Part("1.40625 degrees, batch 4", 50, lambda options: measure_speed(options, "1.40625 deg", 4)),
    Part("demo", 60, run_demo, ("typer", "matplotlib", "cartopy")),
    Part("published size", 60, train_published_size),
    Part("721 x 1440", 25, measure_large_grid),
    Part("SimVP", 30, compare_with_simvp),
)
SPEED = ("t2m, batch 16", "t2m, batch 64", "1.40625 degrees, batch 4")
PUBLISHED_SECONDS = 120  # at most, for the training of the published size
COMPILE_SECONDS = 200  # at most, for compiling in the background, and half of the budget


# ---- all parts, within a budget


def plan(part: Part, left: float, following: float) -> float:
    """Return the seconds that a part may take of those left, 0 if it does not fit.

    The training of the published size takes what its followers, which are estimated, leave.
    """
    if part.seconds > left:
        return 0.0
    if part.name == "published size":
        return min(PUBLISHED_SECONDS, max(part.seconds, left - following))
    return left


def run_parts(out: Path, budget: float, quick: bool) -> dict:
    """Measure the parts that the file lacks, within the budget in seconds; return the contents of the file."""
    started = time.monotonic()
    results = open_results(out, quick)
    missing = missing_parts(results)
    for part in PARTS:
        if part not in missing:
            report(f"{part.name}: measured already")
    if absent := missing_requirements():
        report(f"not installed: {', '.join(absent)}. Parts that need them will fail")
    for part in missing:
        if absent := [name for name in part.needs if importlib.util.find_spec(name) is None]:
            report(f"{part.name}: cannot run, because {', '.join(absent)} is not installed")
    with compile_in_background([part.name for part in missing if part.name in SPEED], quick) as compiling:
        measure_parts(missing, results, out, budget - (time.monotonic() - started), compiling)
    return results


def missing_parts(results: dict) -> list[Part]:
    """Return the parts that are not measured, not to their end, or with failures of tests."""
    measured = {
        name for name, result in results["parts"].items() if "failed" not in result and not result.get("failures")
    }
    return [part for part in PARTS if part.name not in measured]


def measure_parts(
    missing: list[Part], results: dict, out: Path, budget: float, compiling: list[subprocess.Popen]
) -> None:
    """Measure parts in turn, within a budget of seconds, and write the file after each."""
    started, quick = time.monotonic(), results["quick"]
    for index, part in enumerate(missing):
        if part.name != "tests":
            wait_for(compiling, min(budget / 2, COMPILE_SECONDS) - (time.monotonic() - started))
        if any(importlib.util.find_spec(name) is None for name in part.needs):
            continue
        left = budget - (time.monotonic() - started)
        seconds = plan(part, left, sum(follower.seconds for follower in missing[index + 1 :]))
        if not seconds:
            report(f"{part.name}: skipped, {part.seconds:.0f} s do not fit into the {left:.0f} s left; run again")
            continue
        report(f"\n{part.name}: begins, {left:.0f} s left")
        begin = time.monotonic()
        result = run_part(part, seconds, min(left, 3 * part.seconds), quick)
        results["parts"][part.name] = {**result, "took": round(time.monotonic() - begin, 1)}
        write_results(out, results)
        print(f"{part.name}: {summarize(part.name, result)}", flush=True)


@contextlib.contextmanager
def compile_in_background(names: list[str], quick: bool) -> Iterator[list[subprocess.Popen]]:
    """Start a process for each part of some names that compiles its networks; the processes end with the context."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for index, name in enumerate(names):
            command = [sys.executable, __file__, "--part", name, "--seconds", "0", "--out", f"{folder}/{index}"]
            command += ["--compile-only", *["--quick"] * quick]
            quiet = subprocess.DEVNULL
            processes.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True))
        try:
            yield processes
        finally:
            for process in processes:
                stop(process)


def wait_for(processes: list[subprocess.Popen], seconds: float) -> None:
    """Wait until the processes end, at most some seconds, then stop them: they would disturb a measurement."""
    if processes:
        report("waits for networks that are compiled in the background")
    deadline = time.monotonic() + seconds
    while processes:
        process = processes.pop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """Kill a process and those that it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_part(part: Part, seconds: float, limit: float, quick: bool) -> dict:
    """Run a part in a new process, which is killed after `limit` seconds; return its result, or what it had saved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--part", part.name, "--seconds", str(seconds), "--out", str(path)]
        # a session of its own, so that its own processes end with it
        process = subprocess.Popen(command + ["--quick"] * quick, stdout=sys.stderr, start_new_session=True)
        failure = {}
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            failure = {"failed": f"stopped after {limit:.0f} s"}
        finally:
            stop(process)
        result = json.loads(path.read_text()) if path.exists() else {}
        if not failure and (process.returncode or not result):
            failure = {"failed": f"its process ended with status {process.returncode}"}
        return {**result, **failure}


def missing_requirements() -> list[str]:
    """Return the requirements of this package that are not installed; SystemExit if it is not itself."""
    try:
        requirements = importlib.metadata.requires("simvp-climate") or []
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit("simvp-climate is not installed: pip install --no-deps --editable .") from None
    names = {re.match(r"[\w-]+", text)[0] for text in requirements if "extra ==" not in text}
    installed = {dist.metadata["Name"].lower().replace("_", "-") for dist in importlib.metadata.distributions()}
    return sorted(name for name in names if name.lower().replace("_", "-") not in installed)


def describe_machine() -> dict:
    import torch

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def open_results(out: Path, quick: bool) -> dict:
    """Return the contents of the file, or those of a new one; SystemExit if it is from another machine."""
    machine = describe_machine()
    if machine["device"] == "CPU" and not quick:
        raise SystemExit("torch finds no CUDA GPU. To try this script on a CPU, add --quick")
    if not out.exists():
        today = datetime.date.today().isoformat()
        return {"machine": machine, "date": today, "quick": quick, "parts": {}}
    results = json.loads(out.read_text())
    if (results["machine"], results["quick"]) != (machine, quick):
        raise SystemExit(f"{out} has results of {results['machine']}, quick={results['quick']}: choose another --out")
    return results


def write_results(out: Path, results: dict) -> None:
    """Write the file in one step, so that a run that is killed leaves the last one."""
    unfinished = out.with_name(f"unfinished-{out.name}")
    unfinished.write_text(json.dumps(results, indent=1))
    unfinished.replace(out)


# ---- what the results say


def own_row(rows: dict) -> str:
    """Return the row of this package's defaults, or the one most like it if networks cannot be compiled."""
    return DEFAULTS if DEFAULTS in rows else "simvp_climate, bfloat16"


def ratios(result: dict) -> dict[str, float]:
    """Return how this package's defaults compare, as the names of `TARGETS`, where they were measured."""
    rows = result["rows"]
    plain, own = rows[PLAIN], rows[own_row(rows)]
    values = {"training": plain["step"] / own["step"], "forecast": plain["forecast"] / own["forecast"]}
    if STACK in rows:
        values["training, of the stack"] = rows[STACK]["step"] / own["step"]
    return {**values, "waiting": result["waiting"]}


def compare_with_targets(result: dict) -> list[tuple[str, str, str, bool]]:
    """Return what was compared, the value, its target and whether it is met."""
    values, lines = ratios(result), []
    for name, text in (
        ("training", "training, times plain float32"),
        ("forecast", "forecast, times plain float32"),
        ("training, of the stack", "training, times plain with all three changes"),
    ):
        if name in values:
            value, target = values[name], TARGETS[name]
            lines.append((text, f"{value:.2f}", f"at least {target:g}", value >= target))
    value, target = values["waiting"], TARGETS["waiting"]
    lines.append(("share of a step that the GPU waits for data", f"{value:.1%}", f"under {target:.0%}", value < target))
    return lines


def summarize(name: str, result: dict) -> str:
    """Return a line about a part."""
    if "failed" in result:
        measured = {key: value for key, value in result.items() if key != "failed"}
        failure = f"failed: {result['failed']}"
        # the speeds, which have tables, compare with a row that may be missing
        return f"{failure}; until then {summarize(name, measured)}" if measured and name not in SPEED else failure
    if name == "tests":
        names = "".join(f", {name} failed" for name in result["failures"])
        exact = {True: "to the last bit", False: "to rounding", None: "(not tried)"}[result["resumed bit-exactly"]]
        return f"{result['passed']} passed, {result['skipped']} skipped{names}; a killed training resumed {exact}"
    if name in SPEED:
        lines = compare_with_targets(result)
        return "; ".join(
            f"{text} {value} ({target}: {'met' if met else 'MISSED'})" for text, value, target, met in lines
        )
    if name == "demo":
        return f"{result['seconds']:.0f} s. {result['scores']}"
    if name == "published size":
        systems = result["rmse"]["t2m"].items()
        scores = ", ".join(f"{system} {'/'.join(f'{value:.2f}' for value in values)}" for system, values in systems)
        return (
            f"{result['epochs']} epochs, {result['windows per second']:.0f} windows/s; t2m RMSE in K at "
            f"{'/'.join(result['leads'])}: {scores}"
        )
    if name == "SimVP":
        return "; ".join(
            f"{case}: training step {row['training step, v2 / v1']:.2f} of SimVP's (claimed about 0.5), forecasts "
            f"{row['forecasts per s, v2 / v1']:.2f} times (claimed 1.6)"
            for case, row in result["cases"].items()
        )
    return "; ".join(f"{row}: {describe_step(values)}" for row, values in result["rows"].items())


def describe_step(values: dict) -> str:
    if "failed" in values:
        return values["failed"]
    peak = "" if values["peak GB"] is None else f", peak {values['peak GB']:.1f} GB"
    return f"{values['step']:.3f} s a step{peak}"


def make_table(results: dict) -> str:
    """Return the results as Markdown."""
    machine = results["machine"]
    text = [
        f"{machine['device']}, {machine['cores']} CPU cores, torch {machine['torch']}, Python {machine['python']}, "
        f"{results['date']}.",
    ]
    for name in SPEED:
        result = results["parts"].get(name, {"failed": "not measured"})
        if "failed" in result:
            text += ["", f"{name}: {result['failed']}."]
        if PLAIN not in result.get("rows", {}):
            continue
        text += ["", f"| {name} | training step, ms | times plain | forecast, ms | times plain |"]
        text += ["| --- | ---: | ---: | ---: | ---: |"]
        plain = result["rows"][PLAIN]
        for row, values in result["rows"].items():
            cells = [f"{1e3 * values[key]:.1f} | {plain[key] / values[key]:.1f}" for key in ("step", "forecast")]
            text.append(f"| {row} | {' | '.join(cells)} |")
        if "waiting" not in result:
            continue
        text += ["", f"| {name} | measured | target | |", "| --- | ---: | ---: | --- |"]
        text += [
            f"| {label} | {value} | {target} | {'met' if met else 'missed'} |"
            for label, value, target, met in compare_with_targets(result)
        ]
    text.append("")
    for part in PARTS:
        if part.name not in SPEED:
            text.append(
                f"- {part.name}: {summarize(part.name, results['parts'].get(part.name, {'failed': 'not run'}))}"
            )
    return "\n".join(text)


def fill(page: str, table: str) -> str:
    """Return a page with the table between its two comments."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must have the lines {BEGIN!r} and {END!r} once")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of the results, JSON")
    parser.add_argument("--budget", type=float, default=480, help="seconds; parts that do not fit are left out")
    parser.add_argument("--quick", action="store_true", help="tiny networks, also on a CPU")
    parser.add_argument("--table", action="store_true", help="write the results of --out into docs/speed.md")
    parser.add_argument("--part", choices=[part.name for part in PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--compile-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_here(arguments)
        return
    if arguments.table:
        results = json.loads(arguments.out.read_text())
        if results["quick"]:
            parser.error("results of --quick are of no interest: they are not written into docs/speed.md")
        DOCS.write_text(fill(DOCS.read_text(), make_table(results)))
        return
    results = run_parts(arguments.out, arguments.budget, arguments.quick)
    if incomplete := [part.name for part in missing_parts(results)]:
        print(f"not measured: {'; '.join(incomplete)}. The same command measures them")


def run_here(arguments: argparse.Namespace) -> None:
    """Run a part in this process and write its result, or the reason why there is none."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    saved = {}

    def save(result: dict) -> None:
        saved.update(result)
        write_results(arguments.out, result)

    options = Options(device, arguments.quick, arguments.seconds, save, arguments.compile_only)
    try:
        result = next(part for part in PARTS if part.name == arguments.part).run(options)
    except Exception as error:
        traceback.print_exc()
        result = {**saved, "failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    write_results(arguments.out, result)


if __name__ == "__main__":
    main()
