"""The provenance of a training run."""

import re
import subprocess

import torch
from factories import run, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import checkpoint


def test_provenance_describes_the_run(tmp_path):
    first = run(directory=tmp_path / "run").provenance
    # builds for a GPU say so after a +, which a wheel's own version may leave out
    assert (
        first["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        and {"zarr", "lightning-fabric"} <= first["versions"].keys()
    )
    assert first["device"].startswith("cpu") and first["config"]["precision"] == "32-true"
    assert first["config"]["seed"] == 0 and first["training"] == "2001-01-01 00:00:00 to 2001-01-08 06:00:00"
    assert first["training_sha256"] == run().provenance["training_sha256"]
    changed = waves(times=30)
    changed["t2m"][7, 2, 3] += 1
    assert first["training_sha256"] != run(changed).provenance["training_sha256"]
    assert Forecaster.load(tmp_path / "run" / "forecaster.safetensors", "cpu").provenance == first


def test_the_commit_is_that_of_the_package_only(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "package.py"
    package.write_text("")
    monkeypatch.setattr(checkpoint, "__file__", str(package))
    assert checkpoint._commit() is None
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "other.txt").write_text("")
    subprocess.run([*git, "add", "other.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    assert checkpoint._commit() is None, "a package installed inside somebody's repository"
    subprocess.run([*git, "add", "package.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "two"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", checkpoint._commit())
    package.write_text("changed")
    assert re.fullmatch("[0-9a-f]{40}-dirty", checkpoint._commit())
    monkeypatch.setenv("PATH", "")
    assert checkpoint._commit() is None
