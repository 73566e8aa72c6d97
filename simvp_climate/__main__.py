"""The command line, `simvp-climate` or `python -m simvp_climate`, on top of the public API."""

import simvp_climate as sc

sc.exit_on_signals()  # before the imports below, which take seconds

# ruff: noqa: E402
import html
import inspect
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import xarray as xr

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

# The default network and training, for a run of five minutes on two cores. One network call in training was chosen over
# two, which blurred more, after the scores of the test period were known. In float32 the documented scores hold
# everywhere.
TRAINING = dict(epochs=2, validation_windows=64, precision="32-true")

_NETCDF, _ANIMATIONS = (".nc",), (".gif", ".mp4")
_PICTURES = (".png", ".pdf", ".svg", ".eps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")

# the names that `score` gives to its baselines
_BASELINES = ("persistence", "anomaly persistence", "climatology", "damped persistence", "linear regression")
_COMPUTED_FORCINGS = ("insolation", "time_of_day", "time_of_year", "coordinates")  # the others are fields in the data

Figure = StrEnum("Figure", ["maps", "hovmoller", "animate", "scores", "scorecard"])
_MAP_OPTIONS = ("region", "climatology", "contours", "arrows", "letters")
# the options of `plot` that each figure uses; the others are refused
_OPTIONS: dict[str, tuple[str, ...]] = {
    "maps": ("truth", "variable", "level", "init", "lead", "units", *_MAP_OPTIONS, "width", "dpi"),
    "hovmoller": ("truth", "variable", "level", "init", "units", "width", "dpi"),
    "animate": ("truth", "variable", "level", "init", "lead", "units", "width"),
    "scores": ("variable", "level", "width", "dpi"),
    "scorecard": ("variable", "level", "baseline", "width", "dpi"),
}


def _print_version(requested: bool) -> None:
    if requested:
        print(f"simvp-climate {sc.__version__}")
        raise typer.Exit


_VERSION = typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)


@app.callback()
def main(version: Annotated[bool, _VERSION] = False) -> None:
    """Learned weather and climate forecasts on latitude-longitude grids.

    Example: simvp-climate check era5.zarr --variables z500,t2m

    List the options of a command, with an example: simvp-climate plot --help

    Exit status 0 on success; 1 if check finds errors or reproduce finds a difference, or after an unexpected error;
    2 if an option, a file or the data are unsuitable, with a message.
    """


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    months: Annotated[int, typer.Option(help="Months to train on, up to 32; fewer are faster.", min=1, max=32)] = 32,
) -> None:
    """Train on the bundled sample, forecast later months, score the forecasts and draw them.

    Example: python -m simvp_climate demo --out demo

    The sample is a simulated climate, not observations. The climatology always uses all months before the validation
    period. Exit status 0 when all files are written, 2 if the folder or the device is not available.
    """
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    from_demo = (out / "forecaster.safetensors").exists() and not (out / "training.pt").exists()  # no run of train()
    if not empty and not from_demo:
        raise typer.BadParameter(f"{out} exists and is not a folder of this demo: choose another", param_hint="--out")
    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    with _usage_errors(demo):
        out.mkdir(parents=True, exist_ok=True)
        try:
            _train_and_score(out, device, months)
        finally:
            for folder in new_folders:  # removes those that are empty after an error
                with suppress(OSError):
                    folder.rmdir()


def _train_and_score(out: Path, device: str, months: int) -> None:
    """Train, forecast, score and draw on the sample, and write the results into a folder."""
    ds = sc.open_sample()
    before = ds.sel(time=slice(None, "2003-08"))
    train = before.sel(time=slice(pd.Timestamp("2003-09-01") - pd.DateOffset(months=months), None))
    valid, test = ds.sel(time=slice("2003-09", "2003-12")), ds.sel(time=slice("2004-01", "2004-04"))

    task, config = sc.Task(["z500", "t2m"], history=4, horizon=4), sc.TrainConfig(**TRAINING)
    forecaster = sc.train(task, train, valid=valid, config=config, device=device)
    forecast = forecaster(test, every="12h", horizon=20)
    # Baselines always from all months: a climatology of August alone would be easy to beat in January.
    scores = sc.score(forecast, test, train=before)

    forecaster.save(out / "forecaster.safetensors")
    _write(out / "forecast.nc", forecast.to_netcdf)
    _write(out / "scores.nc", scores.to_netcdf)
    _write(out / "scores.csv", scores.to_dataframe().to_csv)
    title = "Simulated climate: 3 days from 2004-02-01 00 UTC"
    maps = sc.plot.maps(forecast, test, init="2004-02-01", lead="3D", title=title)
    figures = {"scores": sc.plot.scores(scores), "scorecard": sc.plot.scorecard(scores), "maps": maps}
    for name, figure in figures.items():
        _write(out / f"{name}.png", partial(figure.savefig, dpi=120))
    _print_table(scores, ["rmse", "acc", "small_scale_variance"])
    print(f"Simulated climate, {test.time.values[0]:.10} to {test.time.values[-1]:.10}: {_skill_summary(scores)}.")
    print(f"Written to {out}/: {', '.join(sorted(path.name for path in out.iterdir()))}")


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A Zarr store, NetCDF file, folder or pattern, local or remote.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    variables: Annotated[
        list[str] | None, typer.Option(help="Such as z500,t2m. Default: all on the grid with time.")
    ] = None,
    levels: Annotated[str, typer.Option(help="Pressures in hPa: 500,850.")] = "",
    history: Annotated[int, typer.Option(help="Number of input states.", min=1)] = 4,
    horizon: Annotated[int, typer.Option(help="Number of forecast states.", min=1)] = 4,
    step: Annotated[str, typer.Option(help="6h, 1D, 1MS. Default: the step of the data.")] = "",
    html_path: Annotated[Path | None, typer.Option("--html", help="Also write the report to this file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
) -> None:
    """List the problems of data with their fixes, and the memory and time that training needs.

    Example: python -m simvp_climate check era5.zarr --variables z500,t2m --history 4 --horizon 4

    Exit status 0 without errors, 1 with errors, 2 if the data cannot be opened or the report cannot be written.
    """
    with _usage_errors(check):
        _check_out(html_path, "--html")
        report = _check(path, _variables(variables, more), levels, history, horizon, step)
    print(report)
    if html_path is not None:
        page = f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>check {html.escape(path)}</title></head>"
        text = f"{page}<body style='font-family:sans-serif'>{report._repr_html_()}</body></html>"
        with _usage_errors(check):
            _write(html_path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    severities = {finding.severity for finding in report.findings}
    raise typer.Exit(int("error" in severities or (strict and "warning" in severities)))


@app.command("train")
def train_forecaster(
    data: Annotated[str, typer.Argument(help="Zarr, NetCDF, a folder or pattern; or sample, the bundled sample.")],
    variables: Annotated[list[str], typer.Option(help="Variables to forecast: z500,t2m.")],
    train: Annotated[str, typer.Option(help="Training period: 1979-2015, or 2001-01:2003-08.")],
    valid: Annotated[str, typer.Option(help="Period to choose the epoch on: 2016; none keeps the last epoch.")],
    out: Annotated[Path, typer.Option(help="New folder of the run; the forecaster is in it at the end.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    levels: Annotated[str, typer.Option(help="Pressures in hPa: 500,850.")] = "",
    forcings: Annotated[str, typer.Option(help="Such as insolation,orography.")] = "",
    history: Annotated[int, typer.Option(help="Number of input states.", min=1)] = 4,
    horizon: Annotated[int, typer.Option(help="Number of forecast states.", min=1)] = 4,
    step: Annotated[str, typer.Option(help="6h, 1D, 1MS.")] = "6h",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training period. Default: 50.", min=1)] = None,
    max_steps: Annotated[int | None, typer.Option(help="Most steps, for a try.", min=1)] = None,
    start_from: Annotated[Path | None, typer.Option(help="Forecaster to fine-tune.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Train the default network, and print the Python that does the same.

    Example: simvp-climate train era5.zarr --variables z500,t2m --train 1979-2015 --valid 2016 --out run

    For other settings, change the Python. A run that was stopped continues with --resume. Exit status 0 when
    run/forecaster.safetensors is written, 2 if the data, an option or the folder are unsuitable, 75 after a signal.
    """
    with _usage_errors(train_forecaster):
        if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"--out {out} holds a run or other files: continue it by --resume, or name a new folder")
        names = _variables(variables, more)
        shape = {"levels": _pressures(levels), "forcings": _names(forcings)}
        shape = {name: value for name, value in shape.items() if value}
        shape |= {"history": history, "horizon": horizon, "step": step}
        task = sc.Task(names, **shape)
        settings = {"epochs": epochs, "max_steps": max_steps}
        settings = {name: value for name, value in settings.items() if value is not None}
        more_arguments = {"directory": str(out), "start_from": start_from and str(start_from), "device": device}
        more_arguments = {name: value for name, value in more_arguments.items() if value not in (None, "auto")}
        periods = _parse_period(train, "--train"), None if valid == "none" else _parse_period(valid, "--valid")
        fields = [*names, *(name for name in _names(forcings) if name not in _COMPUTED_FORCINGS)]
        if sc.is_first_process():
            print(_training_script(data, fields, names, shape, periods, settings, more_arguments), flush=True)
        ds = sc.open_sample(fields) if data == "sample" else sc.open_dataset(data, fields, levels=task.levels)
        options = [("--train", "--train"), ("--valid", "--valid")]
        train_ds, valid_ds = (
            period and _select_period(ds, *period, data, both) for period, both in zip(periods, options, strict=True)
        )
        config = sc.TrainConfig(**settings)
        forecaster = sc.train(task, train_ds, valid=valid_ds, config=config, **more_arguments)
    if sc.is_first_process():
        print(f"{out / 'forecaster.safetensors'}: {forecaster}")


def _training_script(
    data: str, fields: list[str], names: list[str], shape: dict, periods: Sequence[tuple[str, str] | None],
    settings: dict, more_arguments: dict,
) -> str:  # fmt: skip
    """Return the Python that the command `train` stands for."""
    levels = f", levels={shape['levels']}" if "levels" in shape else ""
    opened = f"sc.open_sample({fields})" if data == "sample" else f"sc.open_dataset({data!r}, {fields}{levels})"
    slices = [period and "ds.sel(time=slice({!r}, {!r}))".format(*period) for period in periods]
    listed = [", ".join(f"{name}={value!r}" for name, value in group.items()) for group in (shape, settings)]
    last = [f"    {name}={value!r}," for name, value in more_arguments.items()]
    lines = [
        "import simvp_climate as sc", "", f"ds = {opened}", "forecaster = sc.train(",
        f"    sc.Task({names}, {listed[0]}),", f"    {slices[0]},", f"    valid={slices[1]},",
        f"    config=sc.TrainConfig({listed[1]}),", *last, ")",
    ]  # fmt: skip
    return "\n".join([*lines, ""])


@app.command()
def forecast(
    forecaster: Annotated[Path, typer.Argument(help="A file written by Forecaster.save.")],
    data: Annotated[str, typer.Argument(help="Initial states: Zarr, NetCDF, a folder or pattern.")],
    out: Annotated[Path, typer.Option(help="forecast.nc, or forecast.zarr for many, written one by one.")],
    init: Annotated[list[str] | None, typer.Option(help="Initialization time, 2018-03-01T12; may be repeated.")] = None,
    every: Annotated[str, typer.Option(help="Or all times at multiples of this interval: 12h.")] = "",
    start: Annotated[str, typer.Option(help="First date of the data to use: 2018, 2018-06.")] = "",
    end: Annotated[str, typer.Option(help="Last date of the data to use.")] = "",
    horizon: Annotated[int | None, typer.Option(help="Number of steps. Default: that of the task.", min=1)] = None,
    members: Annotated[int | None, typer.Option(help="Members, for a network with noise.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise of members.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Forecast from data, by default once from the last time, and write a CF file.

    Example: simvp-climate forecast t2m.safetensors era5.zarr --every 12h --start 2018 --out hindcast.zarr

    A Zarr store is written forecast by forecast; the same command resumes it. Exit status 0 when the file is written,
    2 if a file cannot be opened or written, or the data are unsuitable.
    """
    if out.suffix == ".zarr" and not (init or every):
        raise typer.BadParameter(f"{out} needs initialization times: add --every 12h or --init", param_hint="--out")
    with _usage_errors(forecast):
        _check_out(out, "--out", (*_NETCDF, ".zarr"))
        if invalid := [time for time in init or [] if not re.match(r"-?\d{4}", time)]:
            raise ValueError(f"--init {invalid[0]} is not a date: write 2018-03-01T12")
        trained = sc.Forecaster.load(forecaster, device=device, compile=False)  # compiling would take longer
        ds = _select_period(_open_states(data, trained.task), start, end, data, ("--start", "--end"))
        if members is None and seed:
            raise ValueError(f"--seed {seed} would be ignored without --members 16")
        if members and getattr(trained.network, "noise_grid", None) is None:
            raise ValueError(f"--members {members} needs a network with noise, and that of {forecaster} has none")
        when = init or None, every or None, horizon
        if out.suffix == ".zarr":
            forecasts = trained.hindcast(ds, *when, members=members, seed=seed, store=out)
        else:
            forecasts = trained(ds, *when, members=members, seed=seed, progress=True)
            _write(out, forecasts.to_netcdf)
    print(f"{out}: {_describe_forecasts(forecasts, members)}")


@app.command()
def score(
    forecasts: Annotated[list[Path], typer.Argument(help="Forecasts: the one to judge, then others to compare.")],
    truth: Annotated[str, typer.Option(help="The analyses: Zarr, NetCDF, a folder or pattern.")],
    train: Annotated[str, typer.Option(help="Years to fit the other baselines on: 1979:2015.")] = "",
    regions: Annotated[str, typer.Option(help="Such as tropics,northern extratropics. Default: the globe.")] = "",
    by: Annotated[str, typer.Option(help="season or month.")] = "",
    skipna: Annotated[bool, typer.Option("--skipna", help="Skip cells with missing values.")] = False,
    allow_overlap: Annotated[bool, typer.Option("--allow-overlap", help="Verify times within --train.")] = False,
    out: Annotated[Path | None, typer.Option(help="File of the scores with intervals: scores.nc.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File of the table without intervals: scores.csv.")] = None,
) -> None:
    """Score forecasts beside baselines, and print each score with its 95 % confidence interval.

    Example: simvp-climate score forecast.zarr graphcast.zarr --truth era5.zarr --train 1979:2015 --out scores.nc

    Forecasts after the first have the names of their files, preceded by folders where two would be the same. Intervals
    are [lower, upper]; fewer than five verified blocks give none. Exit status 0 when the scores are printed, 2 if a
    file cannot be opened or written, or is unsuitable.
    """
    with _usage_errors(score):
        _check_out(out, "--out", _NETCDF)
        _check_out(csv, "--csv")
        first, *others = (_open_forecast(path) for path in forecasts)
        analyses = sc.open_dataset(truth, list(map(str, first.data_vars)), levels=_levels(first))
        training = None
        if train:
            training = _select_period(analyses, *_parse_period(train, "--train"), truth, ("--train", "--train"))
        reserved = [*_BASELINES, str(first.attrs.get("system", "forecast"))]
        baselines = dict(zip(_system_names(forecasts[1:], reserved), others, strict=True))
        scores = sc.score(
            first, analyses, train=training, baselines=baselines, regions=_names(regions) or None, by=by or None,
            skipna=skipna, allow_overlap=allow_overlap,
        )  # fmt: skip
        if out is not None:
            _write(out, scores.to_netcdf)
        if csv is not None:
            _write(csv, sc.score_table(scores, intervals=False).to_csv)
    _print_table(scores)
    print(f"{scores.attrs['verified_start']} to {scores.attrs['verified_end']}; intervals: {scores.attrs['intervals']}")


@app.command()
def plot(
    figure: Annotated[Figure, typer.Argument(help="Figure to draw.")],
    path: Annotated[Path, typer.Argument(help="Scores for scores and scorecard; otherwise a forecast.")],
    out: Annotated[Path, typer.Option(help="figure.png, .pdf, .svg; for animate film.gif or film.mp4.")],
    truth: Annotated[str, typer.Option(help="Analyses to compare with the forecast.")] = "",
    variable: Annotated[str, typer.Option(help="z500, of maps and scores z500,t2m. Default: all, if it can be.")] = "",
    level: Annotated[list[float] | None, typer.Option(help="500; may be repeated for maps and scores.")] = None,
    init: Annotated[str, typer.Option(help="Initialization time: 2018-03-01T12. Default: the last.")] = "",
    lead: Annotated[list[str] | None, typer.Option(help="3D; may be repeated. Default: last; animate: all.")] = None,
    units: Annotated[str, typer.Option(help="Units to draw in: K, or t2m=K,u10=kt.")] = "",
    region: Annotated[str, typer.Option(help="Part of maps: europe, or south,north,west,east in degrees.")] = "",
    climatology: Annotated[
        Path | None, typer.Option(help="Forecaster, or file of a climatology: maps show anomalies from it.")
    ] = None,
    contours: Annotated[str, typer.Option(help="Variable whose contours lie over maps, or none.")] = "",
    arrows: Annotated[str, typer.Option(help="Wind whose arrows lie over maps: u10,v10.")] = "",
    letters: Annotated[bool, typer.Option("--letters", help="Mark maps (a), (b), (c).")] = False,
    baseline: Annotated[str, typer.Option(help="Baseline of a scorecard. Default: persistence.")] = "",
    width: Annotated[float | None, typer.Option(help="Width of the figure in inches.", min=1)] = None,
    dpi: Annotated[int | None, typer.Option(help="Dots per inch, not for animate. Default: 150.", min=20)] = None,
) -> None:
    """Draw a forecast or scores, and print the name of the file.

    Example: simvp-climate plot maps forecast.nc --truth era5.zarr --variable z500 --lead 3D --out maps.png

    Options that the figure does not use are refused. Exit status 0 when the file is written, 2 if a file cannot be
    opened or written, or is unsuitable.
    """
    options = {name: value for name, value in locals().items() if name not in ("figure", "path", "out")}
    if unused := [f"--{name}" for name, value in options.items() if value and name not in _OPTIONS[figure]]:
        usable = ", ".join(f"--{name}" for name in _OPTIONS[figure])
        raise typer.BadParameter(f"{figure} does not use it, but {usable}: leave it out", param_hint=", ".join(unused))
    with _usage_errors(plot):
        _check_out(out, "--out", _ANIMATIONS if figure == "animate" else _PICTURES)
        if figure == "scores":
            drawn = sc.plot.scores(_open_scores(path, variable, level), width=width)
        elif figure == "scorecard":
            drawn = sc.plot.scorecard(_open_scores(path, variable, level), baseline or "persistence", width=width)
        else:
            given = {name: value for name, value in options.items() if value and name not in ("truth", "dpi")}
            arguments: dict[str, Any] = {
                name: _READERS[name](value) if name in _READERS else value for name, value in given.items()
            }
            if figure != "maps":
                single = [name for name in ("variable", "level") if name in arguments]
                arguments |= {name: _only(figure, name, arguments[name]) for name in single}
            if figure == "animate":
                arguments["path"] = out
            stored = _open_forecast(path)
            names = list(dict.fromkeys([*_names(variable), *_names(contours.removeprefix("none")), *_names(arrows)]))
            names = names if variable else list(map(str, stored.data_vars))
            analyses = sc.open_dataset(truth, names, levels=_levels(stored)) if truth else None
            drawn = getattr(sc.plot, figure)(stored, analyses, **arguments)
        if figure != "animate":
            _write(out, partial(drawn.savefig, dpi=dpi or 150))
    print(out)


@app.command()
def reproduce(
    forecast: Annotated[Path, typer.Argument(help="A forecast that this package wrote, NetCDF or Zarr.")],
    forecaster: Annotated[
        list[Path] | None,
        typer.Option(help="File of its forecaster; repeat it for an ensemble. Default: that it names."),
    ] = None,
    data: Annotated[str, typer.Option(help="Its initial states. Default: the data that the file names.")] = "",
    perturbations: Annotated[str, typer.Option(help="For a perturbed ensemble: the states of its perturbations.")] = "",
    tolerance: Annotated[float, typer.Option(help="Largest difference, in standard deviations of a variable.")] = 1e-3,
) -> None:
    """Repeat a forecast from its data, and compare.

    Example: python -m simvp_climate reproduce forecast.nc --forecaster t2m.safetensors --data era5.zarr

    The file names its forecaster and data by path and checksum: if they are still there, no option is needed.
    Exit status 0 if both agree within the tolerance, 1 if they differ, 2 if a file cannot be opened.
    """
    with _usage_errors(reproduce):
        stored = _open_forecast(forecast)
        sources = list(map(str, forecaster or [])) or str(stored.attrs.get("forecaster_source", "")).splitlines()
        if not sources:
            raise ValueError(f"{forecast} does not name its forecaster: add --forecaster")
        trained = [_load_forecaster(source) for source in sources]
        task = trained[0].task
        if not (source := data or stored.attrs.get("data_source", "")):
            raise ValueError(f"{forecast} does not name its data: add --data")
        dataset = _open_states(source, task)
        _check_time(dataset, source)
        states = _open_states(perturbations, task) if perturbations else None
    try:
        print(sc.reproduce(stored, trained, dataset, perturbations=states, tolerance=tolerance))
    except ValueError as error:
        print(error)
        raise typer.Exit(1) from error


def _parse_units(text: str) -> str | dict[str, str]:
    """Return "K" as it is, and "t2m=K,u10=kt" as units by variable."""
    pairs = [part.partition("=") for part in _names(text)]
    return {name.strip(): unit.strip() for name, _, unit in pairs} if "=" in text else text


def _parse_region(text: str) -> str | tuple[float, ...]:
    """Return the name of a region as it is, and "20,60,-30,40" as its edges."""
    if "," not in text:
        return text
    try:
        south, north, west, east = map(float, text.split(","))
    except ValueError as error:
        raise ValueError(f"--region {text} must be a name or south,north,west,east: write 20,60,-30,40") from error
    return south, north, west, east


def _open_climatology(path: Path) -> xr.Dataset:
    """Return the climatology of a forecaster, or that in a file."""
    if path.suffix == ".safetensors":
        return _load_forecaster(str(path)).climatology
    return _open_forecast(path)


def _only(figure: str, option: str, values: Sequence) -> Any:
    """Return the only value of an option, for a figure that shows one field."""
    if len(values) > 1:
        given = ",".join(f"{value:g}" if isinstance(value, float) else value for value in values)
        raise ValueError(f"--{option} {given}: {figure} shows one {option}")
    return values[0]


@contextmanager
def _usage_errors(command: Callable) -> Iterator[None]:
    """Turn errors that the user can fix into exit status 2 and a message, with the option for any `argument=` in it."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        message = f"not found: {error.args[0]}" if isinstance(error, KeyError) else str(error)
        arguments = re.findall(r"(?<![\w.-])([a-z_]+)=", message)
        names = dict.fromkeys({"init_times": "init"}.get(name, name) for name in arguments)
        known = inspect.signature(command).parameters
        if options := [f"--{name.replace('_', '-')}" for name in names if name in known]:
            message = f"{message.removesuffix('.')} (here: {', '.join(options)})"
        raise typer.BadParameter(message) from error


def _check_out(path: Path | None, option: str, endings: Sequence[str] = ()) -> None:
    """Raise an error if a file cannot be written, before the computation starts."""
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{option} {path}: the name must end in {' or '.join(endings)}")
    if path.suffix == ".zarr":  # a folder, created with its parents
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: the folder {path.parent} does not exist, create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder: name a file")


def _check_time(ds: xr.Dataset, source: str) -> None:
    if "time" not in ds.indexes:
        raise ValueError(f"{source} has dimensions {dict(ds.sizes)}, no time: use a dataset of analyses")


def _select_period(ds: xr.Dataset, start: str, end: str, source: str, options: tuple[str, str]) -> xr.Dataset:
    """Return the times from `start` to `end`, both included; an empty date means no limit."""
    _check_time(ds, source)
    if not start and not end:
        return ds
    times = ds.indexes["time"]
    if not times.is_monotonic_increasing:
        raise ValueError(f"the times of {source} are not in ascending order: write ds.sortby('time') to a new file")
    for option, date in zip(options, (start, end), strict=True):
        try:
            ds.sel(time=slice(date or None, None))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{option} {date} is not a date: write 2018, 2018-06 or 2018-06-01T12") from error
    selected = ds.sel(time=slice(start or None, end or None))
    if not selected.sizes["time"]:
        period = f"{start or 'its first'} to {end or 'its last'}"
        raise ValueError(f"{source} has no time from {period}, only {times[0]} to {times[-1]}: change "
                         f"{' and '.join(dict.fromkeys(options))}")  # fmt: skip
    return selected


def _system_names(paths: Sequence[Path], reserved: Sequence[str]) -> list[str]:
    """Return unique names: the name of each file without suffix, preceded by as many folders as needed."""
    parts = [Path(os.path.abspath(path)).with_suffix("").parts for path in paths]
    if repeated := [str(path) for path, file_parts in zip(paths, parts, strict=True) if parts.count(file_parts) > 1]:
        raise ValueError(f"{' and '.join(repeated)} have the same name: pass each forecast once, under its own name")
    names = [["/".join(file_parts[-length:]) for length in range(1, len(file_parts) + 1)] for file_parts in parts]
    # the name of a skill has underscores for the spaces in names of systems
    count = Counter(name.replace(" ", "_") for name in itertools.chain(reserved, *names))
    return [next((name for name in longer if count[name.replace(" ", "_")] == 1), longer[-1]) for longer in names]


def _print_table(scores: xr.Dataset, metrics: list[str] | None = None) -> None:
    """Print scores with their intervals, and what the mark in the table means."""
    text = sc.score_table(scores, metrics).to_string()
    print(text + ("\n! worse than the best baseline" if " !" in text else ""))


def _describe_forecasts(forecasts: xr.Dataset, members: int | None) -> str:
    """Return how many forecasts there are, of what, and from when, as text."""
    times = [f"{time:%Y-%m-%dT%H:%M}" for time in forecasts.indexes["init_time"][[0, -1]]]
    period = f"from {times[0]}" if times[0] == times[1] else f"from {times[0]} to {times[1]}"
    counts = {"forecast": len(forecasts["init_time"]), "lead": forecasts.sizes["lead_time"], "member": members}
    texts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    texts[0] += f" of {', '.join(map(str, forecasts.data_vars))}"
    return f"{', '.join(texts)}, {period}"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _variables(options: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    """Return the variables of "--variables z500,t2m"; also of "--variables z500 t2m", where `more` are the others."""
    if more and not options:
        raise ValueError(f"{more[0]!r} belongs to no option: name variables by --variables z500,t2m")
    return [name for text in [*(options or []), *(more or [])] for name in _names(text)]


_READERS: dict[str, Callable] = {
    "variable": _names,
    "units": _parse_units,
    "region": _parse_region,
    "climatology": _open_climatology,
    "contours": lambda text: text != "none" and text,
    "arrows": lambda text: tuple(_names(text)),
}  # of the options of `plot` that are not taken as they are


def _pressures(levels: str) -> list[float] | None:
    """Return the levels of an option in hPa."""
    try:
        return list(map(float, _names(levels))) or None
    except ValueError as error:
        raise ValueError(f"--levels {levels} must be pressures in hPa: write 500,850") from error


def _parse_period(text: str, option: str) -> tuple[str, str]:
    """Return first and last date of "1979:2015", "2001-01:2003-08", "1979-2015" or "2016"."""
    if years := re.fullmatch(r"(\d{4})-(\d{4})", text):
        return years[1], years[2]
    first, colon, last = text.partition(":")
    if not text or ":" in last:
        raise ValueError(f"{option} {text} is not a period: write first:last, 1979:2015")
    return first, last if colon else first


def _levels(dataset: xr.Dataset) -> list[float] | None:
    return dataset["level"].values.tolist() if "level" in dataset.dims else None


def _check(path: str, names: list[str], levels: str, history: int, horizon: int, step: str) -> Any:
    """Return the report on the data; variables and step that are empty come from the data."""
    pressures = _pressures(levels)
    if not names or not step:
        report = sc.check(path, sc.Task(names, pressures, history, horizon) if names else None)
        names = names or [variable["name"] for variable in report.summary.get("variables", [])]
        step = step or report.summary.get("time", {}).get("step") or "6h"
        if not names or "grid" not in report.summary:
            return report
    return sc.check(path, sc.Task(names, pressures, history, horizon, step))


def _open_states(source: str, task: sc.Task) -> xr.Dataset:
    names = list(task.read_variables)
    return sc.open_sample(names) if source == "open_sample()" else sc.open_dataset(source, names, levels=task.levels)


def _load_forecaster(source: str) -> sc.Forecaster:
    """Load a forecaster from a file, or the pretrained one that a forecast names."""
    if source.startswith("open_pretrained("):
        return sc.open_pretrained(source.removeprefix("open_pretrained(").removesuffix(")"))
    return sc.Forecaster.load(source, compile=False)


def _open_forecast(path: Path) -> xr.Dataset:
    """Open a forecast written by this package or WeatherBench 2, or a climatology."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    stored = xr.open_dataset(path, decode_timedelta=True, engine="zarr" if path.is_dir() else "netcdf4")
    if "prediction_timedelta" in stored.dims:
        return sc.open_dataset(stored, list(map(str, stored.data_vars)))
    return stored


def _open_scores(path: Path, variable: str, levels: Sequence[float] | None) -> xr.Dataset:
    """Open the scores of all or some variables and levels, written by the command `score`."""
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        if not {"system", "metric", "lead_time"} <= {*stored.dims}:
            raise ValueError(f"{path} has dimensions {dict(stored.sizes)}, no scores: write them with simvp-climate "
                             "score --out scores.nc")  # fmt: skip
        scores = stored.load()
    scores = scores.set_coords([name for name in scores.variables if str(name).endswith(("_low", "_high"))])
    names = _names(variable)
    if missing := [name for name in names if name not in scores.data_vars]:
        raise ValueError(f"--variable {missing[0]} is not in {path}: it has {', '.join(map(str, scores.data_vars))}")
    scores = scores[names] if names else scores
    if levels:
        available = _levels(scores) or []
        if missing := [f"{level:g}" for level in levels if level not in available]:
            raise ValueError(f"--level {missing[0]} is not in {path}: it has {available or 'no levels'}")
        scores = scores.sel(level=list(levels))
    return scores


def _write(path: Path, write: Callable) -> None:
    """Write a file under a temporary name and rename it, so that `path` is never incomplete."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _skill_summary(scores: xr.Dataset) -> str:
    """Return sentences on the leads at which the first system has a lower RMSE than persistence and climatology."""
    rmse = scores.sel(metric="rmse")
    days = pd.to_timedelta(rmse["lead_time"].values) / pd.Timedelta("1D")
    sentences = []
    for variable, values in rmse.data_vars.items():
        forecast = values.isel(system=0)
        better = (forecast < values.sel(system="persistence")).values
        leads = "at every lead" if better.all() else f"at {better.sum()} of {better.size} leads"
        # the leads before the first at which climatology is better
        count = (forecast < values.sel(system="climatology")).values.cumprod().sum()
        day = f"up to day {days[count - 1]:g}" if count else "at no lead"
        sentences.append(f"{variable} beats persistence {leads}; beats climatology {day}")
    return ". ".join(sentences)


if __name__ == "__main__":
    app(prog_name="simvp-climate")
