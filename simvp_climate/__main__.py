"""The command line, `simvp-climate` or `python -m simvp_climate`. Thin: it uses the public API only."""

import html
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

# chosen on the validation months of the sample, for five minutes on two cores
MODEL = dict(hidden_space=16, hidden_time=96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0)
TRAINING = dict(epochs=2, batch_size=12, learning_rate=3e-3, ema_decay=0.985, validation_windows=64)

_NETCDF, _FILMS = (".nc",), (".gif", ".mp4")
_PICTURES = (".png", ".pdf", ".svg", ".eps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


class Kind(StrEnum):
    """What `plot` draws."""

    maps = "maps"
    scores = "scores"
    scorecard = "scorecard"
    hovmoller = "hovmoller"
    film = "film"


# the options that each kind of picture takes; any other would be ignored, and is refused
_USED = {
    Kind.maps: ("truth", "variable", "level", "init", "lead", "dpi"),
    Kind.hovmoller: ("truth", "variable", "level", "init", "dpi"),
    Kind.film: ("truth", "variable", "level", "init", "lead"),
    Kind.scores: ("variable", "level", "dpi"),
    Kind.scorecard: ("variable", "level", "baseline", "dpi"),
}


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"simvp-climate {sc.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Learned weather and climate forecasts on latitude-longitude grids.

    Example: simvp-climate check era5.zarr --variables z500,t2m

    Each command says its options, an example and its exit status: simvp-climate plot --help

    Exit status 0 when the command did what it says; 2 if an option, a file or the data do not fit, and a message says
    which; 1 if check found errors or reproduce a difference, else for an error that was not foreseen.
    """


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    months: Annotated[int, typer.Option(help="Months to train on, up to 32; fewer are faster.", min=1, max=32)] = 32,
) -> None:
    """Train on the bundled sample, forecast months it never saw, score and draw.

    Example: python -m simvp_climate demo --out demo

    The sample is a simulated climate, not observations. Climatology is that of all months before the validation
    period, however many are trained on. Exit status 0 when all files are written, 2 if the folder or the device is
    not to be had.
    """
    ours = out / "forecaster.safetensors"
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and (not ours.exists() or (out / "training.pt").exists()):  # the latter: a run of train()
        raise typer.BadParameter(f"{out} exists and is not a folder of this demo: choose another", param_hint="--out")
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    with _explained(demo):
        out.mkdir(parents=True, exist_ok=True)
        try:
            _train_and_score(out, device, months)
        finally:
            for folder in new:  # those that are still empty, since something went wrong
                with suppress(OSError):
                    folder.rmdir()


def _train_and_score(out: Path, device: str, months: int) -> None:
    """Do what the demo does, and write it into a folder."""
    ds = sc.open_sample()
    before = ds.sel(time=slice(None, "2003-08"))
    train = before.sel(time=slice(pd.Timestamp("2003-09-01") - pd.DateOffset(months=months), None))
    valid, test = ds.sel(time=slice("2003-09", "2003-12")), ds.sel(time=slice("2004-01", "2004-04"))

    task = sc.Task(["z500", "t2m"], history=4, horizon=4)
    forecaster = sc.train(
        task, train, valid=valid, model=sc.SimVPv2Config(**MODEL), config=sc.TrainConfig(**TRAINING), device=device
    )
    forecast = forecaster(test, every="12h", horizon=20)
    # of all months before, also where few are trained on: one of August alone is easily beaten in January
    scores = sc.score(forecast, test, climatology=sc.baselines.climatology(before))

    forecaster.save(out / "forecaster.safetensors")
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

    Exit status 0 if there are no errors, 1 if there are, 2 if the data cannot be opened or the report not be written.
    """
    with _explained(check):
        _check_out(report, "--html")
        found = _check(path, variables, levels, history, horizon, step)
    print(found)
    if report is not None:
        page = f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>check {html.escape(path)}</title></head>"
        text = f"{page}<body style='font-family:sans-serif'>{found._repr_html_()}</body></html>"
        with _explained(check):
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
    a file cannot be opened or written, or nothing can be forecast from the data.
    """
    if out.suffix == ".zarr" and not (init or every):
        raise typer.BadParameter("say from which times: --every 12h, or --init", param_hint="--out")
    with _explained(forecast):
        _check_out(out, "--out", (*_NETCDF, ".zarr"))
        if wrong := [one for one in init or [] if not re.match(r"-?\d{4}", one)]:
            raise ValueError(f"--init: {wrong[0]!r} is no date, write 2018-03-01T12")
        trained = sc.Forecaster.load(forecaster, device=device)
        inputs = [*trained.task.variables, *trained.task.inputs]
        ds = sc.open_dataset(data, inputs, levels=trained.task.levels)
        ds = _period(ds, start, end, data, ("--start", "--end"))
        if out.suffix == ".zarr":
            found = trained.hindcast(ds, init or None, every or None, horizon, store=out)
        else:
            found = trained(ds, init or None, every or None, horizon)
            _write(out, found.to_netcdf)
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
    skipna: Annotated[bool, typer.Option("--skipna", help="Leave out cells where a value is missing.")] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Although the years of --train hold verified times.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the scores here, scores.nc, with intervals.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here, scores.csv, without intervals.")] = None,
) -> None:
    """Score forecasts beside persistence and climatology, and print each score with its 95 % interval.

    Example: simvp-climate score forecast.zarr graphcast.zarr --truth era5.zarr --train 1979:2015 --out scores.nc

    Forecasts after the first go by the names of their files; where two would be the same, also by those of their
    folders: x/forecast. Intervals are [lower, upper]; there is none where fewer than five blocks were verified.

    Exit status 0 when they are scored, 2 if a file cannot be opened or written, or does not fit.
    """
    with _explained(score):
        _check_out(out, "--out", _NETCDF)
        _check_out(csv, "--csv")
        first, *others = (_open_forecast(path) for path in forecasts)
        names = list(map(str, first.data_vars))
        levels = first["level"].values.tolist() if "level" in first.dims else None
        analyses = sc.open_dataset(truth, names, levels=levels)
        climatology, baselines = None, {}
        if train:
            years = train.split(":")
            if len(years) != 2:
                raise ValueError(f"--train {train} is no period: write first:last, for example 1979:2015")
            training = _period(analyses, years[0], years[1], truth, ("--train", "--train"))
            climatology = sc.baselines.climatology(training)
            baselines["damped persistence"] = sc.baselines.fit_damped_persistence(
                training, climatology, first["lead_time"]
            )
        taken = ["persistence", "climatology", *baselines, str(first.attrs.get("system", "forecast"))]
        baselines |= dict(zip(_names_of(forecasts[1:], taken), others, strict=True))
        scores = sc.score(
            first,
            analyses,
            climatology,
            baselines=baselines,
            regions=[name.strip() for name in regions.split(",") if name.strip()] or None,
            by=by or None,
            skipna=skipna,
            allow_overlap=allow_overlap,
        )
        if out is not None:
            _write(out, scores.to_netcdf)
        if csv is not None:
            _write(csv, sc.score_table(scores).to_csv)
    print(_with_intervals(scores).to_string())
    print(f"{scores.attrs['verified_start']} to {scores.attrs['verified_end']}; intervals: {scores.attrs['intervals']}")


@app.command()
def plot(
    kind: Annotated[Kind, typer.Argument(help="What to draw.")],
    path: Annotated[Path, typer.Argument(help="A forecast for maps, film and hovmoller; scores for the others.")],
    out: Annotated[Path, typer.Option(help="figure.png, .pdf, .svg; of a film film.gif or film.mp4.")],
    truth: Annotated[str, typer.Option(help="Analyses to draw beside a forecast.")] = "",
    variable: Annotated[str, typer.Option(help="Default: all, or the only one.")] = "",
    level: Annotated[
        list[float] | None,
        typer.Option(help="500; may be repeated for maps and scores. Default: all, or the only one."),
    ] = None,
    init: Annotated[str, typer.Option(help="Which forecast: 2018-03-01T12. Default: the last one.")] = "",
    lead: Annotated[
        list[str] | None, typer.Option(help="3D or 12h; may be repeated. Default: the last, of a film all.")
    ] = None,
    baseline: Annotated[str, typer.Option(help="What a scorecard compares with. Default: persistence.")] = "",
    dpi: Annotated[int | None, typer.Option(help="Dots per inch, not of a film. Default: 150.", min=20)] = None,
) -> None:
    """Draw a forecast or scores, and print the name of the picture.

    Example: simvp-climate plot maps forecast.nc --truth era5.zarr --variable z500 --lead 3D --out maps.png

    An option that the kind of picture has no use for is refused. Exit status 0 when the picture is written, 2 if a
    file cannot be opened or written, or does not hold what is drawn.
    """
    options = dict(truth=truth, variable=variable, level=level, init=init, lead=lead, baseline=baseline, dpi=dpi)
    if ignored := [f"--{name}" for name, value in options.items() if value and name not in _USED[kind]]:
        takes = ", ".join(f"--{name}" for name in _USED[kind])
        words = f"{kind.value} would ignore it, leave it out; it takes {takes}"
        raise typer.BadParameter(words, param_hint=", ".join(ignored))
    with _explained(plot):
        _check_out(out, "--out", _FILMS if kind is Kind.film else _PICTURES)
        if kind in (Kind.scores, Kind.scorecard):
            shown = _open_scores(path, variable, level)
            known = list(map(str, shown["system"].values))
            if baseline and baseline not in known:
                raise ValueError(f"--baseline {baseline} is not in {path}: it has {', '.join(known)}")
            figure = (
                sc.plot.scores(shown) if kind is Kind.scores else sc.plot.scorecard(shown, baseline or "persistence")
            )
        else:
            found = _open_forecast(path)
            if kind is not Kind.hovmoller and not {"init_time", "lead_time"} <= {*found.dims, *found.coords}:
                raise ValueError(f"{path} has dimensions {dict(found.sizes)}: it is no forecast, with init_time and "
                                 "lead_time")  # fmt: skip
            names = list(map(str, found.data_vars))
            _check_variable(variable, names, path)
            levels = found["level"].values.tolist() if "level" in found.dims else None
            analyses = sc.open_dataset(truth, [variable] if variable else names, levels=levels) if truth else None
            chosen, start = variable or None, init or None
            if kind is Kind.maps:
                figure = sc.plot.maps(
                    found, analyses, variable=chosen, level=level or None, init=start, lead=lead or None
                )
            else:
                if level and len(level) > 1:
                    raise ValueError(f"--level {' --level '.join(f'{one:g}' for one in level)}: {kind.value} shows one")
                one = level[0] if level else None
                if kind is Kind.hovmoller:
                    figure = sc.plot.hovmoller(found, analyses, variable=chosen, level=one, init=start)
                else:
                    sc.plot.animate(
                        found, analyses, variable=chosen, level=one, init=start, lead=lead or None, path=out
                    )
        if kind is not Kind.film:
            _write(out, lambda unfinished: figure.savefig(unfinished, dpi=dpi or 150))
    print(out)


@app.command()
def reproduce(
    forecast: Annotated[Path, typer.Argument(help="A forecast, NetCDF or Zarr, as written by this package.")],
    forecaster: Annotated[
        list[Path], typer.Option(help="The file of the forecaster that made it; of an ensemble repeated for each.")
    ],
    data: Annotated[str, typer.Option(help="The data that it started from. Default: what the file names.")] = "",
    perturbations: Annotated[str, typer.Option(help="Of a perturbed ensemble: the states it was perturbed from.")] = "",
    tolerance: Annotated[float, typer.Option(help="In standard deviations of a variable.")] = 1e-3,
) -> None:
    """Make a forecast again from its data, and compare.

    Example: python -m simvp_climate reproduce forecast.nc --forecaster t2m.safetensors --data era5.zarr

    Exit status 0 if it is the same within the tolerance, 1 if it is not, 2 if a file cannot be opened.
    """
    with _explained(reproduce):
        stored = _open_forecast(forecast)
        trained = [sc.Forecaster.load(path) for path in forecaster]
        task = trained[0].task
        source = data or stored.attrs.get("data_source", "")
        if not source:
            raise ValueError(f"{forecast} does not name its data: give --data")
        inputs = [*task.variables, *task.inputs]
        if source == "open_sample()":
            dataset = sc.open_sample(inputs)
        else:
            dataset = sc.open_dataset(source, inputs, levels=task.levels)
        _check_time(dataset, source)
        states = sc.open_dataset(perturbations, inputs, levels=task.levels) if perturbations else None
    try:
        print(sc.reproduce(stored, trained, dataset, perturbations=states, tolerance=tolerance))
    except ValueError as error:
        print(error)
        raise typer.Exit(1) from error


@contextmanager
def _explained(command: Callable) -> Iterator[None]:
    """Make of an error that can be mended one message and status 2.

    What the package calls by the name of a Python argument is followed by the option of this command for it.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        words = f"not found: {error.args[0]}" if isinstance(error, KeyError) else str(error)
        named = [{"init_times": "init"}.get(name, name) for name in re.findall(r"(?<![\w.-])([a-z_]+)=", words)]
        own = [name for name in dict.fromkeys(named) if name in inspect.signature(command).parameters]
        if own:
            words = f"{words.removesuffix('.')} (here: {', '.join('--' + name.replace('_', '-') for name in own)})"
        raise typer.BadParameter(words) from error


def _check_out(path: Path | None, option: str, endings: Sequence[str] = ()) -> None:
    """Raise an error if a file cannot be written, before the work that it is for."""
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{option} {path}: the name ends in {', '.join(endings[:-1]) + ' or ' * (len(endings) > 1)}"
                         f"{endings[-1]}")  # fmt: skip
    if path.suffix == ".zarr":  # a folder, which is made with those above it
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: there is no folder {path.parent}, make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder: name a file in it")


def _check_time(ds: xr.Dataset, source: str) -> None:
    if "time" not in ds.indexes:
        raise ValueError(f"{source} has dimensions {dict(ds.sizes)} and no time: give analyses")


def _period(ds: xr.Dataset, start: str, end: str, source: str, options: tuple[str, str]) -> xr.Dataset:
    """Return the times between two dates, which are included; an empty one leaves its side open."""
    _check_time(ds, source)
    times = ds.indexes["time"]
    if not start and not end:
        return ds
    if not times.is_monotonic_increasing:
        raise ValueError(f"the times of {source} are not in order: sort them first, ds.sortby('time')")
    for option, date in zip(options, (start, end), strict=True):
        try:
            ds.sel(time=slice(date or None, None))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{option}: {date!r} is no date, write 2018, 2018-06 or 2018-06-01T12") from error
    found = ds.sel(time=slice(start or None, end or None))
    if not found.sizes["time"]:
        raise ValueError(f"{source} has no time from {start or 'its first'} to {end or 'its last'}: it has {times[0]} "
                         f"to {times[-1]}, choose other dates for {' and '.join(dict.fromkeys(options))}")  # fmt: skip
    return found


def _names_of(paths: Sequence[Path], taken: Sequence[str]) -> list[str]:
    """Return a name for each file, its own without suffix, after as many folders as tell it from all others."""
    parts = [Path(os.path.abspath(path)).with_suffix("").parts for path in paths]
    if twice := [str(path) for path, one in zip(paths, parts, strict=True) if parts.count(one) > 1]:
        raise ValueError(f"{' and '.join(twice)} have one name: give each forecast once, under a name of its own")
    names = []
    for one in parts:
        for length in range(1, len(one) + 1):
            name = "/".join(one[-length:])
            # blanks and underscores are the same in the names of skills
            alike = sum("/".join(other[-length:]).replace(" ", "_") == name.replace(" ", "_") for other in parts)
            if alike == 1 and name.replace(" ", "_") not in [other.replace(" ", "_") for other in taken]:
                break
        names.append(name)
    return names


def _with_intervals(scores: xr.Dataset) -> pd.DataFrame:
    """Return the table of scores in words, a row for each system, each score with the ends of its interval."""
    table = sc.score_table(scores)
    ends = []
    for word in ("low", "high"):
        edges = {name: scores[f"{name}_{word}"].assign_attrs(values.attrs) for name, values in scores.data_vars.items()}
        ends.append(sc.score_table(scores.assign(edges)).reindex(index=table.index, columns=table.columns))
    cells = np.vectorize(_cell, otypes=[object])(table, *ends)
    words: pd.DataFrame = pd.DataFrame(cells, table.index, table.columns).stack("system", future_stack=True)
    return words.fillna("-")


def _cell(value: float, low: float, high: float) -> str:
    """Write a score and its interval, with four digits."""
    texts = [f"{one:.0f}" if abs(one) >= 999.5 else f"{one:#.4g}" for one in (value, low, high)]
    if not np.isfinite(value):
        return "-"
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if np.isfinite([low, high]).all() else texts[0]


def _check(path: str, variables: str, levels: str, history: int, horizon: int, step: str) -> Any:
    """Check as the options say; what they leave open comes from the data."""
    names = [name.strip() for name in variables.split(",") if name.strip()]
    try:
        pressures = [float(level) for level in levels.split(",") if level.strip()] or None
    except ValueError as error:
        raise ValueError(f"--levels {levels} are no pressures: write hPa, 500,850") from error
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


def _open_scores(path: Path, variable: str, levels: Sequence[float] | None) -> xr.Dataset:
    """Open scores as `score` writes them, all of them or those of a variable and of levels."""
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        if not {"system", "metric", "lead_time"} <= {*stored.dims}:
            raise ValueError(f"{path} has dimensions {dict(stored.sizes)}: it holds no scores, as simvp-climate score "
                             "--out writes them")  # fmt: skip
        scores = stored.load()
    ends = [name for name in scores.variables if str(name).endswith(("_low", "_high"))]
    scores = scores.set_coords(ends)
    _check_variable(variable, list(map(str, scores.data_vars)), path)
    if variable:
        scores = scores[[variable]]
    if levels:
        known = scores["level"].values.tolist() if "level" in scores.dims else []
        if missing := [f"{one:g}" for one in levels if one not in known]:
            raise ValueError(f"--level {missing[0]} is not in {path}: it has {known or 'no levels'}")
        scores = scores.sel(level=list(levels))
    return scores


def _check_variable(variable: str, names: Sequence[str], path: Path) -> None:
    if variable and variable not in names:
        raise ValueError(f"--variable {variable} is not in {path}: it has {', '.join(names)}")


def _write(path: Path, write: Callable) -> None:
    """Write under a temporary name and rename: what has the final name is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
