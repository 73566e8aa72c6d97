"""What is uploaded is whole, and what is installed from it works away from the repository."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMOKE = """
import pathlib
import simvp_climate as sc
assert "site-packages" in sc.__file__, sc.__file__
ds = sc.open_sample()
forecaster = sc.open_pretrained("sample", device="cpu")
forecast = forecaster(ds.sel(time="2004-02"), every="5D", horizon=12)
forecast.to_netcdf("forecast.nc")
scores = sc.score(forecast, ds, bootstrap=None)
assert (scores.z500.sel(metric="rmse", system="SimVPv2") < scores.z500.sel(metric="rmse", system="persistence")).all()
sc.plot.maps(forecast, ds, lead="3D").savefig("maps.png")
assert pathlib.Path("maps.png").stat().st_size > 10_000
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source archive, built from a copy of what git knows."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    (archive,) = folder.glob("*.tar.gz")
    return wheel, archive


def test_the_descriptions_are_valid(built):
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_nothing_is_missing(built):
    wheel, archive = built
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "simvp_climate").rglob("*.py")}
    assert code <= names
    for part in ("py.typed", "pretrained/sample.safetensors", "pretrained/sample.md", "natural_earth/README.md"):
        assert f"simvp_climate/{part}" in names
    assert any(name.startswith("simvp_climate/sample/") for name in names)
    assert not any(name.startswith(("tests/", "recipes/", "benchmarks/")) for name in names)
    with tarfile.open(archive) as content:
        inside = {name.partition("/")[2] for name in content.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "simvp_climate/processing/task.py"} <= inside


def environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the Python of a new environment, and the variables to run it with."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    variables |= {key: value for key, value in os.environ.items() if key.upper().startswith(("PIP_", "HTTP", "SSL_"))}
    return folder / "env" / "bin" / "python", variables


def smoke(python: Path, folder: Path, variables: dict[str, str]) -> None:
    away = folder / "away"
    away.mkdir()
    done = subprocess.run([python, "-c", SMOKE], cwd=away, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [python.with_name("simvp-climate"), "check", "forecast.nc"]
    said = subprocess.run(command, cwd=away, env=variables, capture_output=True, text=True)
    assert said.returncode in (0, 1) and "check:" in said.stdout, said.stderr


def test_the_wheel_works_away_from_the_repository(built, tmp_path):
    """With the dependencies of this environment: those alone are shared, the package comes from the wheel."""
    python, variables = environment(tmp_path)
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(built[0])]
    subprocess.run(install, env=variables, check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    smoke(python, tmp_path, variables)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(built, tmp_path):
    python, variables = environment(tmp_path)
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(built[0])]
    subprocess.run(install, env=variables, check=True)
    smoke(python, tmp_path, variables)
