"""A job that is killed at any moment, and repeated, gives the files of one that was not."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("killed_job.py")


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every result, without the times at which files were made."""
    result = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        content = file.read_bytes()
        if name.endswith((".zattrs", ".zmetadata", "zarr.json", "training.pt", ".csv", ".safetensors")):
            continue  # they hold times and durations; `results` compares what they stand for
        result[name] = hashlib.sha256(content).hexdigest()
    return result


def results(folder: Path) -> dict[str, object]:
    """Return the values of all results, and the names of all files."""
    import simvp_climate as sc

    forecaster = sc.Forecaster.load(folder / "run" / "forecaster.safetensors", device="cpu")
    curve = forecaster.training_curve.drop(columns="windows_per_second", errors="ignore")
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    values = [sc.open_dataset(folder / name, ["z500", "t2m"]).load() for name in ("cache.zarr", "hindcast.zarr")]
    digests = [hashlib.sha256(ds[name].values.tobytes()).hexdigest() for ds in values for name in ("z500", "t2m")]
    return {"digest": forecaster.digest, "curve": json.loads(curve.to_json()), "names": names, "values": digests}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a job that was not killed, and its number of writes."""
    folder = tmp_path_factory.mktemp("whole")
    first = run(folder)
    assert first.returncode == 0, first.stderr
    return folder, int(first.stdout.split()[-1])


def check_kills(whole, tmp_path, moments):
    folder, _ = whole
    expected = results(folder), contents(folder)
    for moment in moments:
        killed = run(tmp_path / f"kill-{moment}", "--kill", moment)
        assert killed.returncode == -9, f"write {moment}: {killed.stderr}"
        again = run(tmp_path / f"kill-{moment}")
        assert again.returncode == 0, f"write {moment}: {again.stderr}"
        assert (results(tmp_path / f"kill-{moment}"), contents(tmp_path / f"kill-{moment}")) == expected, moment


def test_a_killed_job_is_repeated(whole, tmp_path):
    count = whole[1]
    assert count > 40
    check_kills(whole, tmp_path, [count // 3, 4 * count // 5])


@pytest.mark.slow
def test_a_job_killed_at_twenty_moments_is_repeated(whole, tmp_path):
    check_kills(whole, tmp_path, np.unique(np.linspace(1, whole[1], 20, dtype=int)).tolist())


def check_full_disk(whole, tmp_path, limits):
    folder, _ = whole
    expected = results(folder), contents(folder)
    for limit in limits:
        stopped = run(tmp_path / f"limit-{limit}", "--limit", limit)
        assert stopped.returncode == 1 and "File too large" in stopped.stderr, stopped.stderr
        again = run(tmp_path / f"limit-{limit}")
        assert again.returncode == 0, f"{limit}: {again.stderr}"
        assert (results(tmp_path / f"limit-{limit}"), contents(tmp_path / f"limit-{limit}")) == expected, limit


def test_a_job_that_filled_the_disk_is_repeated(whole, tmp_path):
    check_full_disk(whole, tmp_path, [5000])


@pytest.mark.slow
def test_a_job_that_filled_the_disk_at_any_file_is_repeated(whole, tmp_path):
    check_full_disk(whole, tmp_path, [100, 1000, 2500, 20_000])
