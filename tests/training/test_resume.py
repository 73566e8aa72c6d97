"""A run that is stopped or killed at any moment, and started again, ends as if it had not been."""

import dataclasses
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import training_script
from factories import assert_same_weights, quick, run, stored, tiny_model, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import checkpoint, datasets, loader, loop, signals
from simvp_climate.training.loss import Loss

VALID = waves(times=12, start="2001-03-01")
CONFIG = quick(epochs=3, batch_size=3, accumulate_grad_batches=2, rollout=2, save_minutes=1e6, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as in a terminal: what runs in the background of a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(directory: Path, epochs: int, seconds: float = 0) -> subprocess.Popen:
    script = Path(training_script.__file__)
    command = [sys.executable, "-W", "error", str(script), str(directory), str(epochs), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen, word: str) -> None:
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"it never said {word!r}: {process.stderr.read()}")


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def assert_same(whole: Forecaster, resumed: Forecaster) -> None:
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]
    assert_same_weights(whole, resumed)


@pytest.mark.slow
def test_killed_while_it_writes_and_stopped_by_the_scheduler(tmp_path):
    whole = training_script.train(tmp_path / "whole", 2)
    directory = tmp_path / "run"
    process = start(directory, 2, seconds=60)
    wait_for(process, "writing")
    assert (directory / "unfinished-training.pt").exists()
    with pytest.raises(RuntimeError, match="is in use: another process trains there"):
        training_script.train(directory, 2)
    kill(process)
    process = start(directory, 2)
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    assert process.returncode == signals.STATUS == 75
    assert "training stopped by SIGTERM in epoch 1 of 2, after step" in words and "Run the same again" in words
    assert "Traceback" not in words
    assert {path.name for path in directory.iterdir()} == {"training.pt"}
    assert_same(whole, training_script.train(directory, 2))
    assert_same(whole, Forecaster.load(directory / "forecaster.safetensors", "cpu"))
    assert {path.name for path in directory.iterdir()} == {
        "training.pt",
        "training_curve.csv",
        "forecaster.safetensors",
    }


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path):
    rng, epochs = random.Random(4), 16
    whole = training_script.train(tmp_path / "whole", epochs)
    directory = tmp_path / "run"
    for number in range(10):
        if number % 3 == 1:  # while a state is written
            process = start(directory, epochs, seconds=60)
            wait_for(process, "writing")
        elif number in (3, 6):  # before the first step: importing, reading, resuming
            process = start(directory, epochs)
            time.sleep(rng.uniform(0.5, 3))
        else:
            process = start(directory, epochs)
            wait_for(process, "ready")
            time.sleep(rng.uniform(0, 0.15))
        kill(process)
    process = start(directory, epochs)
    _, words = process.communicate()
    assert process.returncode == 0, words
    resumed = Forecaster.load(directory / "forecaster.safetensors", "cpu")
    assert_same(whole, resumed)
    assert len(resumed.provenance["epochs"]) == epochs


class Interrupter:
    """Sends this process a signal after some steps."""

    def __init__(self, monkeypatch):
        self.steps, self.at, self.signal = 0, {}, None
        update = loop._update_ema

        def count(*arguments):
            update(*arguments)
            self.steps += 1
            if self.steps in self.at:
                signal.raise_signal(self.at.pop(self.steps))

        monkeypatch.setattr(loop, "_update_ema", count)


@pytest.mark.parametrize("memory", ["auto", 300_000], ids=["kept", "streamed"])
def test_stopped_within_epochs(memory, tmp_path, monkeypatch, capsys):
    ds, plans = stored(tmp_path, times=150), []
    choose = loader.choose_plan
    monkeypatch.setattr(loader, "choose_plan", lambda *a: plans.append(choose(*a)) or plans[-1])
    settings = dict(batch_size=8, accumulate_grad_batches=2, rollout=2, validation_windows=2)
    config = quick(epochs=3, save_minutes=1e6, memory=memory, **settings)
    model = tiny_model(drop_path=0.3)
    arguments = dict(valid=VALID, model=model, config=config)
    whole = run(ds, **arguments, directory=tmp_path / "whole")
    assert plans[0].mode == ("memory" if memory == "auto" else "stream")
    steps = Interrupter(monkeypatch)
    # 145 windows: 19 batches, 10 steps an epoch
    steps.at = {1: signal.SIGTERM, 7: signal.SIGUSR1, 10: signal.SIGINT, 20: signal.SIGTERM, 25: signal.SIGTERM}
    ends = []
    for _ in range(5):
        try:
            run(ds, **arguments, directory=tmp_path / "part")
        except SystemExit as end:
            ends.append(end.code)
        except KeyboardInterrupt:
            ends.append("interrupted")
    assert ends == [75, 75, "interrupted", 75, 75]
    assert steps.steps == 25, "a step was done twice, or left out"
    arguments["config"] = dataclasses.replace(config, progress=True)
    resumed = run(ds, **arguments, directory=tmp_path / "part")
    assert steps.steps == 30
    assert_same(whole, resumed)
    output, errors = capsys.readouterr()
    assert f"resuming the run in {str(tmp_path / 'part')!r}, saved in epoch 3 of 3, after step 5 of 10\n" in output
    assert errors.splitlines()[1] == (
        f"training stopped by SIGUSR1 in epoch 1 of 3, after step 7 of 10, saved in {str(tmp_path / 'part')!r}. Run "
        "the same again to resume"
    )
    rows = (tmp_path / "part" / "training_curve.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def test_stopped_while_it_validates(tmp_path, monkeypatch):
    arguments = dict(valid=VALID, config=CONFIG, model=tiny_model(drop_path=0.3))
    whole = run(**arguments, directory=tmp_path / "whole")
    error, calls = Loss.error, []

    def stop_in_validation(self, *tensors):
        if not torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
        return error(self, *tensors)

    monkeypatch.setattr(Loss, "error", stop_in_validation)
    with pytest.raises(SystemExit):
        run(**arguments, directory=tmp_path / "run")
    assert len(calls) == 2, "validation went on"
    assert not (tmp_path / "run" / "training_curve.csv").exists()
    monkeypatch.setattr(loop, "_set_schedule", None)  # no step of this epoch again
    with pytest.raises(TypeError, match="not callable"):
        run(**arguments, directory=tmp_path / "run")
    assert len((tmp_path / "run" / "training_curve.csv").read_text().splitlines()) == 2
    monkeypatch.undo()
    assert_same(whole, run(**arguments, directory=tmp_path / "run"))


def test_stopped_before_the_first_step_and_after_the_last(tmp_path, monkeypatch, capsys):
    read = datasets.read_split

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGUSR1)
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "read_split", interrupted)
        with pytest.raises(SystemExit) as end:
            run(directory=tmp_path / "run")
    assert end.value.code == 75 and "nothing new was saved" in capsys.readouterr().err
    save = Forecaster.save

    def late(self, path):
        signal.raise_signal(signal.SIGTERM)
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Forecaster, "save", late)
        with pytest.raises(SystemExit) as end:
            run(directory=tmp_path / "run")
    assert end.value.code == 75 and "when it was complete" in capsys.readouterr().err
    assert_same(run(), Forecaster.load(tmp_path / "run" / "forecaster.safetensors", "cpu"))


def test_without_a_directory_the_message_says_that_nothing_is_saved(monkeypatch, capsys):
    steps = Interrupter(monkeypatch)
    steps.at = {2: signal.SIGTERM}
    with pytest.raises(SystemExit):
        run(config=dataclasses.replace(CONFIG, save_minutes=10))
    assert "after step 2 of 5, nothing was saved: give train a directory" in capsys.readouterr().err


def test_a_process_leaves_with_the_others_though_the_signal_was_not_its_own(capsys):
    with pytest.raises(SystemExit) as end:
        signals.Stop().leave("after step 3")
    assert end.value.code == 75
    assert capsys.readouterr().err == "training stopped by a signal that another process received, after step 3\n"


def test_a_second_interrupt_does_not_wait(monkeypatch):
    steps = Interrupter(monkeypatch)
    steps.at = {2: signal.SIGINT}
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: saved.append(signal.raise_signal(2)))
    with pytest.raises(KeyboardInterrupt):
        run(config=dataclasses.replace(CONFIG, save_minutes=10))
    assert not saved


def test_signals_are_those_of_the_caller_before_and_after(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.raise_signal(signal.SIGUSR1)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)
    # other threads get no signals, and may install nothing
    found = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    assert len(found) == 1


def test_a_state_with_other_groups_of_weights_is_an_error(tmp_path):
    """As that of a version in which Muon trained fewer matrices."""
    run(config=quick(epochs=1), directory=tmp_path)
    path = tmp_path / "training.pt"
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"groups of \[\d+(, \d+)*\] weights.*version that started it, or move"):
        run(config=quick(epochs=1), directory=tmp_path)
