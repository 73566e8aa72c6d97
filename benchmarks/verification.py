"""Time and memory of scoring a year of forecasts, compared with the package `scores`.

    python benchmarks/verification.py compare --out folder
    python benchmarks/verification.py baselines --data simulated_climate.zarr

`compare` scores a year of daily forecasts to ten days of five variables on 64 x 32 cells, random numbers in NetCDF
files: root mean square error, mean absolute error, bias and anomaly correlation of the forecast, of persistence and of
climatology. Each package runs in a process of its own; memory is the peak beyond the imports. It prints the ratios and
the largest difference between the scores. `baselines` prints the errors of the fitted baselines for z500 and t2m,
fitted on 2001 to 2003 and verified on 2004 every 12 h.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

VARIABLES = ("z500", "t2m", "t850", "u10", "v10")
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0])


def write_data(folder: Path, days: int) -> None:
    """Write forecast, truth and climatology as NetCDF files."""
    random = np.random.default_rng(0)
    grid = {"latitude": np.arange(-87.1875, 90, 5.625), "longitude": np.arange(64) * 5.625}
    leads = (np.arange(1, 41) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    inits = np.datetime64("2018-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    times = np.datetime64("2018-01-01", "ns") + np.arange((days + 10) * 4) * np.timedelta64(6, "h")

    def fields(dims: dict, scale: float) -> tuple:
        shape = [len(values) for values in dims.values()] + [32, 64]
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        return ((*dims, "latitude", "longitude"), values, {"units": "K"})

    for name, dims in {
        "forecast": {"init_time": inits, "lead_time": leads},
        "truth": {"time": times},
        "climatology": {"hour": np.array([0, 6, 12, 18]), "dayofyear": np.arange(1, 367)},
    }.items():
        scale = 0.1 if name == "climatology" else 1.0
        ds = xr.Dataset({v: fields(dims, scale) for v in VARIABLES}, {**dims, **grid})
        if name == "forecast":
            ds = ds.assign_coords(valid_time=ds.init_time + ds.lead_time)
        ds.to_netcdf(folder / f"{name}.nc", engine="netcdf4")


def open_data(folder: Path) -> list[xr.Dataset]:
    """Return forecast, truth and climatology."""
    names = ("forecast", "truth", "climatology")
    return [xr.open_dataset(folder / f"{name}.nc", decode_timedelta=True, engine="netcdf4") for name in names]


def memory(field: str) -> float:
    """Return the current (VmRSS) or peak (VmHWM) resident memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def score_ours(folder: Path) -> xr.Dataset:
    """Score the four metrics with this package, without intervals."""
    import simvp_climate as sc

    # the systems that `scores` computes, without anomaly persistence
    systems = {"persistence": False, "baselines": {"persistence": sc.baselines.persistence}}
    return sc.score(*open_data(folder), metrics=["rmse", "mae", "bias", "acc"], bootstrap=None, **systems)


def score_ours_by_default(folder: Path) -> xr.Dataset:
    """Score all default metrics with this package: also activity, small scales, skills and intervals."""
    import simvp_climate as sc

    return sc.score(*open_data(folder))


def score_with_scores(folder: Path) -> xr.Dataset:
    """Score the four metrics with the package `scores`, one variable at a time, as in its documentation."""
    from scores.continuous import additive_bias, mae, mse, rmse
    from scores.functions import create_latitude_weights

    forecast, truth, climatology = open_data(folder)
    weights = create_latitude_weights(forecast["latitude"])
    options = {"preserve_dims": ["lead_time"], "weights": weights}
    result = {}
    for name in VARIABLES:
        field = forecast[name].load()
        right = truth[name].load().sel(time=forecast["valid_time"])
        last = truth[name].sel(time=forecast["init_time"]).drop_vars("time")
        last = last.expand_dims(lead_time=forecast["lead_time"]).transpose(*field.dims)
        valid = forecast["valid_time"]
        normal = climatology[name].load().sel(hour=valid.dt.hour, dayofyear=valid.dt.dayofyear)
        rows = []
        for system in (field, last, normal.drop_vars(["hour", "dayofyear"])):
            a, b = system - normal, right - normal
            covariance = (a * b).weighted(weights).mean(["init_time", "latitude", "longitude"])
            var_a, var_b = (mse(x, xr.zeros_like(x), **options) for x in (a, b))
            acc = covariance / np.sqrt(var_a * var_b).where(var_a > 0)
            parts = [f(system, right, **options) for f in (rmse, mae, additive_bias)]
            rows.append(xr.concat([*(p.drop_vars(p.coords.keys() - {"lead_time"}) for p in parts),
                                   acc.drop_vars(acc.coords.keys() - {"lead_time"})], "metric",
                                  coords="minimal", compat="override"))  # fmt: skip
        result[name] = xr.concat(rows, "system", coords="minimal", compat="override")
    return xr.Dataset(result)


@app.command()
def run(package: str, folder: Path, result: Path) -> None:
    """Score once in this process; write the scores, the time and the memory."""
    functions = {"ours": score_ours, "ours by default": score_ours_by_default, "scores": score_with_scores}
    import scores  # noqa: F401

    import simvp_climate as sc

    _ = sc.score  # imports both packages, so that their imports do not count
    before = memory("VmRSS")
    start = time.perf_counter()
    table = functions[package](folder)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    table.to_netcdf(result.with_suffix(".nc"), engine="netcdf4")
    result.write_text(json.dumps({"seconds": seconds, "megabytes": peak}))


@app.command()
def compare(
    out: Annotated[Path, typer.Option(help="Folder for the data and results.")],
    days: Annotated[int, typer.Option(help="Number of daily forecasts.")] = 365,
    repeats: int = 3,
) -> None:
    """Score with both packages and print the ratios."""
    out.mkdir(parents=True, exist_ok=True)
    write_data(out, days)
    best = {}
    for _ in range(repeats):
        for package in ("ours", "scores", "ours by default"):
            result = out / f"{package}.json"
            command = [sys.executable, __file__, "run", package, str(out), str(result)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            measured = json.loads(result.read_text())
            best[package] = min(best.get(package, measured), measured, key=lambda x: x["seconds"])
    for package, measured in best.items():
        print(f"{package}: {measured['seconds']:.1f} s, {measured['megabytes']:.0f} MB beyond the imports")
    ours, other = (xr.load_dataset(out / f"{package}.nc", engine="netcdf4") for package in ("ours", "scores"))
    largest = max(
        float(abs(ours[name].values - other[name].values)[np.isfinite(other[name].values)].max()) for name in VARIABLES
    )
    print(f"scores / ours: time {best['scores']['seconds'] / best['ours']['seconds']:.1f}, "
          f"memory {best['scores']['megabytes'] / best['ours']['megabytes']:.1f}; "
          f"largest difference of a score {largest:.1e}")  # fmt: skip


@app.command()
def baselines(data: Annotated[str, typer.Option(help="The simulated climate, with z500 and t2m.")]) -> None:
    """Print the errors of the fitted baselines."""
    import simvp_climate as sc

    ds = sc.open_dataset(data, ["z500", "t2m"]).load()
    train, valid, leads = ds.sel(time=slice("2001", "2003")), ds.sel(time="2004"), ["24h", "72h", "120h"]
    climatology = sc.baselines.climatology(train)
    for name, fit in {
        "damped": sc.baselines.fit_damped_persistence,
        "regression": sc.baselines.fit_linear_regression,
    }.items():
        fitted = fit(train, climatology, leads)
        table = sc.metrics.rmse(fitted(valid, valid["time"][:-20:2], leads), valid)
        print(name, {v: table[v].round(2 if v == "t2m" else 0).values.tolist() for v in table}, flush=True)
        if name == "regression":
            counts = (abs(fitted.operator) > 0).any("mode").sum("start").values.tolist()
            print("functions by lead:", counts)


if __name__ == "__main__":
    app()
