"""Several processes of one run: what they give is what one gives, and what srun or torchrun say is understood."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import distributed

TESTS = Path(__file__).parents[1]

# the script of a user: no word of processes but the last condition
SCRIPT = """
import sys
import time
sys.path.insert(0, sys.argv[1])
from factories import quick, tiny_model, waves
import simvp_climate as sc

ds = waves(times=61)
forecaster = sc.train(
    sc.Task(["z500", "t2m"], history=2, horizon=2),
    ds.isel(time=slice(0, 40)),
    valid=ds.isel(time=slice(40, None)),
    model=tiny_model(padding="sphere"),
    config=quick(epochs=2, batch_size=6, accumulate_grad_batches=int(sys.argv[3]), rollout=2, validation_windows=15),
    directory=sys.argv[2],
    device="cpu",
)
print("loss", forecaster.provenance["epochs"][-1]["loss"])
if sc.is_first_process():
    print("one goes on")
"""


def run(tmp_path: Path, count: int, accumulate: int = 1) -> tuple[Forecaster, str]:
    script, directory = tmp_path / "script.py", tmp_path / f"of-{count}"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    command = [sys.executable, *launch, str(script), str(TESTS), str(directory), str(accumulate)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return Forecaster.load(directory / "forecaster.safetensors", device="cpu"), done.stdout


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives(tmp_path, accumulate):
    one, _ = run(tmp_path, 1, accumulate)
    two, said = run(tmp_path, 2, accumulate)
    assert said.count("one goes on") == 1
    assert len({line for line in said.splitlines() if line.startswith("loss")}) == 1, "the processes disagree"
    assert two.provenance["processes"] == 2
    for first, second in zip(one.provenance["epochs"], two.provenance["epochs"], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert second[name] == pytest.approx(first[name], rel=1e-4), name
    # sums in another order, through 12 steps of AdamW
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize(
    ("environment", "expected", "first"),
    [
        ({}, (1, 1), True),
        ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "3"}, (8, 2), False),
        ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}, (2, 1), True),
        # an allocation of 8 tasks, and a script that srun did not start
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, (1, 1), True),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}, (8, 2), False),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"}, (1, 1), True),
    ],
)
def test_what_the_launchers_say(monkeypatch, environment, expected, first):
    for name in (
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "RANK",
        "TORCHELASTIC_RUN_ID",
        *(n for n in os.environ if "SLURM" in n),
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed.count() == expected
    assert distributed.is_first_process() is first


STOPPED = """
import sys
import time
sys.path.insert(0, sys.argv[1])
from factories import quick, tiny_model, waves
import simvp_climate as sc
from simvp_climate.training import loop

update = loop._update_ema

def print_step(*arguments):
    update(*arguments)
    print("step", flush=True)

loop._update_ema = print_step
sc.train(
    sc.Task(["z500", "t2m"], history=2, horizon=2),
    waves(times=61),
    valid=None,
    model=tiny_model(),
    config=quick(epochs=int(sys.argv[3]), batch_size=6, save_minutes=1e6),
    directory=sys.argv[2],
    device="cpu",
)
"""


@pytest.mark.slow
def test_two_processes_that_a_scheduler_stops_save_together_and_go_on(tmp_path):
    script, epochs = tmp_path / "script.py", 20
    script.write_text(STOPPED)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(directory: Path) -> subprocess.Popen:
        command = [sys.executable, *launch, str(script), str(TESTS), str(directory), str(epochs)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    process = start(tmp_path / "run")
    steps = 0
    while steps < 25:  # of 400 of two processes, whose lines may meet
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        steps += line.count("step")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said, words = process.communicate(timeout=120)
    assert time.monotonic() - began < 30
    assert words.count("training stopped by SIGTERM") == 2 and "Run the same again to resume" in words
    assert said.count("step") < 380, "it was stopped"
    before = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    assert len(before["records"]) < epochs
    for directory in (tmp_path / "run", tmp_path / "whole"):
        process = start(directory)
        _, words = process.communicate(timeout=300)
        assert process.returncode == 0, words
    one, two = (Forecaster.load(tmp_path / name / "forecaster.safetensors", "cpu") for name in ("run", "whole"))
    assert one.provenance["epochs"] == two.provenance["epochs"]
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=0, atol=0, msg=name)
