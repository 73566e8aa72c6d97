"""Train from the outside: seeds, best epoch, settings, padding, fine-tuning."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from factories import assert_same_weights, quick, run, tiny_model, waves, weights

from simvp_climate.processing.task import Task


@pytest.mark.slow
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


def test_training_leaves_the_random_numbers_of_the_caller_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run()
    torch.testing.assert_close(torch.rand(3), expected)


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


def test_fine_tuning_starts_from_the_weights_and_statistics():
    start = run()
    longer = Task(["z500", "t2m"], history=2, horizon=4)
    tuned = run(task=longer, start_from=start, config=quick(learning_rate=1e-9))
    np.testing.assert_array_equal(tuned.normalizer.mean, start.normalizer.mean)
    torch.testing.assert_close(weights(tuned)["readout.weight"], weights(start)["readout.weight"])
    with pytest.raises(ValueError, match="history=3 must be 2.*start_from"):
        run(task=Task(["z500", "t2m"], history=3), start_from=start)
    with pytest.raises(ValueError, match="is not the network of start_from"):
        run(start_from=start, model=tiny_model(blocks=3))
    celsius = waves(times=30)
    celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
    with pytest.raises(ValueError, match=r"t2m is in 'degC', start_from was trained in 'K', .*\* 1 \+ 273.15"):
        run(celsius, start_from=start)


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
def test_ineffective_settings_are_errors(config, more, message):
    with pytest.raises(ValueError, match=message):
        run(config=quick(**config), **more)


def test_a_padding_that_does_not_fit_the_grid_is_refused():
    region = waves(times=30).isel(longitude=slice(0, 9))
    for padding in ("periodic", "sphere"):
        with pytest.raises(ValueError, match=f"padding='{padding}' needs longitudes .* 9 go from 0 to 180: .*'zeros'"):
            run(region, model=tiny_model(padding=padding))
    band = waves(times=30).isel(latitude=slice(1, 7))
    with pytest.raises(ValueError, match="poles, and the latitudes from -56.25 to 56.25"):
        run(band, model=tiny_model(padding="sphere"))
    with pytest.raises(ValueError, match="rows are at -78.75 and 78.75: take padding='sphere'"):
        run(waves(times=30), model=tiny_model(padding="sphere_with_poles"))


def test_sphere_padding_follows_rows_on_the_poles():
    ds = waves(np.linspace(-90, 90, 9), times=30)
    assert run(ds, model=tiny_model(padding="sphere")).network.config.padding == "sphere_with_poles"
    assert run(waves(times=30), model=tiny_model(padding="sphere")).network.config.padding == "sphere"


def test_padding_follows_the_grid():
    assert run().network.config.padding == "periodic"
    assert run(waves(times=30).isel(longitude=slice(0, 9))).network.config.padding == "zeros"


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


FLAGS = "processor : 0\nflags : fpu avx512f {}\nbugs :\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (FLAGS.format("avx512_bf16"), "bf16-mixed"),
        (FLAGS.format("amx_bf16 amx_tile"), "bf16-mixed"),
        (FLAGS.format("avx512_vnni amx_tile"), "32-true"),
        (None, "32-true"),
    ],
    ids=["avx512_bf16", "amx_bf16", "neither", "not Linux"],
)
def test_automatic_precision_is_bfloat16_on_a_cpu_that_has_it(cpuinfo, expected, monkeypatch, capsys):
    read = Path.read_text

    def read_text(path, *arguments, **options):
        if str(path) != "/proc/cpuinfo":
            return read(path, *arguments, **options)
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    forecaster = run(config=quick(precision="auto", progress=True))
    assert forecaster.provenance["config"]["precision"] == expected
    assert ("training in bfloat16, which this CPU has" in capsys.readouterr().out) == (expected == "bf16-mixed")
    assert run(config=quick(precision="32-true", progress=True)).provenance["config"]["precision"] == "32-true"
    assert "bfloat16" not in capsys.readouterr().out


def test_fabric_prints_nothing_but_warnings(monkeypatch):
    records, handler, fabric = [], logging.Handler(), logging.getLogger("lightning_fabric")
    monkeypatch.setattr(handler, "emit", records.append)
    monkeypatch.setattr(fabric, "handlers", [handler])
    fabric.setLevel(logging.INFO)
    run(config=quick(precision="bf16-mixed"))
    assert not records
    fabric.warning("this")
    assert len(records) == 1


def test_half_precision_with_scaled_gradients_needs_a_gpu():
    with pytest.raises(ValueError, match="precision='16-mixed' needs a CUDA GPU, the device is 'cpu': take 'bf16-mixe"):
        run(config=quick(precision="16-mixed"))
