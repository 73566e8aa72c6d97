import dataclasses
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import STREAMED, TASK, assert_same_weights, quick, run, stored, tiny_model, waves, weights
from lightning_fabric.loggers import CSVLogger

from simvp_climate.data import host_memory
from simvp_climate.data.store import open_dataset
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.metrics.deterministic import rmse
from simvp_climate.networks.memory import activation_bytes
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, loader, loop, provenance
from simvp_climate.training.loss import Loss
from simvp_climate.training.train import train


def test_overfits_four_windows():
    rng = np.random.default_rng(0)
    ds = waves(times=7)
    # noise cannot be forecast, only learned by heart
    ds = ds + xr.zeros_like(ds).map(lambda x: x + rng.normal(size=x.shape).astype("f4") * 50)
    ds["t2m"] = 280 + ds["t2m"] * 0.1
    config = quick(epochs=250, batch_size=4, learning_rate=1e-2, weight_decay=0.0, ema_decay=0.0)
    model = tiny_model(hidden_space=16, hidden_time=32)
    losses = [epoch["loss"] for epoch in run(ds, model=model, config=config).provenance["epochs"]]
    assert losses[-1] < 0.02 * losses[0]


def test_same_seed_same_weights():
    model = tiny_model(drop_path=0.3)
    first, again = run(model=model), run(model=model)
    assert_same_weights(first, again)
    other = run(model=model, config=quick(seed=1))
    assert not torch.equal(weights(first)["readout.weight"], weights(other)["readout.weight"])


def test_the_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run()
    torch.testing.assert_close(torch.rand(3), expected)


def test_statistics_come_from_training_times_alone():
    train_ds = waves(times=30)
    valid = waves(times=20, start="2001-03-01") * 1.05
    alone, with_valid = run(train_ds), run(train_ds, valid=valid)
    np.testing.assert_array_equal(alone.normalizer.mean, with_valid.normalizer.mean)
    np.testing.assert_array_equal(alone.normalizer.std, with_valid.normalizer.std)
    weight = np.cos(np.deg2rad(train_ds["latitude"]))
    expected = train_ds["t2m"].astype("f8").weighted(weight).mean().item()
    assert alone.normalizer.mean[1] == pytest.approx(expected, rel=1e-6)
    expected = train_ds["t2m"].astype("f8").weighted(weight).std().item()
    assert alone.normalizer.std[1] == pytest.approx(expected, rel=1e-4)


def test_best_epoch_is_kept_on_valid():
    valid = waves(times=12, start="2001-03-01")
    # waves that travel west: what is learned from those that travel east makes it worse
    valid = valid.isel(time=slice(None, None, -1)).assign_coords(time=valid["time"])
    forecaster = run(valid=valid, config=quick(epochs=4, learning_rate=0.02, ema_decay=0.0))
    epochs = forecaster.provenance["epochs"]
    losses = [epoch["valid_loss"] for epoch in epochs]
    assert len(losses) == 4 and min(losses) < losses[-1], "the case must have its best epoch before the last"
    # the error of the returned forecaster in units of the typical change is the loss of the best epoch
    forecast = forecaster(valid, init_times=valid["time"].values[1:-2])
    statistics = forecaster.normalizer
    weight = np.cos(np.deg2rad(valid["latitude"]))
    error = [
        (((forecast - valid.sel(time=forecast.valid_time))[name] / statistics.change_std[lead, channel]) ** 2)
        .isel(lead_time=lead)
        .weighted(weight)
        .mean()
        for channel, name in enumerate(["z500", "t2m"])
        for lead in range(2)
    ]
    assert float(np.mean(error)) == pytest.approx(min(losses), rel=1e-3)
    assert forecaster.provenance["validation"].startswith("2001-03-01")
    assert run().provenance["validation"] == "none: the weights of the last epoch were kept"


def test_a_dataset_that_was_changed_trains_on_its_own_values(tmp_path):
    waves().to_zarr(tmp_path / "store.zarr", consolidated=False)
    lazy = open_dataset(tmp_path / "store.zarr", ["z500", "t2m"])
    shifted = run((lazy - 20).isel(time=slice(0, 30)))
    plain = run(lazy.isel(time=slice(0, 30)))
    np.testing.assert_allclose(shifted.normalizer.mean, plain.normalizer.mean - 20, rtol=1e-5)
    np.testing.assert_allclose(shifted.normalizer.std, plain.normalizer.std, rtol=1e-3)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
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


def test_a_streamed_run_goes_on_where_it_stopped_whatever_memory_there_is(tmp_path, monkeypatch):
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


def test_streamed_and_kept_runs_see_the_same_windows(tmp_path):
    ds = stored(tmp_path)
    kept, streamed = run(ds), run(ds, config=quick(memory=STREAMED))
    np.testing.assert_allclose(kept.normalizer.mean, streamed.normalizer.mean, rtol=1e-12)
    first, second = (f.provenance["epochs"][0]["loss"] for f in (kept, streamed))
    assert first == pytest.approx(second, rel=0.05) and first != second


def test_a_store_that_changes_under_the_run_is_an_error(tmp_path, monkeypatch):
    ds = stored(tmp_path)
    chunk = next(
        path for path in (tmp_path / "s.zarr" / "t2m").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: (save(*arguments), os.utime(chunk, (1, 1))))
    with pytest.raises(ValueError, match="the store of dataset changed"):
        run(ds, config=quick(epochs=2, memory=STREAMED))


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


def test_fine_tuning_starts_from_the_weights_and_statistics():
    start = run()
    longer = Task(["z500", "t2m"], history=2, horizon=4)
    tuned = run(task=longer, start_from=start, config=quick(learning_rate=1e-9))
    np.testing.assert_array_equal(tuned.normalizer.mean, start.normalizer.mean)
    torch.testing.assert_close(weights(tuned)["readout.weight"], weights(start)["readout.weight"])
    with pytest.raises(ValueError, match="history=3, start_from has 2"):
        run(task=Task(["z500", "t2m"], history=3), start_from=start)
    with pytest.raises(ValueError, match="is not the network of start_from"):
        run(start_from=start, model=tiny_model(blocks=3))
    celsius = waves(times=30)
    celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
    with pytest.raises(ValueError, match=r"t2m is in 'degC', start_from was trained in 'K', .*\* 1 \+ 273.15"):
        run(celsius, start_from=start)


def test_the_series_that_is_too_short_is_named():
    with pytest.raises(ValueError, match=r"dataset\[1\] has no window of 4 states"):
        run([waves(times=30), waves(times=3, start="2001-05-01")])


def fractions(times=30, start="2001-01-01"):
    ds = waves(times=times, start=start)
    cover = ((ds["t2m"] - 240) / 60).clip(0, 1).assign_attrs(units="1")
    return ds[[]].assign(tcc=cover)


def test_scales_that_are_not_said_do_not_mix():
    task = Task(["tcc"], history=2, horizon=2)
    percent = fractions()
    percent["tcc"] = (percent["tcc"] * 100).assign_attrs(units="%")
    later = fractions(12, "2001-03-01").drop_attrs()
    with pytest.raises(ValueError, match=r"tcc has no units in dataset\[1\], but '%'"):
        run([percent, later], task=task)
    for change in ({"valid": later}, {"start_from": run(percent, task=task)}):
        dataset = percent if "valid" in change else later
        with pytest.raises(ValueError, match="tcc of .* mean 0.6.* trained with 6"):
            run(dataset, task=task, **change)
    with pytest.raises(ValueError, match="tcc of the dataset averages 0.58"):
        run(percent, task=task)(later)


def test_a_season_that_varies_little_is_valid_where_it_says_its_units():
    calm = fractions(12, "2001-03-01")
    calm["tcc"] = (calm["tcc"] * 0 + 0.6).assign_attrs(units="1")
    task = Task(["tcc"], history=2, horizon=2)
    assert np.isfinite(run(fractions(), task=task, valid=calm).provenance["epochs"][0]["valid_loss"])
    with pytest.raises(ValueError, match="tcc of valid has mean 0.6"):
        run(fractions(), task=task, valid=calm.drop_attrs())


def test_bounds_hold_for_valid_and_fine_tuning_too():
    task = Task(["tcc"], history=2, horizon=2, transforms={"tcc": (0, 1)})
    double = fractions(12, "2001-03-01") * 1.5
    double["tcc"].attrs["units"] = "1"
    with pytest.raises(ValueError, match="'tcc'.* within 0 to 1, but tcc of valid goes from"):
        run(fractions(), task=task, valid=double)
    with pytest.raises(ValueError, match="'tcc'.* within 0 to 1, but tcc of dataset goes from"):
        run(double, task=task, start_from=run(fractions(), task=task))


def test_series_with_another_field_without_time_are_refused():
    ds = waves(times=30)
    hills = xr.DataArray(np.random.default_rng(0).random((8, 16)), dims=("latitude", "longitude"))
    task = Task(["z500", "t2m"], history=2, horizon=2, forcings=["orography"])
    first, second = ds.assign(orography=hills), ds.assign(orography=hills[::-1].values + 0 * hills)
    assert len(run([first, first], task=task).statics) == 1
    with pytest.raises(ValueError, match=r"'orography' in forcings differs between .*dataset\[1\]"):
        run([first, second], task=task)
    with pytest.raises(ValueError, match="'orography'.* not in the data"):
        run([first, ds], task=task)


def test_a_step_that_does_not_fit_is_refused_before_it_begins_with_a_batch_that_fits(monkeypatch):
    config = quick(batch_size=10)
    sizes = {"hidden_space": 4, "hidden_time": 8, "blocks": 2, "mlp_ratio": 2.0, "drop_path": 0.0}
    network = SimVPv2(SimVPv2Config(**sizes, padding="periodic"), history=2, channels=2)
    window = activation_bytes(network, 2, (8, 16))
    monkeypatch.setattr(host_memory, "free_memory", lambda: int(4.2 * 1.25 * window))
    with pytest.raises(
        MemoryError,
        match=r"batch_size=10 .*batch_size=4 with accumulate_grad_batches=3 .*activation_checkpointing=True",
    ):
        run(config=config)
    few = waves(times=7)  # four windows, whatever the batch may hold
    assert run(few, config=quick(batch_size=10**4)).provenance["epochs"]
    with pytest.raises(MemoryError, match="network has .* weights, .* are free: take a smaller"):
        run(model=tiny_model(hidden_time=10**5))
    for fits in (quick(batch_size=4, accumulate_grad_batches=3), quick(batch_size=10, activation_checkpointing=True)):
        assert run(config=fits).provenance["epochs"]


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ({"validation_windows": 9}, {}, "validation_windows=9 would be ignored without valid"),
        ({"save_minutes": 1}, {}, "save_minutes=1.0 would be ignored without directory"),
        (
            {"accumulate_grad_batches": 99},
            {},
            r"accumulate_grad_batches=99 batches make a step, and an epoch has 4 \(of 27 windows",
        ),
    ],
)
def test_settings_that_would_be_ignored(config, more, message):
    with pytest.raises(ValueError, match=message):
        run(config=quick(**config), **more)


def test_patience_waits_for_the_rollout():
    records = [{"valid_loss": loss} for loss in (3.0, 1.0, 2.0, 2.0, 2.0)]
    stale = loop._out_of_patience
    assert [stale(records[:count], 2, 0) for count in range(6)] == [False, False, False, False, True, True]
    # the rollout begins with the fourth epoch: two epochs of it are waited for
    assert [stale(records[:count], 2, 3) for count in range(6)] == [False] * 5 + [True]
    assert not stale(records, None, 0)


def test_weights_that_are_not_finite_are_not_called_bad_validation_data(monkeypatch):
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


def test_a_run_that_another_version_began_goes_on_and_says_so(tmp_path, monkeypatch):
    run(config=quick(epochs=2), directory=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    state["versions"]["torch"] = "1.0"
    torch.save(state, tmp_path / "run" / "training.pt")
    with pytest.warns(UserWarning, match="saved by torch 1.0 .now 2.*different digits"):
        run(config=quick(epochs=2), directory=tmp_path / "run")


def test_a_padding_that_the_grid_does_not_have_is_refused():
    region = waves(times=30).isel(longitude=slice(0, 9))
    for padding in ("periodic", "sphere"):
        with pytest.raises(ValueError, match=f"padding='{padding}' needs longitudes .* 9 go from 0 to 180: .*'zeros'"):
            run(region, model=tiny_model(padding=padding))
    band = waves(times=30).isel(latitude=slice(1, 7))
    with pytest.raises(ValueError, match="poles, and the latitudes from -56.25 to 56.25"):
        run(band, model=tiny_model(padding="sphere"))
    with pytest.raises(ValueError, match="rows are at -78.75 and 78.75: take padding='sphere'"):
        run(waves(times=30), model=tiny_model(padding="sphere_with_poles"))


def test_across_poles_that_have_rows():
    ds = waves(np.linspace(-90, 90, 9), times=30)
    assert run(ds, model=tiny_model(padding="sphere")).network.config.padding == "sphere_with_poles"
    assert run(waves(times=30), model=tiny_model(padding="sphere")).network.config.padding == "sphere"


def test_padding_follows_the_grid():
    assert run().network.config.padding == "periodic"
    assert run(waves(times=30).isel(longitude=slice(0, 9))).network.config.padding == "zeros"


def hole(ds, when=5):
    ds = ds.copy(deep=True)
    ds["t2m"][when, 2, 3] = np.nan
    return ds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hole, "t2m is nan at 2001-01-02 06:00, latitude -33.75, longitude 67.5; 1 of 30 times"),
        (
            lambda ds: ds.assign(t2m=ds["t2m"] * 0 + 273),
            "t2m is constant, 273",
        ),
        (lambda ds: ds.isel(time=slice(0, 3)), "dataset has no window of 4 states"),
        (lambda ds: ds.drop_vars("t2m"), "no variable 't2m'.*which has .'z500'"),
        (lambda ds: ds.isel(time=[1, 0, 2, 3, 4, 5]), "must increase"),
        (lambda ds: ds.expand_dims(quantile=2), "quantile.*list of series"),
        (lambda ds: ds.mean("time"), "time"),
    ],
)
def test_bad_data_is_refused_before_training(change, message):
    with pytest.raises(ValueError, match=message):
        run(change(waves(times=30)))


def test_missing_values_that_no_window_reads_are_ignored():
    ds = waves(times=30)
    alone = hole(ds, when=12).drop_isel(time=[10, 14])  # three times left between two gaps: no window of four
    assert len(run(alone).provenance["epochs"]) == 1


def test_wrong_step_grid_and_overlap_are_refused():
    ds = waves(times=30)
    with pytest.raises(ValueError, match="step='9h' is not a multiple of the step of dataset"):
        run(ds, task=Task(["t2m"], history=2, horizon=2, step="9h"))
    with pytest.raises(ValueError, match="training and validation overlap: 10 times .* 2001-01-06"):
        run(ds, valid=ds.isel(time=slice(20, None)))
    with pytest.raises(ValueError, match="training and validation overlap"):  # though they share no time
        run(
            ds.isel(time=slice(0, None, 2)),
            valid=ds.isel(time=slice(1, None, 2)),
            task=Task(["t2m"], None, 2, 2, "12h"),
        )
    celsius = waves(times=12, start="2001-03-01")
    celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
    with pytest.raises(ValueError, match="t2m is in 'K' in one series and in 'degC' in another"):
        run(ds, valid=celsius)
    unsaid = waves(times=12, start="2001-03-01")
    unsaid["t2m"] = (unsaid["t2m"] - 273.15).drop_attrs()
    with pytest.raises(ValueError, match="t2m of valid has mean .* trained with"):
        run(ds, valid=unsaid)
    with pytest.raises(ValueError, match="dataset has type NoneType.*xarray.Dataset"):
        train(TASK, None, valid=None, device="cpu")
    with pytest.raises(ValueError, match="device=.'cpu'. is not available"):
        train(TASK, ds, valid=None, device=["cpu"])
    with pytest.raises(ValueError, match="config is a dict: give a TrainConfig"):
        run(ds, config={"epochs": 3})
    with pytest.raises(ValueError, match=r"start_from is a str: give a Forecaster, Forecaster.load\(path\)"):
        run(ds, start_from="f.safetensors")
    with pytest.raises(ValueError, match="device='gpu' is not available: choose 'auto' or one of"):
        train(TASK, ds, valid=None, device="gpu")
    with pytest.raises(ValueError, match="grids differ"):
        run(ds, valid=waves(times=12, start="2001-03-01").isel(latitude=slice(0, 5)))
    with pytest.raises(ValueError, match="type Path|type PosixPath|type str"):
        run("era5.zarr")


def test_the_learning_rate_of_one_cycle_is_that_of_torch():
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


def test_the_learning_rate_of_cosine_goes_up_linearly_and_down_to_zero():
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


def test_accumulated_batches_are_one_batch(monkeypatch):
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

    def note(self, network, batch, inits, leads):
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


def test_training_stops_when_validation_gets_no_better(tmp_path):
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


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "weight_decay": 0.0, "gradient_clip": None},
        {"schedule": "one-cycle"},
        {"loss_normalization": "state", "area_weighted": False},
        {"precision": "bf16-mixed"},
        {"lead_weights": (1.0, 0.5), "variable_weights": {"z500": 2.0}},
        {"rollout": 2, "rollout_share": 1.0},
    ],
    ids=str,
)
def test_every_kind_of_training_learns(changes):
    config = quick(epochs=8, learning_rate=1e-2, **changes)
    forecaster = run(config=config)
    losses = [epoch["loss"] for epoch in forecaster.provenance["epochs"]]
    assert losses[-1] < 0.8 * losses[0]
    stored = forecaster.provenance["config"]
    for name, value in changes.items():
        wanted = {(1.0, 0.5): [1.0, 0.5]}.get(value, value) if name != "variable_weights" else [["z500", 2.0]]
        assert stored[name] == wanted


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_activations_computed_again_are_the_same_to_the_last_bit(precision):
    model, config = tiny_model(drop_path=0.3), quick(epochs=2, rollout=2, precision=precision)
    kept = run(model=model, config=config)
    assert_same_weights(kept, run(model=model, config=dataclasses.replace(config, activation_checkpointing=True)))


def test_half_precision_with_scaled_gradients_needs_a_gpu():
    with pytest.raises(ValueError, match="precision='16-mixed' needs a CUDA GPU, the device is 'cpu': take 'bf16-mixe"):
        run(config=quick(precision="16-mixed"))


def test_a_learning_rate_that_is_too_high_is_an_error():
    with pytest.raises(FloatingPointError, match=r"lower TrainConfig.learning_rate \(now 1e\+30\) or gradient_clip"):
        run(config=quick(epochs=30, learning_rate=1e30, gradient_clip=1e30))


def spoil(monkeypatch, factor, after=0):
    """Multiply the loss of the batch with the window initialized at 2001-01-03 00:00, after some batches."""
    call, seen = Loss.__call__, []

    def spoiled(self, network, batch, inits, leads):
        seen.append(1)
        hit = pd.Timestamp("2001-01-03") in inits[batch.windows] and len(seen) > after
        return call(self, network, batch, inits, leads) * (factor if hit else 1)

    monkeypatch.setattr(Loss, "__call__", spoiled)


def test_a_loss_that_is_no_number_names_the_windows_and_leaves_the_last_good_state(tmp_path, monkeypatch):
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
def test_a_loss_far_beyond_the_usual_is_an_error(factor, stops, monkeypatch):
    config = quick(epochs=4, batch_size=3)
    spoil(monkeypatch, factor, after=27)  # when the median of 24 batches after the warm-up is known
    if not stops:
        assert np.isfinite(run(config=config).provenance["epochs"][-1]["loss"])
        return
    with pytest.raises(FloatingPointError, match="the loss became .* in epoch 4 of 4, .*2001-01-03 00:00:00"):
        run(config=config)


def test_what_is_usual_is_known_after_a_stop_too(tmp_path, monkeypatch):
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


def test_the_history_has_the_validation_errors_in_physical_units():
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


def test_any_logger_of_fabric_gets_the_history(tmp_path):
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


def test_the_progress_bar_says_loss_error_and_speed(capsys):
    run(valid=waves(times=12, start="2001-03-01"), config=quick(epochs=2, progress=True))
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert "54/54" in last and "windows/s" in last
    assert re.search(r"loss [\d.]+, z500 12h [\d.]+ m2 s-2, t2m 12h [\d.]+ K", last)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def test_a_step_that_does_not_fit_into_memory_says_what_takes_less(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Loss, "__call__", fail)
    with pytest.raises(
        MemoryError,
        match="batch_size=4 with accumulate_grad_batches=2 .*activation_checkpointing=True .*or a shorter rollout",
    ):
        run(config=quick(rollout=2))
    with pytest.raises(MemoryError) as caught:
        run(config=quick(batch_size=1, activation_checkpointing=True, precision="bf16-mixed"))
    assert str(caught.value).endswith("Take a smaller SimVPv2Config")


def test_other_errors_of_torch_are_not_taken_for_it(monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Loss, "__call__", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run()


def test_provenance_says_how_the_network_came_about(tmp_path):
    first = run(directory=tmp_path / "run").provenance
    # builds for a GPU say so after a +, which a wheel's own version may leave out
    assert (
        first["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        and {"zarr", "lightning-fabric"} <= first["versions"].keys()
    )
    assert first["device"].startswith("cpu") and first["config"]["precision"] == "32-true"
    assert first["config"]["seed"] == 0 and first["training"] == "2001-01-01 00:00:00 to 2001-01-08 06:00:00"
    assert first["training_sha256"] == run().provenance["training_sha256"]
    changed = waves(times=30)
    changed["t2m"][7, 2, 3] += 1
    assert first["training_sha256"] != run(changed).provenance["training_sha256"]
    assert Forecaster.load(tmp_path / "run" / "forecaster.safetensors", "cpu").provenance == first


def test_the_commit_is_that_of_the_package_alone(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "package.py"
    package.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package))
    assert provenance._commit() is None
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "other.txt").write_text("")
    subprocess.run([*git, "add", "other.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    assert provenance._commit() is None, "a package installed inside somebody's repository"
    subprocess.run([*git, "add", "package.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "two"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", provenance._commit())
    package.write_text("changed")
    assert re.fullmatch("[0-9a-f]{40}-dirty", provenance._commit())
    monkeypatch.setenv("PATH", "")
    assert provenance._commit() is None


def test_a_validation_loss_that_is_no_number_is_an_error(monkeypatch):
    valid = waves(times=12, start="2001-03-01")
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_validate", lambda self: {"valid_loss": np.nan})
        with pytest.raises(FloatingPointError, match="the loss on valid is nan in epoch 1"):
            run(valid=valid)
    # beyond what float32 can square, at a plausible mean
    valid["t2m"][3:5, 0, :2] = [1e30, -1e30]
    with pytest.raises(ValueError, match="t2m of valid has mean .* standard deviation inf"):
        run(valid=valid)


def test_memory_that_is_too_little_is_named():
    with pytest.raises(MemoryError, match=r"memory=1000 gives 0.000954 MiB, and to stream these windows takes"):
        run(config=quick(memory=1000))
