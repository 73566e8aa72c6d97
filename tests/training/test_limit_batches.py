"""Epochs of some batches only: which windows they take, and that nothing else changes."""

import json
import sys

import numpy as np
import pytest
import torch
from factories import STREAMED, assert_same_weights, quick, run, stored, waves

from simvp_climate.training import checkpoint, loader, loop, progress

WINDOWS = 27  # of 30 states; batches of 7, 7, 7 and 6


def trained_windows(monkeypatch, **arguments):
    """Return the forecaster, and the windows of each batch in the order of training."""
    batches = []
    original = loop.Loss.forecast

    def forecast(self, network, batch, inits, leads, members=0, input_noise=False):
        if torch.is_grad_enabled():
            batches.append(batch.windows.copy())
        return original(self, network, batch, inits, leads)

    monkeypatch.setattr(loop.Loss, "forecast", forecast)
    forecaster = run(**arguments)
    monkeypatch.undo()
    return forecaster, batches


def test_all_batches_equal_no_limit():
    assert_same_weights(run(config=quick(epochs=2)), run(config=quick(epochs=2, limit_train_batches=4)))


def test_an_epoch_ends_after_the_limit_with_other_windows_each_time(monkeypatch):
    valid = waves(times=12, start="2001-03-01")
    arguments = {"valid": valid, "config": quick(epochs=3, limit_train_batches=2)}
    forecaster, batches = trained_windows(monkeypatch, **arguments)
    assert [len(batch) for batch in batches] == [7, 7] * 3
    # the first batches of each epoch without a limit
    orders = [np.random.default_rng([0, epoch]).permutation(WINDOWS) for epoch in range(3)]
    expected = [order[start : start + 7] for order in orders for start in (0, 7)]
    np.testing.assert_array_equal(batches, expected)
    records = forecaster.provenance["epochs"]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    # half a cosine over 6 steps, of which the first one warms up
    assert records[-1]["learning_rate"] == pytest.approx(1e-3 * 0.5 * (1 + np.cos(np.pi * 4 / 5)))
    assert all(np.isfinite(record["valid_loss"]) for record in records)


def test_the_recorded_loss_is_the_mean_over_the_trained_windows():
    # nearly without a step, the losses of both batches come from the same weights
    tiny = {"learning_rate": 1e-12, "batch_size": 14}  # batches of 14 and 13
    both, first = (run(config=quick(limit_train_batches=limit, **tiny)) for limit in (2, 1))
    joined = run(config=quick(limit_train_batches=2, accumulate_grad_batches=2, **tiny))
    losses = [made.provenance["epochs"][0]["loss"] for made in (both, first, joined)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5) and losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_an_epoch_ends_within_an_accumulated_step(monkeypatch):
    steps = []
    original = loop._set_schedule
    monkeypatch.setattr(loop, "_set_schedule", lambda *arguments: (steps.append(arguments[2:]), original(*arguments)))
    run(config=quick(epochs=2, limit_train_batches=3, accumulate_grad_batches=2))
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize("memory", ["auto", STREAMED], ids=["memory", "stream"])
def test_stopped_within_a_limited_epoch_it_resumes_exactly(tmp_path, monkeypatch, memory):
    ds, config = stored(tmp_path), quick(epochs=2, batch_size=3, limit_train_batches=5, memory=memory, save_minutes=0)
    whole = run(ds, config=config, directory=tmp_path / "whole")
    windows = []
    original = loader.WindowStream.epoch

    def epoch(self, *arguments):
        for batch in original(self, *arguments):
            windows.append(batch.windows)
            if len(windows) == 8:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loader.WindowStream, "epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        run(ds, config=config, directory=tmp_path / "run")
    monkeypatch.undo()
    resumed = run(ds, config=config, directory=tmp_path / "run")
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]


def test_progress_counts_the_windows_of_limited_epochs(monkeypatch):
    bars = []
    original = progress.progress_bar

    def progress_bar(*arguments, **settings):
        bars.append(original(*arguments, **settings))
        return bars[-1]

    monkeypatch.setattr(progress, "progress_bar", progress_bar)
    monkeypatch.setattr(progress, "draws_bars", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(config=quick(epochs=2, limit_train_batches=3, progress=True))
    assert (bars[0].total, bars[0].n) == (42, 42)


def test_runs_saved_before_the_setting_existed_resume(tmp_path):
    run(config=quick(), directory=tmp_path)
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert "config.limit_train_batches" not in json.loads(saved["fingerprint"])
    with pytest.raises(ValueError, match=r"config\.limit_train_batches is new"):
        run(config=quick(limit_train_batches=2), directory=tmp_path)
    assert checkpoint.load_plans(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit_train_batches": 5}, r"limit_train_batches=5 would be ignored, as all windows make 4 \(of 27 windows"),
        (
            {"limit_train_batches": 2, "accumulate_grad_batches": 3},
            "accumulate_grad_batches=3 batches make a step, and an epoch has limit_train_batches=2: take at most 2",
        ),
        ({"limit_train_batches": 0}, "limit_train_batches=0 must be a positive integer, or None"),
        ({"limit_train_batches": 0.5}, "limit_train_batches=0.5 must be a positive integer, or None"),
    ],
)
def test_a_limit_without_effect_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        run(config=quick(**changes))


@pytest.mark.parametrize(
    ("steps", "epochs", "trained"),
    [(3, 1, 3), (4, 1, 4), (7, 1, 4), (9, 2, 8), (12, 3, 12), (100, 3, 12)],
)
def test_a_run_of_limited_steps_is_of_whole_epochs_or_a_part_of_one(monkeypatch, steps, epochs, trained):
    forecaster, batches = trained_windows(monkeypatch, config=quick(epochs=3, max_steps=steps))  # four steps each
    assert (len(forecaster.provenance["epochs"]), len(batches)) == (epochs, trained)
    # the schedule is of these steps: one of warm-up, then half a cosine to zero
    rate = 1e-3 * 0.5 * (1 + np.cos(np.pi * (trained - 2) / (trained - 1)))
    assert forecaster.provenance["epochs"][-1]["learning_rate"] == pytest.approx(rate)


def test_a_step_of_several_batches_counts_once(monkeypatch):
    _, batches = trained_windows(monkeypatch, config=quick(max_steps=1, accumulate_grad_batches=3))
    assert len(batches) == 3
