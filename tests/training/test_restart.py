"""A second call in the same directory: resumed, or refused."""

import dataclasses
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from factories import STREAMED, assert_same_weights, quick, run, stored, tiny_model, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import checkpoint, loader


def test_a_stopped_run_resumes_where_it_stopped(tmp_path, monkeypatch):
    model, config = tiny_model(drop_path=0.2), quick(epochs=3)
    valid = waves(times=12, start="2001-03-01")
    whole = run(valid=valid, model=model, config=config, directory=tmp_path / "whole")

    saves = []
    save = checkpoint.save

    def save_once_then_die(*arguments):
        save(*arguments)
        saves.append(1)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_once_then_die)
    with pytest.raises(KeyboardInterrupt):
        run(valid=valid, model=model, config=config, directory=tmp_path / "part")
    monkeypatch.undo()
    resumed = run(valid=valid, model=model, config=config, directory=tmp_path / "part")
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]
    assert_same_weights(whole, Forecaster.load(tmp_path / "part" / "forecaster.safetensors", "cpu"))


def test_a_streamed_run_resumes_with_any_amount_of_memory(tmp_path, monkeypatch):
    ds = stored(tmp_path)
    config = quick(epochs=3, memory=STREAMED)
    plans = []
    choose = loader.choose_plan
    monkeypatch.setattr(loader, "choose_plan", lambda *a: plans.append(choose(*a)) or plans[-1])
    whole = run(ds, config=config, directory=tmp_path / "whole")
    assert plans[0].mode == "stream"
    assert_same_weights(whole, run(ds, config=dataclasses.replace(config, engine="zarr")))

    saves, save = [], checkpoint.save

    def save_once_then_die(*arguments):
        save(*arguments)
        saves.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_once_then_die)
        with pytest.raises(KeyboardInterrupt):
            run(ds, config=config, directory=tmp_path / "part")
    # more memory: the order of the windows is kept
    resumed = run(ds, config=dataclasses.replace(config, memory="auto"), directory=tmp_path / "part")
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]


def test_a_directory_of_another_run_is_refused(tmp_path):
    run(directory=tmp_path / "run")
    with pytest.raises(ValueError, match="another run, as .*learning_rate is 0.5, was 0.001"):
        run(directory=tmp_path / "run", config=quick(learning_rate=0.5))
    half = waves(times=30)
    half = half.assign_coords(latitude=half["latitude"] / 2)
    for changed in (waves(times=30).map(lambda x: x + 1, keep_attrs=True), half):
        with pytest.raises(ValueError, match=r"another run, as .*data_sha256 differs \(other values, grid, windows"):
            run(changed, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="another run, as .*validation is"):
        run(valid=waves(times=12, start="2001-03-01"), directory=tmp_path / "run")
    (tmp_path / "run" / "training.pt").write_text("damaged")
    with pytest.raises(ValueError, match="cannot be read as a training state"):
        run(directory=tmp_path / "run")
    (tmp_path / "died").mkdir()
    (tmp_path / "died" / "unfinished-training.pt").write_text("half a state")
    run(directory=tmp_path / "died")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not lose me")
    run(directory=tmp_path / "mine")  # what others write into it, such as a scheduler's log, is left alone
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "do not lose me"
    (tmp_path / "mine" / "training.pt").unlink()
    with pytest.raises(FileExistsError, match="training_curve.csv and forecaster.safetensors, but no training state"):
        run(directory=tmp_path / "mine")


def test_resuming_a_run_of_another_version_warns(tmp_path, monkeypatch):
    run(config=quick(epochs=2), directory=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    state["versions"]["torch"] = "1.0"
    torch.save(state, tmp_path / "run" / "training.pt")
    with pytest.warns(UserWarning, match="saved with torch 1.0 .now 2.*different digits"):
        run(config=quick(epochs=2), directory=tmp_path / "run")


def test_a_run_resumes_where_auto_chooses_another_precision(tmp_path, monkeypatch):
    config = quick(epochs=2, precision="auto")
    for bfloat16, warning in ((True, None), (False, "precision bf16-mixed .now 32-true.*different digits")):
        monkeypatch.setattr("simvp_climate.training.train._cpu_has_bfloat16", lambda answer=bfloat16: answer)
        with nullcontext() if warning is None else pytest.warns(UserWarning, match=warning):
            run(config=config, directory=tmp_path / "run")
    with pytest.raises(ValueError, match="config.precision is '32-true', was 'auto'"):
        run(config=quick(epochs=2, precision="32-true"), directory=tmp_path / "run")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_script_that_is_stopped_before_the_training_ends_with_75(signum):
    code = "import simvp_climate as sc; sc.exit_on_signals(); print('ready', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75 and f"stopped by {signum.name}" in errors
