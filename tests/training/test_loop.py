"""The training loop: schedules, steps, validation, stop policy, and losses that explode."""

import dataclasses
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import assert_same_weights, quick, run, waves, weights
from lightning_fabric.loggers import CSVLogger

from simvp_climate.metrics.deterministic import rmse
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, loop, progress
from simvp_climate.training.loss import Loss


def test_patience_counts_from_the_start_of_the_rollout():
    records = [{"valid_loss": loss} for loss in (3.0, 1.0, 2.0, 2.0, 2.0)]
    stale = loop._out_of_patience
    assert [stale(records[:count], 2, 0) for count in range(6)] == [False, False, False, False, True, True]
    # the rollout begins with the fourth epoch: two epochs of it are waited for
    assert [stale(records[:count], 2, 3) for count in range(6)] == [False] * 5 + [True]
    assert not stale(records, None, 0)
    # the second epoch is no candidate: the third is the best, with two epochs after it
    assert [stale(records[:count], 2, 2, 2) for count in range(6)] == [False] * 5 + [True]
    improving = [{"valid_loss": loss} for loss in (1.0, 4.0, 3.0, 2.0)]
    assert not stale(improving, 1, 1, 1)


def test_weights_that_are_not_finite_are_not_blamed_on_validation_data(monkeypatch):
    step = torch.optim.AdamW.step

    def poisoned(self, *arguments):
        step(self, *arguments)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    # one step an epoch: no loss is seen that tells
    config = quick(batch_size=99, ema_decay=0.0)
    with pytest.raises(FloatingPointError, match="weights are no longer finite in epoch 1 of 1.*lower TrainConfig"):
        run(valid=waves(times=12, start="2001-03-01"), config=config)


def test_one_cycle_equals_the_schedule_of_torch():
    total, config = 37, quick(schedule="one-cycle", warmup=0.3, learning_rate=0.02)
    ours, theirs = (torch.optim.AdamW([torch.zeros(1, requires_grad=True)], betas=(0.9, 0.99)) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.02, total_steps=total, pct_start=0.3)
    rates = []
    for step in range(total):
        loop._set_schedule(ours, config, step, total)
        rates.append(ours.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        assert ours.param_groups[0]["betas"] == pytest.approx(theirs.param_groups[0]["betas"], rel=1e-9)
        theirs.step()
        if step + 1 < total:
            scheduler.step()
    assert max(rates) < 0.0201 and np.argmax(rates) == 10


def test_cosine_rises_linearly_and_falls_to_zero():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    rates = []
    for step in range(104):
        loop._set_schedule(optimizer, quick(warmup=4 / 104, learning_rate=1.0), step, 104)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    # half a cosine over 100 steps: 0.5 in its middle, 0 after its end
    assert rates[54] == pytest.approx(0.5) and rates[4] == 1 and 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_shortest_schedules_are_finite(schedule, epochs):
    config = quick(schedule=schedule, batch_size=99, epochs=epochs)
    assert np.isfinite(run(config=config).provenance["epochs"][-1]["loss"])


def test_accumulated_batches_equal_one_batch(monkeypatch):
    # as in forecasting, batch normalization looks at no other window
    monkeypatch.setattr(SimVPv2, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
    one = quick(batch_size=27, epochs=3, learning_rate=1e-2)
    many = dataclasses.replace(one, batch_size=8, accumulate_grad_batches=4)  # of 7, 7, 7 and 6 windows
    whole, parts = run(config=one), run(config=many)
    start = run(config=dataclasses.replace(one, learning_rate=1e-30, weight_decay=0.0))
    moved = (weights(whole)["readout.weight"] - weights(start)["readout.weight"]).abs().max()
    assert moved > 1e-3
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=0, atol=1e-5, msg=name)
    for first, second in zip(whole.provenance["epochs"], parts.provenance["epochs"], strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    # three batches a step: the last step of an epoch has one
    assert np.isfinite(
        run(config=dataclasses.replace(many, accumulate_grad_batches=3)).provenance["epochs"][-1]["loss"]
    )


def test_the_rollout_comes_last_and_is_validated_throughout(monkeypatch):
    seen = {True: [], False: []}
    forecast = Loss.forecast

    def note(self, network, batch, inits, leads, members=0, input_noise=False):
        seen[torch.is_grad_enabled()].append((leads, batch.states.shape[1]))
        return forecast(self, network, batch, inits, leads)

    monkeypatch.setattr(Loss, "forecast", note)
    config = quick(epochs=2, rollout=3, rollout_share=0.4)  # 23 windows of 8 states: three batches of 8
    valid = waves(times=12, start="2001-03-01")
    forecaster = run(valid=valid, config=config)
    assert seen[True] == [(2, 8)] * 4 + [(6, 8)] * 2
    assert seen[False] == [(6, 8)] * 2
    assert forecaster.task.horizon == 2
    with pytest.raises(ValueError, match="dataset has no window of 8 states"):
        run(waves(times=7), config=config)


def test_training_stops_when_validation_stops_improving(tmp_path):
    valid = waves(times=12, start="2001-03-01")
    valid = valid.isel(time=slice(None, None, -1)).assign_coords(time=valid["time"])
    config = quick(epochs=12, learning_rate=0.02, ema_decay=0.0, patience=2)
    forecaster = run(valid=valid, config=config, directory=tmp_path / "run")
    losses = [epoch["valid_loss"] for epoch in forecaster.provenance["epochs"]]
    assert len(losses) == np.argmin(losses) + 3 < 12
    again = run(valid=valid, config=config, directory=tmp_path / "run")
    assert again.provenance["epochs"] == forecaster.provenance["epochs"]
    assert_same_weights(again, forecaster)
    with pytest.raises(ValueError, match="patience=2 .*give valid"):
        run(config=config)


def test_a_learning_rate_that_is_too_high_is_an_error():
    with pytest.raises(FloatingPointError, match=r"lower TrainConfig.learning_rate \(now 1e\+30\) or gradient_clip"):
        run(config=quick(epochs=30, learning_rate=1e30, gradient_clip=1e30))


def spoil(monkeypatch, factor, after=0):
    """Multiply the loss of the batch with the window initialized at 2001-01-03 00:00, after some batches."""
    call, seen = Loss.__call__, []

    def spoiled(self, network, batch, inits, leads, members):
        seen.append(1)
        hit = pd.Timestamp("2001-01-03") in inits[batch.windows] and len(seen) > after
        return call(self, network, batch, inits, leads, members) * (factor if hit else 1)

    monkeypatch.setattr(Loss, "__call__", spoiled)


def test_a_nan_loss_names_the_windows_and_leaves_the_last_good_state(tmp_path, monkeypatch):
    config = quick(epochs=3, batch_size=3, save_minutes=0)
    whole = run(config=dataclasses.replace(config, save_minutes=10))
    spoil(monkeypatch, np.nan, after=10)  # in the second epoch of nine batches
    with pytest.raises(FloatingPointError) as caught:
        run(config=config, directory=tmp_path / "run")
    message = str(caught.value)
    assert re.search(r"the loss became nan in epoch 2 of 3, after step \d of 9, in the windows initialized at", message)
    assert "2001-01-03 00:00:00" in message and message.count("2001-01-") == 3
    assert "lower TrainConfig.learning_rate (now 0.001) or gradient_clip (now 1.0)" in message
    assert "precision" not in message and "is the last good one" in message
    monkeypatch.undo()
    saved = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    assert len(saved["records"]) == 1 and np.isfinite(saved["losses"]).all()
    resumed = run(config=config, directory=tmp_path / "run")
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]


@pytest.mark.parametrize(("factor", "stops"), [(2000, True), (300, False)])
def test_an_exploding_loss_is_an_error(factor, stops, monkeypatch):
    config = quick(epochs=4, batch_size=3)
    spoil(monkeypatch, factor, after=27)  # when the median of 24 batches after the warm-up is known
    if not stops:
        assert np.isfinite(run(config=config).provenance["epochs"][-1]["loss"])
        return
    with pytest.raises(FloatingPointError, match="the loss became .* in epoch 4 of 4, .*2001-01-03 00:00:00"):
        run(config=config)


def test_recent_losses_are_restored_on_resume(tmp_path, monkeypatch):
    config, saves, save = quick(epochs=4, batch_size=3), [], checkpoint.save

    def third_save_then_die(*arguments):
        save(*arguments)
        saves.append(1)
        if len(saves) == 3:  # after the third epoch, 27 batches
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", third_save_then_die)
    with pytest.raises(KeyboardInterrupt):
        run(config=config, directory=tmp_path / "run")
    monkeypatch.undo()
    spoil(monkeypatch, 2000)
    with pytest.raises(FloatingPointError, match="the loss became .* in epoch 4 of 4, .*2001-01-03 00:00:00"):
        run(config=config, directory=tmp_path / "run")


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    update, steps = loop._update_ema, []

    def broken(average, network, decay, step):
        steps.append(1)
        if len(steps) == 3:  # a step whose loss was finite, and whose update was not
            network.state_dict()["readout.weight"].fill_(torch.inf)
        update(average, network, decay, step)

    monkeypatch.setattr(loop, "_update_ema", broken)
    config = quick(save_minutes=0, precision="bf16-mixed")
    with pytest.raises(FloatingPointError, match="the weights are no longer finite in epoch 1 .*precision='32-true'"):
        run(config=config, directory=tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    assert len(saved["losses"]) == 2 and torch.isfinite(saved["network"]["readout.weight"]).all()


def test_the_training_curve_has_validation_errors_in_physical_units():
    valid = waves(times=14, start="2001-03-01")
    hole = np.zeros((8, 16), bool)
    hole[2, 3:9] = True  # no values there at any time

    def cut(ds):
        return ds.assign(t2m=ds["t2m"].where(~xr.DataArray(hole, dims=("latitude", "longitude"))))

    task = Task(["z500", "t2m"], history=2, horizon=3)
    # the loss counts cells alike; the errors are those of the sphere all the same
    forecaster = run(cut(waves(times=30)), valid=cut(valid), task=task, config=quick(area_weighted=False))
    (epoch,) = forecaster.provenance["epochs"]
    errors = ["valid_rmse_z500_6h", "valid_rmse_t2m_6h", "valid_rmse_z500_18h", "valid_rmse_t2m_18h"]
    assert list(epoch) == ["epoch", "loss", "learning_rate", "valid_loss", *errors]
    forecast = forecaster(cut(valid), init_times=valid["time"].values[1:-3])
    expected = rmse(forecast, cut(valid))
    for name in errors:
        _, _, variable, lead = name.split("_")
        assert epoch[name] == pytest.approx(float(expected[variable].sel(lead_time=lead)), rel=1e-4)


def test_a_logger_of_fabric_gets_the_training_curve(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    valid = waves(times=12, start="2001-03-01")
    forecaster = run(valid=valid, config=quick(epochs=6, batch_size=3), logger=logger)  # 54 steps
    table = pd.read_csv(Path(logger.log_dir) / "metrics.csv").set_index("step")
    epochs = table.dropna(subset="loss")
    assert epochs.index.tolist() == [9, 18, 27, 36, 45, 54]
    history = pd.DataFrame(forecaster.provenance["epochs"])
    np.testing.assert_allclose(epochs[list(history)].values, history.values, rtol=1e-6)
    assert (epochs["windows_per_second"] > 0).all()
    assert table["running_loss"].dropna().index.tolist() == [50]
    with pytest.raises(ValueError, match=r"logger is a str: give a logger of lightning_fabric.loggers"):
        run(logger="tensorboard")


def test_the_progress_bar_shows_loss_the_last_error_and_speed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    forecaster = run(valid=waves(times=12, start="2001-03-01"), config=quick(epochs=2, progress=True))
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert "54/54" in last and "windows/s" in last
    record = forecaster.provenance["epochs"][-1]  # of the second epoch, whose validation comes after its last step
    errors = f"z500 12h {record['valid_rmse_z500_12h']:.4g} m2 s-2, t2m 12h {record['valid_rmse_t2m_12h']:.4g} K"
    assert f"loss {record['loss']:.4g}, {errors}" in last


def test_a_log_has_a_line_per_epoch_and_per_minute(capsys, monkeypatch, tmp_path):
    minutes = iter(range(1000))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 61.0 * next(minutes)))
    monkeypatch.setattr(loop, "LOSS_CHECK_EVERY", 1)
    settings = dict(valid=waves(times=12, start="2001-03-01"), directory=tmp_path / "run")
    forecaster = run(config=quick(epochs=2, progress=True), **settings)
    output = capsys.readouterr().err
    assert "\r" not in output
    lines = output.splitlines()
    for record in forecaster.provenance["epochs"]:
        (line,) = [line for line in lines if line.startswith(f"epoch {record['epoch']} of 2: ")]
        assert f"loss {record['loss']:.4g}, validation loss {record['valid_loss']:.4g}, z500 12h " in line
        assert " windows/s" in line and line.endswith(f"saved in {str(tmp_path / 'run')!r}")
        assert (" left" in line) == (record["epoch"] == 1)
        within = [line for line in lines if line.startswith(f"epoch {record['epoch']} of 2, ")]
        assert within and all(re.search(r"\d %: loss [\d.]+; [\d.]+ windows/s, .* left$", line) for line in within)


def test_a_nan_validation_loss_is_an_error(monkeypatch):
    valid = waves(times=12, start="2001-03-01")
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_validate", lambda self: {"valid_loss": np.nan})
        with pytest.raises(FloatingPointError, match="the loss on valid is nan in epoch 1"):
            run(valid=valid)
    # beyond what float32 can square, at a plausible mean
    valid["t2m"][3:5, 0, :2] = [1e30, -1e30]
    with pytest.raises(ValueError, match="t2m of valid is -1e.30 K .*2001-03-01 18:00.*fill value"):
        run(valid=valid)
