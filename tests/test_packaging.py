"""The wheel and the source archive are complete, and an installed package works outside the repository."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = """
import pathlib
import simvp_climate as sc
assert "site-packages" in sc.__file__, sc.__file__
ds = sc.open_sample()
forecaster = sc.open_pretrained("sample", device="cpu")
forecast = forecaster(ds.sel(time="2004-02"), every="5D", horizon=12)
forecast.to_netcdf("forecast.nc")
scores = sc.score(forecast, ds, bootstrap=None)
rmse = scores.z500.sel(metric="rmse")
assert (rmse.sel(system="SimVPSphere") < rmse.sel(system="persistence")).all()
sc.plot.maps(forecast, ds, lead="3D").savefig("maps.png")
assert pathlib.Path("maps.png").stat().st_size > 10_000
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the wheel and the source archive from a copy of the files in git, and return their paths."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    (archive,) = folder.glob("*.tar.gz")
    return wheel, archive


def test_the_metadata_are_valid(built):
    result = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True)
    assert result.returncode == 0, result.stdout.decode()


def test_the_wheel_and_the_archive_are_complete(built):
    wheel, archive = built
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "simvp_climate").rglob("*.py")}
    assert code <= names
    for name in ("py.typed", "pretrained/sample.safetensors", "pretrained/sample.md", "natural_earth/README.md"):
        assert f"simvp_climate/{name}" in names
    assert any(name.startswith("simvp_climate/sample/") for name in names)
    assert not any(name.startswith(("tests/", "recipes/", "benchmarks/")) for name in names)
    with tarfile.open(archive) as content:
        archived = {name.partition("/")[2] for name in content.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "simvp_climate/processing/task.py"} <= archived


def create_environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """Create a virtual environment and return its Python and the environment variables to run it with."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    variables |= {key: value for key, value in os.environ.items() if key.upper().startswith(("PIP_", "HTTP", "SSL_"))}
    return folder / "env" / "bin" / "python", variables


def run_example(python: Path, folder: Path, variables: dict[str, str]) -> None:
    """Run the example and the command line in a folder outside the repository."""
    outside = folder / "outside"
    outside.mkdir()
    result = subprocess.run([python, "-c", EXAMPLE], cwd=outside, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    command = [python.with_name("simvp-climate"), "check", "forecast.nc"]
    result = subprocess.run(command, cwd=outside, env=variables, capture_output=True, text=True)
    assert result.returncode in (0, 1) and "check:" in result.stdout, result.stderr


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(built, tmp_path):
    """Only the dependencies come from this environment; the package comes from the wheel."""
    python, variables = create_environment(tmp_path)
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(built[0])]
    subprocess.run(install, env=variables, check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    run_example(python, tmp_path, variables)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(built, tmp_path):
    python, variables = create_environment(tmp_path)
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(built[0])]
    subprocess.run(install, env=variables, check=True)
    run_example(python, tmp_path, variables)
