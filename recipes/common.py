"""The options and the steps that all recipes share.

A recipe states its task, model and schedule and calls `run`, which opens the data, trains up to one date, chooses the
epoch on the period up to a second date, forecasts the rest, scores it beside persistence and climatology, and draws
it. To write your own recipe, copy one of them and this file, and change them.
"""

import simvp_climate as sc

sc.exit_on_signals()  # a job that is stopped before the training begins is requeued too

# ruff: noqa: E402
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr

SAMPLE_PERIODS = ("2003-08", "2003-12")  # last months of training and of validation
COMPUTED_FORCINGS = {"insolation", "time_of_day", "time_of_year", "coordinates"}

Data = Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or a pattern. Some recipes default to the sample.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the run and its results. Default: the recipe's name.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training period. Default: the recipe's.", min=1)]
MaxSteps = Annotated[int | None, typer.Option(help="Most steps of training, for a try.", min=1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out, complete or not.")]
TrainUntil = Annotated[str, typer.Option(help="Last date to train on. Default: 2015, as WeatherBench.")]
ValidUntil = Annotated[str, typer.Option(help="Last date to choose the epoch on. Default: 2016.")]

Evaluate = Callable[[sc.Forecaster, xr.Dataset, xr.Dataset, Path], None]  # (forecaster, train, test, out)


def run(
    task: sc.Task,
    model: sc.SimVPSphereConfig | sc.SimVPv2Config,
    config: sc.TrainConfig,
    evaluate: Evaluate,
    *,
    sample: bool = False,
    start: str | None = None,
    small: sc.SimVPSphereConfig | sc.SimVPv2Config | None = None,
) -> None:
    """Run a recipe from the command line.

    Parameters
    ----------
    task, model, config
        As in `sc.train`. `--epochs` and `--max-steps` replace those of `config`.
    evaluate
        Function of the forecaster, the training and the test period, and the folder; it forecasts, scores and draws.
    sample
        Whether the bundled sample is used without `--data`.
    start
        First date to train on, if `--train-until` is not given.
    small
        The model that `--small` trains instead.
    """

    def main(
        data: Data = "",
        out: Out = None,
        epochs: Epochs = None,
        max_steps: MaxSteps = None,
        device: Device = "auto",
        resume: Resume = False,
        small_model: Annotated[
            bool, typer.Option("--small", help="Train a small network, to try the script.", hidden=small is None)
        ] = False,
        train_until: TrainUntil = "",
        valid_until: ValidUntil = "",
    ) -> None:
        """Train until a date, choose the epoch on the period until a second date, forecast and score the rest."""
        if small_model and small is None:
            raise typer.BadParameter("this recipe has no small network", param_hint="--small")
        folder = check_folder(out, resume)
        periods = open_periods(task, data, train_until, valid_until, SAMPLE_PERIODS if sample else None, start)
        train, valid, test = periods
        forecaster = sc.train(
            task,
            train,
            valid=valid,
            model=small if small_model else model,
            config=with_length(config, epochs, max_steps),
            directory=folder,
            device=device,
        )
        if sc.is_first_process():  # with torchrun or srun, one process evaluates
            evaluate(forecaster, train, test, folder)

    launch(main)


def evaluate(
    forecaster: sc.Forecaster,
    train: xr.Dataset,
    test: xr.Dataset,
    out: Path,
    *,
    horizon: int,
    variable: str,
    vectors: dict[str, tuple[str, str]] | None = None,
    scorecard: bool = False,
) -> None:
    """Forecast every 12 h, score beside all baselines, and write forecast.nc, scores.nc and pictures."""
    forecast = forecaster(test, every="12h", horizon=horizon)
    scores = sc.score(forecast, test, train=train, vectors=vectors)
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    if scorecard:
        sc.plot.scorecard(scores).savefig(out / "scorecard.png")
    else:
        sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, test, variable=variable, lead="3D").savefig(out / "maps.png")
    print_scores(scores)


def print_scores(scores: xr.Dataset, metrics: str | list[str] | None = None, leads: Sequence | None = None) -> None:
    """Print a table of scores with 95 % intervals; "!" marks what is worse than the best baseline."""
    text = sc.score_table(scores, metrics, leads).to_string()
    print(text + ("\n! worse than the best baseline" if " !" in text else ""))


def check_folder(out: Path | None, resume: bool, results: Sequence[str] = ("forecaster.safetensors",)) -> Path:
    """Return the folder of the run; refuse one with a complete run or other files, unless `--resume` is given.

    A stopped run resumes without `--resume` too. `results` are the files of a complete run.
    """
    folder = out or Path(Path(sys.argv[0]).stem)
    stopped = any(folder.glob("**/training.pt")) and not all((folder / name).exists() for name in results)
    if not stopped and not resume and sc.is_first_process() and folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter(f"{folder} holds a run or other files: continue it by --resume, or change --out")
    return folder


def open_periods(
    task: sc.Task,
    data: str,
    train_until: str,
    valid_until: str,
    sample: tuple[str, str] | None = None,
    start: str | None = None,
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the training, validation and test periods of the variables of a task.

    Without `data` the bundled sample is opened and split after the months `sample`.
    """
    fields = [name for name in task.forcings if name not in COMPUTED_FORCINGS]
    names = [*task.all_variables, *fields]
    if data:
        ds = sc.open_dataset(data, names, levels=task.levels)
        # those that recipes/simulate.py makes say where to split them
        train_until = train_until or ds.attrs.get("train_until", "")
        valid_until = valid_until or ds.attrs.get("valid_until", "")
    elif sample:
        ds = sc.open_sample(names)
        train_until, valid_until = train_until or sample[0], valid_until or sample[1]
    else:
        raise typer.BadParameter(
            f"give data with {', '.join(names)}; simvp-climate check PATH lists what is wrong with them. "
            "python recipes/simulate.py makes some for a try; recipes/t2m.py runs on the bundled sample",
            param_hint="--data",
        )
    if start and not train_until:
        ds = ds.sel(time=slice(start, None))
    return sc.split(ds, train_until or None, valid_until or None)


def with_length(config: sc.TrainConfig, epochs: int | None, max_steps: int | None) -> sc.TrainConfig:
    """Return the settings with another number of epochs and steps, where they are given."""
    return dataclasses.replace(config, epochs=epochs or config.epochs, max_steps=max_steps)


def launch(main: Callable[..., None]) -> None:
    """Run a function as a command line; print errors about data and settings in one line and exit with status 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except (OSError, ValueError, FloatingPointError) as error:  # remove this clause to see the traceback
        message = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in message:
            message += ". To train on from the result: recipes/finetune.py --pretrained forecaster.safetensors"
        print(message, file=sys.stderr)
        sys.exit(2)
