"""What the package brings along: opened, forecasting and drawing without a network, and as good as its card says."""

import fnmatch
import hashlib
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import simvp_climate as sc
from simvp_climate.networks.simvp_v2 import SimVPv2

ROOT = Path(__file__).parents[2]
FOLDER = importlib.resources.files("simvp_climate") / "pretrained"
TEST = slice("2004-01", "2004-04")

FIRST_FORECAST = """
import time
start = time.perf_counter()
import socket
def refuse(*args, **options):
    raise AssertionError("no network is needed")
socket.socket.connect = socket.getaddrinfo = refuse
import simvp_climate as sc
forecaster = sc.open_pretrained("sample")
ds = sc.open_sample()
forecast = forecaster(ds, horizon=20)
sc.plot.maps(forecast, lead="3D").savefig("map.png")
print(f"{time.perf_counter() - start:.1f} s from import to a map")
assert dict(forecast.sizes) == {"init_time": 1, "lead_time": 20, "latitude": 32, "longitude": 64}, forecast.sizes
assert forecast.init_time.values[0] == ds.time.values[-1]
assert forecast.t2m.notnull().all() and 250 < forecast.t2m.mean() < 310
assert forecast.z500.notnull().all() and 4.9e4 < forecast.z500.mean() < 6e4
"""


@pytest.fixture(scope="module")
def pretrained():
    return sc.open_pretrained("sample", device="cpu")


def test_forecast_and_map_without_a_network(tmp_path):
    """The time is printed (15 s are the aim on a quiet machine), what comes out is asserted."""
    command = [sys.executable, "-W", "error", "-c", FIRST_FORECAST]
    environment = {"MPLBACKEND": "agg", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, check=True, env=environment, capture_output=True, text=True)
    print(done.stdout)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_what_there_is_not_is_said_with_what_there_is():
    for name in ("era5", "../sample/sample", "sample.safetensors", ""):
        with pytest.raises(ValueError, match=rf"{re.escape(repr(name))}: the package has \['sample'\]"):
            sc.open_pretrained(name)


def test_it_beats_persistence_on_the_test_period(pretrained):
    test = sc.open_sample().sel(time=TEST)
    scores = sc.score(pretrained(test, every="10D", horizon=4), test, metrics=["rmse"])
    for name in pretrained.task.variables:
        ours, persistence = (scores[name].sel(system=system).values.ravel() for system in ("SimVPv2", "persistence"))
        assert ours.shape == (4,) and (ours < persistence).all()


def test_it_has_not_seen_the_test_period(pretrained):
    """Neither its training nor its choice of the epoch, by what it says of itself."""
    for name in ("training", "validation"):
        dates = re.findall(r"\d{4}-\d\d-\d\d", pretrained.provenance[name])
        assert len(dates) == 2 and max(dates) < "2004-01-01"
    trained, validated = (pretrained.provenance[name] for name in ("training", "validation"))
    assert trained[-19:] < validated[:19]
    assert pretrained.provenance["training_sha256"]


def test_the_card_is_that_of_the_file(pretrained):
    file, card = FOLDER / "sample.safetensors", (FOLDER / "sample.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert len(file.read_bytes()) < 2.5e6
    assert isinstance(pretrained.network, SimVPv2)
    assert f"{sum(value.numel() for value in pretrained.network.parameters()):,} parameters" in card
    for words in ("SIMULATED", "persistence", "climatology", "small scales", "Limits", "Apache-2.0", "seed"):
        assert words in card


def card_scores() -> dict[str, dict[int, list[float]]]:
    """The numbers of the card's tables: of each variable, by lead in hours."""
    found, name = {}, ""
    for line in (FOLDER / "sample.md").read_text(encoding="utf-8").splitlines():
        if head := re.match(r"\| (\w+) \| RMSE, ", line):
            name = head[1]
            found[name] = {}
        elif row := re.match(r"\| (\d+) h \|(.*)\|$", line):
            found[name][int(row[1])] = [float(number) for number in row[2].split("|")]
    return found


def test_the_card_has_all_leads():
    found = card_scores()
    assert set(found) >= {"z500", "t2m"}
    for rows in found.values():
        assert set(rows) >= {6, 24, 72, 120} and all(len(row) == 6 for row in rows.values())


@pytest.mark.slow
def test_it_scores_what_its_card_says(pretrained):
    ds = sc.open_sample()
    test = ds.sel(time=TEST)
    forecast = pretrained(test, every="12h", horizon=20)
    scores = sc.score(forecast, test, climatology=sc.baselines.climatology(ds.sel(time=slice(None, "2003-12"))))
    columns = [("rmse", "SimVPv2"), ("rmse", "persistence"), ("rmse", "climatology")]
    columns += [("acc", "SimVPv2"), ("acc", "persistence"), ("small_scale_variance", "SimVPv2")]
    for name, rows in card_scores().items():
        for hours, numbers in rows.items():
            for (metric, system), number in zip(columns, numbers, strict=True):
                at = scores[name].sel(metric=metric, system=system, lead_time=np.timedelta64(hours, "h")).item()
                rounding = 0.51 if metric == "rmse" and name == "z500" else 0.0051
                assert at == pytest.approx(number, abs=rounding), (name, hours, metric, system)


def test_it_is_in_the_wheel():
    """The files match what pyproject.toml takes along, as the sample and the coastlines do."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for name in ("sample.safetensors", "sample.md"):
        assert (FOLDER / name).is_file()
        assert any(fnmatch.fnmatchcase(f"pretrained/{name}", one) for one in patterns["simvp_climate"]), name


@pytest.mark.slow
def test_the_tool_makes_it(tmp_path):
    """The whole way on two months and one epoch: two files that belong together."""
    command = [sys.executable, str(ROOT / "tools" / "make_pretrained.py"), "--out", str(tmp_path)]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--months", "2", "--epochs", "1"], check=True, env=environment, capture_output=True)
    assert {path.name for path in tmp_path.glob("*sample*")} == {"sample.safetensors", "sample.md"}
    made = sc.Forecaster.load(tmp_path / "sample.safetensors", device="cpu")
    assert made.provenance["training"].startswith("2003-07-01") and len(made.training_curve) == 1
    content = (tmp_path / "sample.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (tmp_path / "sample.md").read_text(encoding="utf-8")
