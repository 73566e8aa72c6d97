"""Every recipe runs from data to pictures, on small data that have all it needs."""

import dataclasses
import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import simvp_climate as sc

ROOT = Path(__file__).resolve().parents[1]
SIMULATE = runpy.run_path(str(ROOT / "recipes" / "simulate.py"))
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.py") if path.stem not in ("common", "simulate"))
IN_CI = ("t2m",)
RESULTS = {"forecaster.safetensors", "training_curve.csv", "scores.nc", "scores.png", "training.pt"}
EXTRA = {
    "multivariate": {"forecast.nc", "maps.png", "scorecard.png"},
    "sst": {"forecast.nc", "maps.png", "anomalies.png", "hovmoller.png", "nino34.png"},
    "weatherbench": {"hindcast.zarr", "scorecard.png", "spectra.png"},
    "finetune": {"forecast.nc", "scorecard.png"},
}
ABSENT = {"multivariate": {"scores.png"}}
OPTIONS = {
    "sst": ["--train-until", "1990", "--valid-until", "1994"],
    "weatherbench": ["--train-until", "2002-12", "--valid-until", "2003-01-15", "--small"],
    "tp": ["--train-until", "2002-12", "--valid-until", "2003-01-10"],
    "finetune": [],  # on the sample
    "crps": ["--train-until", "2002-12", "--valid-until", "2003-01-10", "--members", "3"],
    # a whole year for validation: only then does the choice by a rollout keep a run in range
    "climate": ["--train-until", "2001-12", "--valid-until", "2002", "--years", "1"],
    "ensemble": ["--train-until", "2002-12", "--valid-until", "2003-01-17", "--seeds", "2", "--members", "2"],
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    # coarser and shorter than what the command writes
    SIMULATE["write_weather"](folder / "weather.zarr", "2002-01", "2003-01", cells=4)
    SIMULATE["write_sst"](folder / "sst.nc")
    return folder


def run(recipe, out, *options, processes=1):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes > 1 else ["-W", "error"]), str(recipe), "--out", str(out)]
    environment = {"MPLBACKEND": "agg", "HOME": str(out.parent), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    return subprocess.run([*command, *map(str, options)], env=environment, capture_output=True, text=True)


def options_of(recipe, stores):
    names = {"sst": "sst.nc", "climate": "two-years.zarr"}
    data = [] if recipe.stem == "finetune" else ["--data", stores / names.get(recipe.stem, "weather.zarr")]
    if recipe.stem == "climate" and not data[1].exists():
        SIMULATE["write_weather"](data[1], "2001-01", "2003-01", cells=4)
    dates = OPTIONS.get(recipe.stem, ["--train-until", "2002-12", "--valid-until", "2003-01-15"])
    return [*data, *dates, "--epochs", 1, "--device", "cpu"]


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, id=path.stem, marks=() if path.stem in IN_CI else pytest.mark.slow) for path in RECIPES],
)
def test_runs_from_data_to_pictures(recipe, stores, tmp_path):
    done = run(recipe, tmp_path / "out", *options_of(recipe, stores))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    if recipe.stem == "ensemble":
        assert {"seed-0", "seed-1", "2-seeds.nc", "2-perturbed.nc", "scores.png"} == names
        assert "crps" in done.stdout and "coverage of 90 % intervals" in done.stdout
        return
    if recipe.stem == "climate":
        reports = {"report.nc", "report_z500.png", "report_t2m.png"}
        assert {"squared-error", "crps", "cmip", "run.zarr"} | reports == names
        assert "rmse_ratio" in done.stdout and len(list((tmp_path / "out" / "cmip").glob("tas_Amon_*.nc"))) == 2
        return
    if recipe.stem == "crps":
        assert {"single", "ensemble", "scores.nc", "scores.png", "ranks.png", "forecast.nc"} == names
        assert "crps" in done.stdout and "single forecast" in done.stdout
        return
    assert names == RESULTS - ABSENT.get(recipe.stem, set()) | EXTRA.get(recipe.stem, {"forecast.nc", "maps.png"})
    with xr.open_dataset(tmp_path / "out" / "scores.nc", decode_timedelta=True) as scores:
        assert "persistence" in scores.system.values
    assert "persistence" in done.stdout
    # a complete run is not overwritten, and can be resumed
    refused = run(recipe, tmp_path / "out", *options_of(recipe, stores))
    assert refused.returncode == 2 and "holds a run" in " ".join(re.findall(r"\w+", refused.stderr))
    if recipe.stem == "t2m":
        again = run(recipe, tmp_path / "out", *options_of(recipe, stores), "--resume")
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout
        # a run that was stopped continues without --resume too
        (tmp_path / "out" / "forecaster.safetensors").unlink()
        again = run(recipe, tmp_path / "out", *options_of(recipe, stores))
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout
        more = run(recipe, tmp_path / "out", *options_of(recipe, stores), "--epochs", 2, "--resume")
        assert more.returncode == 2 and "Traceback" not in more.stderr
        assert "config.epochs is 2, was 1" in more.stderr and "recipes/finetune.py --pretrained" in more.stderr


@pytest.mark.slow
def test_on_two_processes(stores, tmp_path):
    (recipe,) = (path for path in RECIPES if path.stem == "t2m")
    done = run(recipe, tmp_path / "out", *options_of(recipe, stores), processes=2)
    assert done.returncode == 0, done.stderr
    headers = [line for line in done.stdout.splitlines() if line.startswith("metric")]
    assert len(headers) == 1, "one process prints the table"
    assert {path.name for path in (tmp_path / "out").iterdir()} == RESULTS | {"forecast.nc", "maps.png"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_help_and_result(recipe):
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "100"}
    done = subprocess.run([sys.executable, recipe, "--help"], capture_output=True, text=True, env=environment)
    for option in ("--out", "--epochs", "--max-steps", "--device", "--resume"):
        assert option in done.stdout
    assert "--data" in done.stdout
    docstring = recipe.read_text().split('"""')[1]
    assert re.search(r"Measured on \d{4}-\d\d-\d\d|Not verified here", " ".join(docstring.split()))


def test_data_without_split_dates_are_an_error(stores, tmp_path):
    (recipe,) = (path for path in RECIPES if path.stem == "t2m")
    with xr.open_zarr(stores / "weather.zarr") as ds:  # whose attributes name the dates
        mine = ds[["2m_temperature", "geopotential"]].isel(time=slice(0, 40)).drop_encoding().drop_attrs(deep=False)
        mine.to_netcdf(tmp_path / "mine.nc")
    done = run(recipe, tmp_path / "out", "--data", tmp_path / "mine.nc")
    assert done.returncode == 2 and "for example --train-until=" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run(recipe, tmp_path / "out", "--data", tmp_path / "nowhere.zarr")
    assert done.returncode == 2 and "does not exist" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["tp", "sst"])
def test_missing_data_is_an_error_that_names_the_variables(tmp_path, name):
    (recipe,) = (path for path in RECIPES if path.stem == name)
    done = run(recipe, tmp_path / "out")
    message = " ".join(re.findall(r"[\w.]+", done.stderr))
    assert done.returncode == 2 and f"give data with {'z500 t2m r1000 tp6h' if name == 'tp' else 'sst'}" in message
    assert (
        "simvp climate check PATH" in message
        and "recipes simulate.py makes some" in message
        and "bundled sample" in message
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_docstrings_state_the_schedule_of_the_code(recipe):
    _, docstring, code = recipe.read_text().split('"""', 2)
    text = " ".join(docstring.split())
    schedule = re.search(r"Model: .*?\. Schedule: (.*?)\. The exponential moving average", text).group(1)
    rate, batch = (re.search(rf"{name}=([\de.-]+)", code).group(1) for name in ("learning_rate", "batch_size"))
    assert f"learning rate up to {rate} " in schedule and f"in batches of {batch};" in schedule
    epochs = int(re.search(r"\bepochs=(\d+),", code).group(1))
    assert schedule.startswith(
        {1: "one epoch ", 2: "two epochs", 3: "three epochs", 5: "five epochs", 6: "six epochs", 50: "50 epochs"}[
            epochs
        ]
    )
    if recipe.stem in ("t2m", "z500"):
        assert re.search("Grid: .*Periods of the sample: trained on .*, the epoch chosen on .*, scored on", text)


@pytest.mark.parametrize("path", ["notebooks/04_on_a_cluster.ipynb", "docs/cluster.md", "docs/training.md"])
def test_requeued_jobs_resume(path):
    text = (ROOT / path).read_text()
    lines = re.findall(r"srun python recipes/[^\n\\]*", text)
    assert lines and all("--resume" in line for line in lines)


def test_the_simulated_data_say_what_is_made_up(stores, tmp_path):
    with xr.open_zarr(stores / "weather.zarr") as ds:
        assert "SIMULATED" in ds.attrs["title"] and "MADE UP" in ds.attrs["title"]
        sample = ["2m_temperature", "land_sea_mask", "orography"]
        for name in ds.data_vars:
            assert ds[name].attrs.get("comment", "").startswith("MADE UP") == (name not in sample), name
    with xr.open_dataset(stores / "sst.nc") as ds:
        assert "MADE UP" in ds.attrs["title"] and "MADE UP" in ds["sst"].attrs["comment"]
    refused = subprocess.run(
        [sys.executable, ROOT / "recipes" / "simulate.py", "--out", tmp_path], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "exists" in refused.stderr


def test_a_wind_in_geostrophic_balance():
    """A geopotential that falls by 1000 m2 s-2 per radian to the north drives a westerly wind of 1000 / (f a)."""
    latitude = np.arange(30.0, 61.0, 5.0)
    field = np.broadcast_to(-1000 * np.deg2rad(latitude)[:, None], (2, 7, 16))
    east, north = SIMULATE["geostrophic_wind"](field, latitude)
    expected = 1000 / (1.458e-4 * np.sin(np.deg2rad(latitude)) * 6.371e6)
    coriolis_is_large = 1.458e-4 * np.sin(np.deg2rad(latitude)) > 8e-5
    np.testing.assert_allclose(east[0, coriolis_is_large, 0], expected[coriolis_is_large], rtol=1e-6)
    np.testing.assert_array_equal(north, 0)


@pytest.mark.parametrize("changes", [{}, {"epochs": 7}, {"max_steps": 3}])
def test_options_replace_the_length_of_a_recipe(monkeypatch, changes):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    common = importlib.import_module("common")
    config = sc.TrainConfig(epochs=5, rollout=2)
    shortened = common.with_length(config, changes.get("epochs"), changes.get("max_steps"))
    assert shortened == dataclasses.replace(config, **changes)
