"""The pretrained forecaster: it works without internet, and its scores are those of its card."""

import dataclasses
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
from simvp_climate.networks.simvp_sphere import SimVPSphere
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
    """The output is asserted; the time is only printed (aim: 15 s on a quiet machine)."""
    command = [sys.executable, "-W", "error", "-c", FIRST_FORECAST]
    environment = {"MPLBACKEND": "agg", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=tmp_path, check=True, env=environment, capture_output=True, text=True)
    print(process.stdout)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_name_lists_the_known_names():
    names = r"\['sample', 'sample-climate', 'sample-ensemble', 'sample-simvpv2'\]"
    for name in ("era5", "../sample/sample", "sample.safetensors", ""):
        with pytest.raises(ValueError, match=rf"{re.escape(repr(name))}: the package has {names}"):
            sc.open_pretrained(name)


def test_the_forecaster_beats_persistence_on_the_test_period(pretrained):
    test = sc.open_sample().sel(time=TEST)
    scores = sc.score(pretrained(test, every="10D", horizon=4), test, metrics=["rmse"])
    for name in pretrained.task.variables:
        systems = ("SimVPSphere", "persistence")
        ours, persistence = (scores[name].sel(system=system).values.ravel() for system in systems)
        assert ours.shape == (4,) and (ours < persistence).all()


def test_provenance_excludes_the_test_period(pretrained):
    """Training and validation end before the test period."""
    for name in ("training", "validation"):
        dates = re.findall(r"\d{4}-\d\d-\d\d", pretrained.provenance[name])
        assert len(dates) == 2 and max(dates) < "2004-01-01"
    trained, validated = (pretrained.provenance[name] for name in ("training", "validation"))
    assert trained[-19:] < validated[:19]
    assert pretrained.provenance["training_sha256"]


def test_the_card_describes_the_file(pretrained):
    file, card = FOLDER / "sample.safetensors", (FOLDER / "sample.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert len(file.read_bytes()) < 3e6
    assert isinstance(pretrained.network, SimVPSphere)
    assert f"{sum(value.numel() for value in pretrained.network.parameters()):,} parameters" in card
    for text in ("SIMULATED", "persistence", "climatology", "small scales", "Limits", "Apache-2.0", "seed"):
        assert text in card


def test_the_ensemble_is_sharp_and_has_a_card(pretrained):
    file, card = FOLDER / "sample-ensemble.safetensors", (FOLDER / "sample-ensemble.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert len(file.read_bytes()) < 3e6
    for text in ("SIMULATED", "CRPS", "spread / error", "members=16", "loss crps"):
        assert text in card
    ensemble = sc.open_pretrained("sample-ensemble", device="cpu")
    assert ensemble.provenance["validation"] == pretrained.provenance["validation"]
    test = sc.open_sample().sel(time=TEST)
    when = {"every": "20D", "horizon": 12}
    forecast, single = ensemble(test, **when, members=4), pretrained(test, **when)
    last = {"lead_time": [-1]}
    scores = sc.score(
        forecast.isel(last), test, baselines={"single": single.isel(last)}, persistence=False, bootstrap=None
    )
    for name in ("z500", "t2m"):
        ours, other = (scores[name].sel(system=system).squeeze() for system in (scores["system"].values[0], "single"))
        assert ours.sel(metric="crps") < 0.85 * other.sel(metric="mae")
        assert abs(ours.sel(metric="member_small_scale_variance") - 1) < 0.25
        assert other.sel(metric="small_scale_variance") < 0.85


def test_the_forecaster_for_long_runs_stays_near_the_climate_for_months(pretrained):
    file, card = FOLDER / "sample-climate.safetensors", (FOLDER / "sample-climate.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert len(file.read_bytes()) < 3e6
    assert "## A free run" in card and "select rollout" in card
    ds = sc.open_sample(["z500", "t2m"])
    climate = sc.open_pretrained("sample-climate", device="cpu")
    start, until = "2003-06-30T18", "2003-11-01"  # to the training period: no new data are read for a choice
    run = climate.run(ds, start, until, outputs="1MS", progress=False)
    truth, weights = sc.metrics.time_mean(ds, "1MS").sel(time=run.time), sc.metrics.latitude_weights(ds)
    assert run.sizes["time"] == 4
    for name, limit in (("t2m", 0.6), ("z500", 150)):
        difference = abs((run[name] - truth[name]).weighted(weights).mean(("latitude", "longitude")))
        assert float(difference.max()) < limit, difference.values


def test_a_setting_that_is_new_changes_no_digest(pretrained):
    """Else forecasts that were written before it could not be reproduced."""
    assert pretrained.digest.startswith("de7cb194")


def test_the_predecessor_is_a_simvpv2_with_a_card():
    file, card = FOLDER / "sample-simvpv2.safetensors", (FOLDER / "sample-simvpv2.md").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    predecessor = sc.open_pretrained("sample-simvpv2", device="cpu")
    assert isinstance(predecessor.network, SimVPv2)
    assert sc.Forecaster.load(file, "cpu").digest == predecessor.digest


def card_scores() -> dict[str, dict[int, list[float]]]:
    """Return the rows of the card's tables by variable and lead in hours."""
    tables, name = {}, ""
    for line in (FOLDER / "sample.md").read_text(encoding="utf-8").splitlines():
        if head := re.match(r"\| (\w+) \| RMSE, ", line):
            name = head[1]
            tables[name] = {}
        elif row := re.match(r"\| (\d+) h \|(.*)\|$", line):
            tables[name][int(row[1])] = [float(cell) for cell in row[2].split("|")]
    return tables


def test_the_card_has_all_leads():
    tables = card_scores()
    assert set(tables) >= {"z500", "t2m"}
    for rows in tables.values():
        assert set(rows) >= {6, 24, 72, 120} and all(len(row) == 6 for row in rows.values())


@pytest.mark.slow
def test_scores_equal_those_of_the_card(pretrained):
    ds = sc.open_sample()
    test = ds.sel(time=TEST)
    forecast = pretrained(test, every="12h", horizon=20)
    scores = sc.score(forecast, test, climatology=sc.baselines.climatology(ds.sel(time=slice(None, "2003-12"))))
    columns = [("rmse", "SimVPSphere"), ("rmse", "persistence"), ("rmse", "climatology")]
    columns += [("acc", "SimVPSphere"), ("acc", "persistence"), ("small_scale_variance", "SimVPSphere")]
    for name, rows in card_scores().items():
        for hours, numbers in rows.items():
            for (metric, system), expected in zip(columns, numbers, strict=True):
                actual = scores[name].sel(metric=metric, system=system, lead_time=np.timedelta64(hours, "h")).item()
                rounding = 0.51 if metric == "rmse" and name == "z500" else 0.0051
                assert actual == pytest.approx(expected, abs=rounding), (name, hours, metric, system)


def test_the_wheel_contains_file_and_card():
    """The patterns of package data in pyproject.toml match the files."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for name in ("sample.safetensors", "sample.md", "sample-simvpv2.safetensors", "sample-simvpv2.md"):
        assert (FOLDER / name).is_file()
        assert any(fnmatch.fnmatchcase(f"pretrained/{name}", pattern) for pattern in patterns["simvp_climate"]), name


@pytest.mark.slow
def test_make_pretrained_writes_file_and_card(tmp_path):
    """The SHA-256 in the card is that of the file; here from two months and one epoch."""
    command = [sys.executable, str(ROOT / "tools" / "make_pretrained.py"), "--out", str(tmp_path)]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--months", "2", "--epochs", "1"], check=True, env=environment, capture_output=True)
    assert {path.name for path in tmp_path.glob("*sample*")} == {"sample.safetensors", "sample.md"}
    trained = sc.Forecaster.load(tmp_path / "sample.safetensors", device="cpu")
    assert trained.provenance["training"].startswith("2003-07-01") and len(trained.training_curve) == 1
    content = (tmp_path / "sample.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in (tmp_path / "sample.md").read_text(encoding="utf-8")


def test_the_file_has_the_extremes_of_its_training_period(pretrained):
    start, end = pretrained.provenance["training"].split(" to ")
    ds = sc.open_sample().sel(time=slice(start, end))
    expected = [[float(ds[name].min()), float(ds[name].max())] for name in ("z500", "t2m")]
    np.testing.assert_allclose(pretrained.normalizer.extremes, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [-9999.0, 0.0])
def test_impossible_values_are_refused_although_the_file_lacks_the_extremes_of_training(value, pretrained):
    unknown = dataclasses.replace(pretrained.normalizer, extremes=np.array([[-np.inf, np.inf]] * 2))
    forecaster = dataclasses.replace(pretrained, normalizer=unknown)
    ds = sc.open_sample().sel(time="2004-01-01").load()
    ds["t2m"][-1, 5, 7] = value
    with pytest.raises(ValueError, match=rf"t2m is {value:g} K at 2004-01-01 18:00, latitude .*temperature"):
        forecaster(ds)
