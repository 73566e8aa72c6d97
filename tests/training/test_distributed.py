"""Several processes of one run: what they give is what one gives, and what srun or torchrun say is understood."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from factories import assert_same_weights, quick
from factories import run as train_here

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import distributed

TESTS = Path(__file__).parents[1]
needs_sharding = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch has FSDP2 on GPUs only"
)

# the script of a user: no word of processes but the last condition
SCRIPT = """
import os
import signal
import sys
if "PYTHONHASHSEED" not in os.environ:  # with 0 and 1 the moments of AdamW are in another order in a set
    os.environ["PYTHONHASHSEED"] = os.environ.get("RANK", "0")
    os.execv(sys.executable, [sys.executable, *sys.argv])
sys.path.insert(0, sys.argv[1])
from lightning_fabric.loggers import CSVLogger
from factories import quick, tiny_model, tiny_sphere, waves
import simvp_climate as sc
from simvp_climate.training import loop

update = loop._update_ema

def stop_early(ema, network, decay, step):
    update(ema, network, decay, step)
    if step == 1 and sys.argv[5] == "epoch" and sc.is_first_process():
        signal.raise_signal(signal.SIGTERM)

def stop_in_validation(self):
    if sys.argv[5] == "validation" and sc.is_first_process():
        signal.raise_signal(signal.SIGTERM)
    return validate(self)

validate = loop.TrainingLoop._validate
loop._update_ema, loop.TrainingLoop._validate = stop_early, stop_in_validation
loop.LOG_EVERY = 4  # with a logger in the first process only
ds = waves(times=61)
crps = dict(loss="crps", crps_share=1.0) if sys.argv[6] == "crps" else {}
optimizer = "adamw" if crps else sys.argv[6] or "adamw"
forecaster = sc.train(
    sc.Task(["z500", "t2m"], history=2, horizon=2),
    ds.isel(time=slice(0, 40)),
    valid=ds.isel(time=slice(40, None)),
    model=(tiny_sphere if sys.argv[6] else tiny_model)(padding="sphere", **({"noise": 2} if crps else {})),
    config=quick(
        epochs=2, batch_size=6, accumulate_grad_batches=int(sys.argv[3]), rollout=2, validation_windows=15,
        strategy=sys.argv[4], save_minutes=0, optimizer=optimizer, **crps,
        limit_train_batches=None if sys.argv[3] == "1" else 5,  # of 6 batches
    ),
    directory=sys.argv[2],
    logger=CSVLogger(sys.argv[2] + "-log") if sc.is_first_process() else None,
    device="cpu",
)
print("loss", forecaster.provenance["epochs"][-1]["loss"])
if sc.is_first_process():
    print("one goes on")
"""


def run(
    directory: Path, count: int, accumulate: int = 1, strategy: str = "ddp", stop: str = "", sphere: str = ""
) -> str:
    """Train in some processes, stopped in the "epoch" or the "validation" if `stop`, and return what they print.

    The network is a SimVPv2, or with the name of an optimizer as `sphere` a SimVPSphere; with "crps" one with noise.
    """
    script = directory.with_suffix(".py")
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    arguments = [str(TESTS), str(directory), str(accumulate), strategy, stop, sphere]
    done = subprocess.run(
        [sys.executable, *launch, str(script), *arguments],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert bool(done.returncode) == bool(stop), done.stderr
    assert "distributed_backend" not in done.stderr, "no banner of Fabric"
    if stop == "epoch":
        # the processes agree on the step, which may be a later one
        steps = re.findall(r"training stopped by .*? in epoch 1 of 2, after step (\d) of", done.stderr)
        assert len(steps) == count and len(set(steps)) == 1, done.stderr
    return done.stdout


def load(directory: Path) -> Forecaster:
    return Forecaster.load(directory / "forecaster.safetensors", device="cpu")


def assert_nearly_the_same(one: Forecaster, other: Forecaster) -> None:
    for first, second in zip(one.provenance["epochs"], other.provenance["epochs"], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert second[name] == pytest.approx(first[name], rel=1e-4), name
    # sums in another order, through 12 steps of AdamW
    assert one.network.state_dict().keys() == other.network.state_dict().keys()
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(other.network.state_dict()[name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Forecaster:
    """The result of a single process."""
    directory = tmp_path_factory.mktemp("processes") / "one"
    run(directory, 1)
    return load(directory)


def test_two_processes_give_what_one_gives(tmp_path, one):
    said = run(tmp_path / "two", 2)
    two = load(tmp_path / "two")
    assert said.count("one goes on") == 1
    assert len({line for line in said.splitlines() if line.startswith("loss")}) == 1, "the processes disagree"
    assert two.provenance["processes"] == 2
    assert_nearly_the_same(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=needs_sharding)])
def test_two_processes_accumulate_what_one_accumulates(tmp_path, strategy):
    run(tmp_path / "one", 1, accumulate=2)
    run(tmp_path / "two", 2, accumulate=2, strategy=strategy)
    assert_nearly_the_same(load(tmp_path / "one"), load(tmp_path / "two"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "optimizer"), [("ddp", "muon"), pytest.param("fsdp", "adamw", marks=needs_sharding)]
)
def test_two_processes_train_the_network_for_the_sphere_and_resume(tmp_path, strategy, optimizer):
    run(tmp_path / "one", 1, sphere=optimizer)
    for stop in ("epoch", ""):
        run(tmp_path / "two", 2, strategy=strategy, stop=stop, sphere=optimizer)
    assert_nearly_the_same(load(tmp_path / "one"), load(tmp_path / "two"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=needs_sharding)])
def test_two_processes_train_an_ensemble_and_resume_exactly(tmp_path, strategy):
    """Each process draws other noise, so that the result is not that of one process."""
    said = run(tmp_path / "whole", 2, strategy=strategy, sphere="crps")
    assert len({line for line in said.splitlines() if line.startswith("loss")}) == 1, "the processes disagree"
    for stop in ("epoch", ""):
        run(tmp_path / "stopped", 2, strategy=strategy, stop=stop, sphere="crps")
    whole, stopped = load(tmp_path / "whole"), load(tmp_path / "stopped")
    assert_same_weights(whole, stopped)
    assert whole.provenance["epochs"][-1]["valid_spread_skill_z500_6h"] > 0


@needs_sharding
@pytest.mark.slow
def test_sharded_weights_train_and_resume_as_whole_ones(tmp_path, one):
    run(tmp_path / "sharded", 2, strategy="fsdp", stop="epoch")
    saved = torch.load(tmp_path / "sharded" / "training.pt", weights_only=True)
    # the state holds whole tensors
    shapes = {name: value.shape for name, value in one.network.state_dict().items()}
    for part in ("network", "ema", "selected"):
        assert {name: value.shape for name, value in saved[part].items()} == shapes
    said = run(tmp_path / "sharded", 2, strategy="fsdp")
    assert len({line for line in said.splitlines() if line.startswith("loss")}) == 1, "the processes disagree"
    assert_nearly_the_same(one, load(tmp_path / "sharded"))


@needs_sharding
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [((2, "fsdp"), (1, "ddp")), ((1, "ddp"), (2, "fsdp")), ((2, "fsdp"), (2, "ddp"))]
)
def test_a_run_resumes_with_the_other_strategy(tmp_path, one, first, second):
    """Whole weights are in another order in memory than sharded ones, and so must be the moments of AdamW."""
    for (count, strategy), stop in ((first, "epoch"), (second, "")):
        run(tmp_path / "run", count, strategy=strategy, stop=stop)
    assert_nearly_the_same(one, load(tmp_path / "run"))


@needs_sharding
@pytest.mark.slow
def test_a_resumed_run_with_sharded_weights_is_exact(tmp_path):
    run(tmp_path / "whole", 2, strategy="fsdp")
    for stop in ("epoch", "validation", ""):
        run(tmp_path / "stopped", 2, strategy="fsdp", stop=stop)
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "stopped")
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]
    assert_same_weights(whole, resumed)


def test_sharded_weights_need_several_processes():
    with pytest.raises(ValueError, match="strategy='fsdp' would be ignored by one process: start several with torchr"):
        train_here(config=quick(strategy="fsdp"))


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
from lightning_fabric.loggers import CSVLogger
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
