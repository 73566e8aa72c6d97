"""The command line: `python -m simvp_climate demo`, `check`, `reproduce`. Thin: it uses the public API only."""

import html
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# chosen on the validation months of the sample, for five minutes on two cores
MODEL = dict(hidden_space=16, hidden_time=96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0)
TRAINING = dict(epochs=2, batch_size=12, learning_rate=3e-3, average=0.985, validation_windows=64)


@app.callback()
def main() -> None:
    """Learned weather and climate forecasts on latitude-longitude grids."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    months: Annotated[int, typer.Option(help="Months to train on, up to 32; fewer are faster.", min=1, max=32)] = 32,
) -> None:
    """Train on the bundled sample, forecast months it never saw, score and draw.

    Example: python -m simvp_climate demo --out demo

    The sample is a simulated climate, not observations. Exit status 0 when all files are written.
    """
    ours = out / "forecaster.safetensors"
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and (not ours.exists() or (out / "training.pt").exists()):  # the latter: a run of train()
        raise typer.BadParameter(f"{out} exists and is not a folder of this demo: choose another", param_hint="--out")
    out.mkdir(parents=True, exist_ok=True)

    ds = sc.open_sample()
    first = pd.Timestamp("2003-09-01") - pd.DateOffset(months=months)
    train, valid = ds.sel(time=slice(first, "2003-08")), ds.sel(time=slice("2003-09", "2003-12"))
    test = ds.sel(time=slice("2004-01", "2004-04"))

    task = sc.Task(["z500", "t2m"], history=4, horizon=4)
    forecaster = sc.train(
        task, train, valid=valid, model=sc.SimVPv2Config(**MODEL), config=sc.TrainConfig(**TRAINING), device=device
    )
    forecast = forecaster(test, every="12h", horizon=20)
    scores = sc.score(forecast, test, climatology=sc.climatology(train))

    forecaster.save(ours)
    _write(out / "forecast.nc", forecast.to_netcdf)
    _write(out / "scores.nc", scores.to_netcdf)
    _write(out / "scores.csv", scores.to_dataframe().to_csv)
    _write(out / "scores.png", lambda path: sc.plot.scores(scores).savefig(path, dpi=120))
    title = "Simulated climate: 3 days from 2004-02-01 00 UTC"
    maps = sc.plot.maps(forecast, test, init="2004-02-01", lead="3D", title=title)
    _write(out / "maps.png", lambda path: maps.savefig(path, dpi=120))
    for variable in scores.data_vars:
        print(_table(scores, variable))
    print(f"Simulated climate, {test.time.values[0]:.10} to {test.time.values[-1]:.10}: {_verdict(scores)}.")
    print(f"Written to {out}/: {', '.join(sorted(path.name for path in out.iterdir()))}")


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A Zarr store, NetCDF file, folder or pattern, local or remote.")],
    variables: Annotated[str, typer.Option(help="z500,t2m and so on. Default: all on the grid with time.")] = "",
    levels: Annotated[str, typer.Option(help="Pressures in hPa: 500,850.")] = "",
    history: Annotated[int, typer.Option(help="States in.", min=1)] = 12,
    horizon: Annotated[int, typer.Option(help="States out.", min=1)] = 12,
    step: Annotated[str, typer.Option(help="6h, 1D, 1MS. Default: that of the data.")] = "",
    report: Annotated[Path | None, typer.Option("--html", help="Write the report here as well.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Say what is wrong with data, each with its fix, and what they will cost.

    Example: python -m simvp_climate check era5.zarr --variables z500,t2m --history 4 --horizon 4

    Exit status 0 if there are no errors, 1 if there are, 2 if the data cannot be opened.
    """
    try:
        found = _check(path, variables, levels, history, horizon, step)
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    print(found)
    if report is not None:
        page = f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>check {html.escape(path)}</title></head>"
        text = f"{page}<body style='font-family:sans-serif'>{found._repr_html_()}</body></html>"
        _write(report, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    counted = ("error", "warning") if strict else ("error",)
    raise typer.Exit(int(any(finding.severity in counted for finding in found.findings)))


@app.command()
def reproduce(
    forecast: Annotated[Path, typer.Argument(help="A forecast, NetCDF or Zarr, as written by this package.")],
    forecaster: Annotated[Path, typer.Option(help="The file of the forecaster that made it.")],
    data: Annotated[str, typer.Option(help="The data that it started from. Default: what the file names.")] = "",
    tolerance: Annotated[float, typer.Option(help="In standard deviations of a variable.")] = 1e-3,
) -> None:
    """Make a forecast again from its data, and compare.

    Example: python -m simvp_climate reproduce forecast.nc --forecaster t2m.safetensors --data era5.zarr

    Exit status 0 if it is the same within the tolerance, 1 if it is not, 2 if a file cannot be opened.
    """
    try:
        engine = "zarr" if forecast.is_dir() else "netcdf4"
        stored = xr.open_dataset(forecast, decode_timedelta=True, engine=engine)
        trained = sc.Forecaster.load(forecaster)
        source = data or stored.attrs.get("data_source", "")
        if not source:
            raise ValueError(f"{forecast} does not name its data: give --data")
        inputs = [*trained.task.variables, *trained.task.inputs]
        dataset = sc.open_dataset(source, inputs, levels=trained.task.levels)
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        print(sc.reproduce(stored, trained, dataset, tolerance=tolerance))
    except ValueError as error:
        print(error)
        raise typer.Exit(1) from error


def _check(path: str, variables: str, levels: str, history: int, horizon: int, step: str):
    """Check as the options say; what they leave open comes from the data."""
    names = [name.strip() for name in variables.split(",") if name.strip()]
    pressures = [float(level) for level in levels.split(",") if level.strip()] or None
    found = None
    if not names or not step:
        found = sc.check(path, sc.Task(names, pressures, history, horizon) if names else None)
        if (history, horizon, step, pressures, names) == (12, 12, "", None, []):
            return found
        names = names or [one["name"] for one in found.summary.get("variables", [])]
        step = step or found.summary.get("time", {}).get("step") or "6h"
        if not names or "grid" not in found.summary:
            return found
    return sc.check(path, sc.Task(names, pressures, history, horizon, step))


def _write(path: Path, write: Callable) -> None:
    """Write under a temporary name and rename: what has the final name is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    os.replace(unfinished, path)


def _table(scores: xr.Dataset, variable: str) -> str:
    """Return one variable's scores by lead time as text."""
    shown = {"rmse": f"RMSE ({scores[variable].attrs['units']})", "acc": "ACC", "small_scale_variance": "small scales"}
    days = pd.to_timedelta(scores["lead_time"].values) / pd.Timedelta("1D")
    chosen = [index for index, day in enumerate(days) if day in (0.25, 0.5) or day % 1 == 0]
    part = scores[variable].isel(lead_time=chosen).sel(metric=list(shown))
    columns = {
        (shown[metric], system): part.sel(metric=metric, system=system).values
        for metric in shown
        for system in part["system"].values
        if part.sel(metric=metric, system=system).notnull().any() or metric == "acc"
    }
    digits = 0 if part.sel(metric="rmse").max() > 100 else 2
    table = pd.DataFrame(columns, index=[f"{24 * days[index]:.0f} h" for index in chosen])
    formats = {column: f"{{:.{digits if column[0].startswith('RMSE') else 2}f}}".format for column in table}
    return f"\n{variable}\n" + table.to_string(formatters=formats, na_rep="-")


def _verdict(scores: xr.Dataset) -> str:
    """Say at which leads the forecast beats persistence and climatology by RMSE, for each variable."""
    rmse = scores.sel(metric="rmse")
    days = pd.to_timedelta(rmse["lead_time"].values) / pd.Timedelta("1D")
    name = str(rmse["system"].values[0])
    words = []
    for variable in rmse.data_vars:
        ours = rmse[variable].sel(system=name)
        better = (ours < rmse[variable].sel(system="persistence")).values
        every = "at every lead" if better.all() else f"at {better.sum()} of {better.size} leads"
        # up to a day means: at that lead and all before
        skilful = (ours < rmse[variable].sel(system="climatology")).values.cumprod().sum()
        day = f"up to day {days[skilful - 1]:g}" if skilful else "at no lead"
        words.append(f"{variable} beats persistence {every}; beats climatology {day}")
    return ". ".join(words)


if __name__ == "__main__":
    app(prog_name="simvp-climate")
