"""The command line, `simvp-climate` or `python -m simvp_climate`. Thin: it uses the public API only."""

import html
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# chosen on the validation months of the sample, for five minutes on two cores
MODEL = dict(hidden_space=16, hidden_time=96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0)
TRAINING = dict(epochs=2, batch_size=12, learning_rate=3e-3, average=0.985, validation_windows=64)


class Kind(StrEnum):
    """What `plot` draws."""

    maps = "maps"
    scores = "scores"
    scorecard = "scorecard"
    hovmoller = "hovmoller"
    film = "film"


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
    _write(out / "scorecard.png", lambda path: sc.plot.scorecard(scores).savefig(path, dpi=120))
    title = "Simulated climate: 3 days from 2004-02-01 00 UTC"
    maps = sc.plot.maps(forecast, test, init="2004-02-01", lead="3D", title=title)
    _write(out / "maps.png", lambda path: maps.savefig(path, dpi=120))
    print(sc.score_table(scores, ["rmse", "acc", "small_scale_variance"]).round(2).to_string(na_rep="-"))
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
def forecast(
    forecaster: Annotated[Path, typer.Argument(help="The file of a forecaster, as Forecaster.save writes it.")],
    data: Annotated[str, typer.Argument(help="The data to start from: Zarr, NetCDF, a folder or pattern.")],
    out: Annotated[Path, typer.Option(help="forecast.nc, or forecast.zarr for many, written as they are made.")],
    init: Annotated[
        list[str] | None, typer.Option(help="A time to start from, 2018-03-01T12; may be repeated.")
    ] = None,
    every: Annotated[str, typer.Option(help="Or all times at multiples of this: 12h.")] = "",
    start: Annotated[str, typer.Option(help="Leave out what is before: 2018, 2018-06.")] = "",
    end: Annotated[str, typer.Option(help="Leave out what is after.")] = "",
    horizon: Annotated[int | None, typer.Option(help="Steps. Default: those of the task.", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Forecast from data, by default once from their last time, and write a CF file.

    Example: simvp-climate forecast t2m.safetensors era5.zarr --every 12h --start 2018 --out hindcast.zarr

    A Zarr store is written as it is made; stopped and started again it goes on. Exit status 0 when it is written, 2 if
    a file cannot be opened or nothing can be forecast from it.
    """
    if out.suffix not in (".nc", ".zarr"):
        raise typer.BadParameter(f"{out}: the name ends in .nc or .zarr", param_hint="--out")
    if out.suffix == ".zarr" and not (init or every):
        raise typer.BadParameter("say from which times: --every 12h, or --init", param_hint="--out")
    try:
        trained = sc.Forecaster.load(forecaster, device=device)
        inputs = [*trained.task.variables, *trained.task.inputs]
        ds = sc.open_dataset(data, inputs, levels=trained.task.levels).sel(time=slice(start or None, end or None))
        if out.suffix == ".zarr":
            found = trained.hindcast(ds, init or None, every or None, horizon, to=out)
        else:
            found = trained(ds, init or None, every or None, horizon)
            _write(out, found.to_netcdf)
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    times = found["init_time"].values
    print(f"{out}: {len(times)} forecasts of {', '.join(map(str, found.data_vars))}, {found.sizes['lead_time']} leads, "
          f"from {times[0]} to {times[-1]}")  # fmt: skip


@app.command()
def score(
    forecasts: Annotated[list[Path], typer.Argument(help="Forecasts; those after the first are scored beside it.")],
    truth: Annotated[str, typer.Option(help="The analyses: Zarr, NetCDF, a folder or pattern.")],
    train: Annotated[
        str, typer.Option(help="Years of the analyses for climatology and damped persistence, 1979:2015.")
    ] = "",
    regions: Annotated[str, typer.Option(help="tropics,northern extratropics and so on. Default: the globe.")] = "",
    by: Annotated[str, typer.Option(help="season or month.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the scores here as NetCDF.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """Score forecasts beside persistence and climatology, with 95 % intervals.

    Example: simvp-climate score forecast.zarr graphcast.zarr --truth era5.zarr --train 1979:2015 --out scores.nc

    Exit status 0 when they are scored, 2 if a file cannot be opened or does not fit.
    """
    try:
        first, *others = (_open_forecast(path) for path in forecasts)
        names = list(map(str, first.data_vars))
        levels = first["level"].values.tolist() if "level" in first.dims else None
        analyses = sc.open_dataset(truth, names, levels=levels)
        climatology, baselines = None, {}
        if train:
            years = train.split(":")
            if len(years) != 2:
                raise ValueError(f"--train {train} is no period: write first:last, for example 1979:2015")
            training = analyses.sel(time=slice(*(year or None for year in years)))
            climatology = sc.climatology(training)
            baselines["damped persistence"] = sc.fit_damped_persistence(training, climatology, first["lead_time"])
        for path, other in zip(forecasts[1:], others, strict=True):
            baselines[path.stem] = other
        chosen = [name.strip() for name in regions.split(",") if name.strip()] or None
        scores = sc.score(first, analyses, climatology, baselines=baselines, regions=chosen, by=by or None)
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    table = sc.score_table(scores)
    if out is not None:
        _write(out, scores.to_netcdf)
    if csv is not None:
        _write(csv, table.to_csv)
    print(table.round(3).to_string(na_rep="-"))
    print(f"{scores.attrs['verified_start']} to {scores.attrs['verified_end']}; intervals: {scores.attrs['intervals']}")


@app.command()
def plot(
    kind: Annotated[Kind, typer.Argument(help="What to draw.")],
    path: Annotated[Path, typer.Argument(help="A forecast for maps, film and hovmoller; scores for the others.")],
    out: Annotated[Path, typer.Option(help="figure.png, figure.pdf; film.gif or film.mp4.")],
    truth: Annotated[str, typer.Option(help="Analyses to draw beside a forecast.")] = "",
    variable: Annotated[str, typer.Option(help="Default: all, or the only one.")] = "",
    init: Annotated[str, typer.Option(help="Which forecast: 2018-03-01T12. Default: the last one.")] = "",
    lead: Annotated[list[str] | None, typer.Option(help="3D or 12h; may be repeated. Default: the last.")] = None,
    baseline: Annotated[str, typer.Option(help="What a scorecard compares with.")] = "persistence",
    dpi: Annotated[int, typer.Option(help="Dots per inch.", min=20)] = 150,
) -> None:
    """Draw a forecast or scores.

    Example: simvp-climate plot maps forecast.nc --truth era5.zarr --variable z500 --lead 3D --out maps.png

    Exit status 0 when the picture is written, 2 if a file cannot be opened or does not hold what is drawn.
    """
    try:
        if kind in (Kind.scores, Kind.scorecard):
            with xr.open_dataset(path, decode_timedelta=True) as scores:
                scores = scores.load()
            ends = [name for name in scores.variables if str(name).endswith(("_low", "_high"))]
            scores = scores.set_coords(ends)
            if variable:
                scores = scores[[variable]]
            figure = sc.plot.scores(scores) if kind is Kind.scores else sc.plot.scorecard(scores, baseline)
        else:
            found = _open_forecast(path)
            names = [variable] if variable else list(map(str, found.data_vars))
            levels = found["level"].values.tolist() if "level" in found.dims else None
            analyses = sc.open_dataset(truth, names, levels=levels) if truth else None
            options = {"variable": variable or None, "init": init or None}
            if kind is Kind.film:
                sc.plot.animate(found, analyses, **options, lead=lead or None, to=out)
                return
            if kind is Kind.hovmoller:
                figure = sc.plot.hovmoller(found, analyses, **options)
            else:
                figure = sc.plot.maps(found, analyses, **options, lead=lead or None)
        _write(out, lambda unfinished: figure.savefig(unfinished, dpi=dpi))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error


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
        stored = _open_forecast(forecast)
        trained = sc.Forecaster.load(forecaster)
        source = data or stored.attrs.get("data_source", "")
        if not source:
            raise ValueError(f"{forecast} does not name its data: give --data")
        inputs = [*trained.task.variables, *trained.task.inputs]
        if source == "open_sample()":
            dataset = sc.open_sample(inputs)
        else:
            dataset = sc.open_dataset(source, inputs, levels=trained.task.levels)
    except (OSError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        print(sc.reproduce(stored, trained, dataset, tolerance=tolerance))
    except ValueError as error:
        print(error)
        raise typer.Exit(1) from error


def _check(path: str, variables: str, levels: str, history: int, horizon: int, step: str) -> Any:
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


def _open_forecast(path: Path) -> xr.Dataset:
    """Open a forecast as this package, or WeatherBench 2, writes it."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    stored = xr.open_dataset(path, decode_timedelta=True, engine="zarr" if path.is_dir() else "netcdf4")
    if "prediction_timedelta" in stored.dims:
        return sc.open_dataset(stored, list(map(str, stored.data_vars)))
    return stored


def _write(path: Path, write: Callable) -> None:
    """Write under a temporary name and rename: what has the final name is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    os.replace(unfinished, path)


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
