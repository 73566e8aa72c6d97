"""What is kept on disk: whole or not at all, of one run, for one process at a time."""

import errno
import fcntl
import json
import os
import resource

import pandas as pd
import pytest
import torch
from factories import assert_same_weights, quick, run, tiny_sphere, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import checkpoint

CONFIG = quick(epochs=3)


def on_second_save(monkeypatch, act) -> None:
    """Do something before the state is written for the second time."""
    save, saves = checkpoint.save, []

    def counted(*arguments):
        saves.append(1)
        if len(saves) == 2:
            act()
        save(*arguments)

    monkeypatch.setattr(checkpoint, "save", counted)


def goes_on_as_if_nothing_had_happened(directory) -> None:
    assert torch.load(directory / "training.pt", weights_only=True)["records"][-1]["epoch"] == 1
    resumed, whole = run(config=CONFIG, directory=directory), run(config=CONFIG)
    assert resumed.provenance["epochs"] == whole.provenance["epochs"]
    assert_same_weights(resumed, whole)


def test_a_file_that_may_not_grow_stops_the_run_and_leaves_the_last_state(tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_second_save(monkeypatch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1])))
    try:
        with pytest.raises(OSError, match="run' has no space left .*File too large.* free some"):
            run(config=CONFIG, directory=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["training.pt", "training_curve.csv"]
    goes_on_as_if_nothing_had_happened(tmp_path / "run")


def test_a_full_disk_stops_the_run_and_leaves_the_last_state(tmp_path, monkeypatch):
    def full():
        def fsync(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)

    on_second_save(monkeypatch, full)
    with pytest.raises(OSError, match="run' has no space left .*No space left on device") as caught:
        run(config=CONFIG, directory=tmp_path / "run")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert not (tmp_path / "run" / "unfinished-training.pt").exists()
    goes_on_as_if_nothing_had_happened(tmp_path / "run")


def test_a_folder_that_vanishes_stops_the_run(tmp_path, monkeypatch):
    on_second_save(monkeypatch, lambda: (tmp_path / "run").rename(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="run' vanished .*bring it back"):
        run(config=CONFIG, directory=tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "run")
    goes_on_as_if_nothing_had_happened(tmp_path / "run")


def test_a_disk_that_is_full_at_the_very_end_says_so(tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = Forecaster.save

    def limited(self, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        save(self, path)

    monkeypatch.setattr(Forecaster, "save", limited)
    try:
        with pytest.raises(OSError, match="directory=.*run' .*call again with the same arguments"):
            run(directory=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    assert_same_weights(run(directory=tmp_path / "run"), run())


def test_one_process_at_a_time(tmp_path):
    run(directory=tmp_path / "run")
    folder = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(RuntimeError, match="run' is in use: another process trains there"):
        run(directory=tmp_path / "run")
    os.close(folder)
    run(directory=tmp_path / "run")


def test_a_disk_without_locks_is_taken(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    run(directory=tmp_path / "run")


def test_what_a_dead_process_left_is_removed(tmp_path):
    run(directory=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    for name in names:
        (tmp_path / "run" / f"unfinished-{name}").write_text("half")
    run(directory=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


def test_damaged_and_older_states_are_refused(tmp_path):
    run(directory=tmp_path / "run")
    state = tmp_path / "run" / "training.pt"
    content = state.read_bytes()
    weights = torch.load(state, weights_only=True)["network"]["readout.weight"]
    at = content.index(weights.numpy().tobytes())
    # a torn file, and one of which one bit of the weights is another
    for damaged in (content[:-100], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
        state.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read as a training state: it is damaged"):
            run(directory=tmp_path / "run")
    torch.save({"network": {}}, state)
    with pytest.raises(ValueError, match=r"another version .*format 1, this one reads 3"):
        run(directory=tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"loss_normalization": "state"}, "config.loss_normalization is 'state', was 'change'"),
        ({"rollout": 2}, "config.rollout is 2, was 1"),
        ({"variable_weights": {"t2m": 2}}, r"config.variable_weights is \[\['t2m', 2.0\]\], was \[\]"),
        ({"seed": 1}, "config.seed is 1, was 0"),
        ({"epochs": 2}, "config.epochs is 2, was 1"),
    ],
    ids=str,
)
def test_a_resume_says_what_changed(config, named, tmp_path):
    run(directory=tmp_path / "run")
    with pytest.raises(ValueError, match=f"another run, as .*{named}"):
        run(directory=tmp_path / "run", config=quick(**config))


def test_what_changes_no_number_may_change_on_resume(tmp_path):
    run(directory=tmp_path / "run")
    run(
        directory=tmp_path / "run",
        config=quick(save_minutes=0, memory=10**9, engine="zarr", activation_checkpointing=True),
    )


def test_the_history_is_a_table_of_every_epoch(tmp_path):
    valid = waves(times=12, start="2001-03-01")
    forecaster = run(valid=valid, config=CONFIG, directory=tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "training_curve.csv")
    speeds = table.pop("windows_per_second")
    pd.testing.assert_frame_equal(table, pd.DataFrame(forecaster.provenance["epochs"]), rtol=1e-15)  # pandas 2 rounds
    assert (speeds > 0).all() and table["epoch"].tolist() == [1, 2, 3]
    # a process that died between state and table: it is there again
    (tmp_path / "run" / "training_curve.csv").unlink()
    run(valid=valid, config=CONFIG, directory=tmp_path / "run")
    assert len(pd.read_csv(tmp_path / "run" / "training_curve.csv")) == 3


def test_states_are_saved_as_often_as_said(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(checkpoint, "save", lambda run, plans, state: saves.append(len(state["losses"])))
    monkeypatch.setattr(checkpoint, "resume", lambda run: None)
    run(config=quick(batch_size=9), directory=tmp_path / "often")
    assert saves == [0], "27 windows in three steps, saved at the end of the epoch"
    saves.clear()
    run(config=quick(batch_size=9, save_minutes=0), directory=tmp_path / "every")
    assert saves == [1, 2, 3, 0]


def test_a_fingerprint_has_no_default_of_a_setting_that_older_runs_lack(tmp_path):
    run(model=tiny_sphere(), config=quick(), directory=tmp_path)
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    names = {name.split(".")[-1] for name in json.loads(saved["fingerprint"])}
    assert not names & {"limit_train_batches", "loss", "members", "crps_share", "noise"} and "epochs" in names
