import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import waves

from simvp_climate.__main__ import _table, _verdict


def made_up_scores():
    leads = pd.to_timedelta([6, 12, 24, 36, 48], unit="h").astype("timedelta64[ns]")
    values = np.full((3, 3, 5), np.nan)
    values[:, 0] = [[1, 2, 3, 4, 7], [2, 3, 4, 5, 8], [6, 6, 6, 6, 6]]
    values[:, 1] = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.7, 0.6, 0.5, 0.4], [np.nan] * 5]
    values[:, 2] = [[0.8] * 5, [1] * 5, [0.1] * 5]
    coords = {
        "system": ["SimVPv2", "persistence", "climatology"],
        "metric": ["rmse", "acc", "small_scale_variance"],
        "lead_time": leads,
    }
    return xr.Dataset({"t2m": (list(coords), values, {"units": "K"})}, coords)


def test_verdict():
    scores = made_up_scores()
    assert _verdict(scores) == "t2m beats persistence at every lead; beats climatology up to day 1.5"
    worse = scores + xr.where(scores["lead_time"] == scores["lead_time"][0], 10, 0) * (scores["system"] == "SimVPv2")
    assert _verdict(worse) == "t2m beats persistence at 4 of 5 leads; beats climatology at no lead"


def test_table_shows_the_leads_and_a_dash_for_the_acc_of_climatology():
    lines = _table(made_up_scores(), "t2m").splitlines()
    assert lines[1] == "t2m"
    assert [line.split()[0] for line in lines[-4:]] == ["6", "12", "24", "48"]  # 36 h is left out
    assert lines[-1].split() == ["48", "h", "7.00", "8.00", "6.00", "0.50", "0.40", "-", "0.80", "1.00", "0.10"]


def test_help_shows_an_example():
    result = subprocess.run(
        [sys.executable, "-m", "simvp_climate", "demo", "--help"], capture_output=True, text=True, check=True
    )
    assert "Example: python -m simvp_climate demo" in result.stdout


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_in_the_way_is_refused(tmp_path, folder):
    mine = tmp_path / "demo" / "forecast.nc" if folder else tmp_path / "demo"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    command = [sys.executable, "-m", "simvp_climate", "demo", "--out", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True)
    words = " ".join(re.findall(r"\w+", result.stderr))
    assert result.returncode == 2 and "exists and is not a folder of this demo choose another" in words
    assert mine.read_text() == "mine"


def test_the_demo_writes_what_it_says(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "simvp_climate", "demo", "--out", str(tmp_path), "--months", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "forecast.nc",
        "forecaster.safetensors",
        "maps.png",
        "scores.csv",
        "scores.nc",
        "scores.png",
    }
    assert "beats persistence" in result.stdout and "120 h" in result.stdout


def check(*options):
    command = [sys.executable, "-W", "error", "-m", "simvp_climate", "check", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_check_of_clean_data(tmp_path):
    waves().to_zarr(tmp_path / "store.zarr", consolidated=False)
    result = check(tmp_path / "store.zarr")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("check: nothing found\n")
    assert "37 of 12 states in and 12 out, 6h apart" in result.stdout
    result = check(tmp_path / "store.zarr", "--variables", "t2m", "--history", "3", "--horizon", "2", "--step", "12h")
    assert result.returncode == 0 and "52 of 3 states in and 2 out, 12h apart" in result.stdout  # 60 - 2 * 4
    assert "z500" not in result.stdout


def test_check_says_by_its_status_what_it_found(tmp_path):
    gap = waves().isel(time=[*range(30), *range(32, 60)])
    gap.to_netcdf(tmp_path / "warning.nc")
    gap.assign(t2m=gap["t2m"].assign_attrs(units="degC")).to_netcdf(tmp_path / "error.nc")
    assert check(tmp_path / "warning.nc").returncode == 0
    assert check(tmp_path / "warning.nc", "--strict").returncode == 1
    result = check(tmp_path / "error.nc", "--html", tmp_path / "report.html", "--history", 4)
    assert result.returncode == 1 and 'ds["t2m"].attrs["units"] = "K"' in result.stdout
    assert "4 states in and 12 out" in result.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "units-mislabeled" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error.nc", "report.html", "warning.nc"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere.zarr"], "there is nothing at"),
        (["store.nc", "--levels", "500,x"], "could not convert string to float"),
        (["store.nc", "--step", "sometimes"], "is not a time step"),
        (["store.nc", "--history", "0"], "history"),
    ],
)
def test_check_that_cannot_be_done(tmp_path, options, words):
    waves().to_netcdf(tmp_path / "store.nc")
    result = check(tmp_path / options[0], *options[1:])
    assert (
        result.returncode == 2
        and words.split()
        == [word for word in re.findall(r"\w+", result.stderr) if word in words.split()][: len(words.split())]
    )


@pytest.mark.slow
def test_the_demo_reaches_its_targets(tmp_path):
    command = [sys.executable, "-m", "simvp_climate", "demo", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "z500 beats persistence at every lead; beats climatology up to day 5." in result.stdout
    assert "t2m beats persistence at every lead" in result.stdout
