"""Training of a network with noise on the CRPS, and the members that it forecasts."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import TASK, assert_same_weights, quick, run, tiny_model, tiny_sphere, waves

import simvp_climate as sc
from simvp_climate import metrics
from simvp_climate.forecasting.predict import draw_noise
from simvp_climate.forecasting.reproduce import reproduce
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.training import checkpoint
from simvp_climate.training.loop import TrainingLoop
from simvp_climate.training.loss import _crps

CONFIG = quick(loss="crps", epochs=2, learning_rate=1e-2)
LATER = waves(times=20, start="2001-03-01")


@pytest.fixture(scope="module")
def forecaster():
    return run(noisy_waves(), valid=noisy_waves(20, "2001-03-01"), model=tiny_sphere(noise=4), config=CONFIG)


def noisy_waves(times=60, start="2001-01-01") -> xr.Dataset:
    """Waves with noise that nobody can forecast, with a standard deviation of 100 m2 s-2 and 1 K."""
    random = np.random.default_rng(0)
    ds = waves(times=times, start=start)
    noise = {name: size * random.standard_normal(ds[name].shape) for name, size in (("z500", 100), ("t2m", 1))}
    return ds.assign(
        {name: (ds[name] + value).astype("f4").assign_attrs(ds[name].attrs) for name, value in noise.items()}
    )


def test_crps_of_two_members_by_hand():
    # members 0 and 2, truth 1: mean error 1, mean distance of two different members 2
    members, truth = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    assert float(_crps(members, truth, alpha=1)) == pytest.approx(1 - 2 / 2)
    assert float(_crps(members, truth, alpha=0)) == pytest.approx(1 - 2 / 4)  # over all pairs, also of equal members
    assert float(_crps(members, truth, alpha=0.95)) == pytest.approx(0.05 * 0.5)


def test_fair_crps_is_that_of_the_metrics():
    random = torch.Generator().manual_seed(0)
    members, truth = torch.randn(5, 3, 2, 1, 4, 6, generator=random), torch.randn(3, 2, 1, 4, 6, generator=random)
    shape = {"init_time": pd.date_range("2001", periods=3), "lead_time": pd.to_timedelta([6, 12], "h")}
    shape |= {"latitude": [-60.0, -20, 20, 60], "longitude": np.arange(6) * 60.0}
    forecast = xr.Dataset({"a": (("number", *shape), members[:, :, :, 0].numpy())}, {**shape, "number": range(5)})
    valid = forecast["init_time"] + forecast["lead_time"]
    times = pd.DatetimeIndex(np.unique(valid))
    values = np.zeros((len(times), 4, 6), "f4")
    for init, lead in np.ndindex(3, 2):
        values[times.get_loc(valid.values[init, lead])] = truth[init, lead, 0].numpy()
    analyses = xr.Dataset(
        {"a": (("time", "latitude", "longitude"), values)}, {"time": times, **dict(list(shape.items())[2:])}
    )
    expected = metrics.crps(forecast, analyses, weights=None)["a"].values
    np.testing.assert_allclose(_crps(members, truth, alpha=1).mean((0, 2, 3, 4)), expected, rtol=1e-5)


def test_a_new_network_with_noise_is_the_deterministic_one():
    deterministic = run(model=tiny_sphere())
    config = quick(loss="crps", learning_rate=1e-12, ema_decay=0)
    started = run(start_from=deterministic, config=config)
    assert started.network.config == dataclasses.replace(deterministic.network.config, noise=16)
    expected = deterministic(LATER, horizon=5)
    members = started(LATER, horizon=5, members=3)
    for number, name in itertools.product(range(3), ("z500", "t2m")):
        xr.testing.assert_allclose(members[name].sel(number=number, drop=True), expected[name], rtol=1e-5)


def test_training_widens_the_members_to_what_cannot_be_forecast(forecaster):
    first, last = forecaster.training_curve.iloc[0], forecaster.training_curve.iloc[-1]
    assert first["valid_spread_skill_z500_6h"] < last["valid_spread_skill_z500_6h"]
    trained = run(
        noisy_waves(), valid=noisy_waves(20, "2001-03-01"), start_from=forecaster,
        config=dataclasses.replace(CONFIG, epochs=25),
    )  # fmt: skip
    curve = trained.training_curve
    assert curve["valid_crps_z500_6h"].iloc[-1] < 0.8 * first["valid_crps_z500_6h"]
    assert 0.5 < curve["valid_spread_skill_z500_6h"].iloc[-1] < 1.2


def test_members_depend_on_seed_number_and_initialization_only(forecaster, tmp_path):
    together = forecaster(LATER, every="6h", horizon=5, members=3, seed=1)
    assert together["z500"].dims == ("init_time", "lead_time", "number", "latitude", "longitude")
    assert float(together["z500"].std("number").mean()) > 0
    init = together["init_time"].values[4]
    alone = forecaster(LATER, [init], horizon=2, members=2, seed=1)
    expected = together.isel(init_time=[4], lead_time=slice(0, 2), number=slice(0, 2))
    xr.testing.assert_allclose(alone, expected, rtol=1e-5)
    other = forecaster(LATER, [init], horizon=2, members=2, seed=2)
    assert not np.allclose(other["z500"], alone["z500"], rtol=1e-7)
    stored = forecaster.hindcast(
        LATER, every="6h", horizon=5, members=3, seed=1, store=tmp_path / "a.zarr", progress=False
    )
    xr.testing.assert_allclose(stored.load(), together, rtol=1e-6)


def test_without_members_it_is_the_first_member(forecaster):
    single, members = forecaster(LATER, horizon=5), forecaster(LATER, horizon=5, members=2)
    assert "number" not in single.dims
    xr.testing.assert_allclose(single["t2m"], members["t2m"].isel(number=0, drop=True), rtol=1e-6)


def test_members_are_reproduced_and_written(forecaster, tmp_path):
    forecast = forecaster(LATER, horizon=3, members=2, seed=3)
    forecast.to_netcdf(tmp_path / "forecast.nc")
    with xr.open_dataset(tmp_path / "forecast.nc", decode_timedelta=True) as opened:
        assert "z500" in reproduce(opened.load(), forecaster, LATER)


def test_saved_and_loaded_forecasters_have_the_same_members(forecaster, tmp_path):
    forecaster.save(tmp_path / "a.safetensors")
    loaded = type(forecaster).load(tmp_path / "a.safetensors", device="cpu")
    xr.testing.assert_equal(loaded(LATER, members=2), forecaster(LATER, members=2))


@pytest.mark.parametrize("model", [tiny_sphere(noise=4), tiny_model(noise=4)], ids=["SimVPSphere", "SimVPv2"])
def test_an_exported_program_takes_the_noise(model, tmp_path):
    forecaster = run(noisy_waves(), model=model, config=CONFIG)
    forecaster.export(tmp_path / "a.pt2")
    program = torch.export.load(tmp_path / "a.pt2").module()
    states = torch.from_numpy(LATER[["z500", "t2m"]].to_array().transpose("time", "variable", ...).values[-2:])
    forecast = forecaster(LATER, members=2)
    for member in range(2):
        init = forecast.indexes["init_time"]
        (noise,) = draw_noise(forecaster.network, init, 2, member, 0, torch.device("cpu"))
        result = program(states[None], None, noise[:, None])
        for channel, name in enumerate(("z500", "t2m")):
            expected = forecast[name].isel(number=member).values
            np.testing.assert_allclose(result[:, :, channel], expected, rtol=1e-5)


def test_members_of_the_data_get_noise_of_their_own(forecaster):
    """Two equal members of the data do not stay equal."""
    forecast = forecaster(LATER.expand_dims(number=[0, 1]), horizon=2)
    assert float(forecast["z500"].std("number").mean()) > 0


def test_a_new_network_has_the_weights_of_the_deterministic_one():
    both = [run(model=tiny_sphere(noise=noise), config=quick(learning_rate=1e-12, loss=loss, ema_decay=0))
            for noise, loss in ((0, "mse"), (4, "crps"))]  # fmt: skip
    deterministic, noisy = (forecaster.network.state_dict() for forecaster in both)
    for name, value in deterministic.items():
        torch.testing.assert_close(noisy[name], value, rtol=1e-6, atol=1e-8)


def test_the_training_curve_says_when_the_crps_begins():
    config = quick(loss="crps", epochs=2, limit_train_batches=2)
    assert run(model=tiny_sphere(noise=4), config=config).training_curve.attrs["crps_after"] == 1
    whole = quick(loss="crps", epochs=1, limit_train_batches=2, crps_share=1.0)
    assert "crps_after" not in run(model=tiny_sphere(noise=4), config=whole).training_curve.attrs


def test_the_beginning_of_the_crps_is_counted_in_epochs_that_are_trained():
    """Four steps, half an epoch on the squared error, although fifty epochs are allowed."""
    curve = run(model=tiny_sphere(noise=4), config=quick(loss="crps", epochs=50, max_steps=4)).training_curve
    assert len(curve) == 1 and curve.attrs["crps_after"] == 0.5


def test_epochs_before_the_crps_are_not_kept(monkeypatch):
    """Their noise has no effect, so that all members would be the same."""
    losses = iter([1.0, 2.0, 4.0, 3.0])  # on the CRPS from the third epoch on
    validate = TrainingLoop._validate
    monkeypatch.setattr(TrainingLoop, "_validate", lambda self: {**validate(self), "valid_loss": next(losses)})
    config = quick(loss="crps", epochs=4, patience=1, learning_rate=1e-2)
    forecaster = run(noisy_waves(), valid=noisy_waves(20, "2001-03-01"), model=tiny_sphere(noise=4), config=config)
    assert len(forecaster.training_curve) == 4 and forecaster.training_curve.attrs["kept"] == 4
    assert float(forecaster(LATER, members=2)["z500"].std("number").max()) > 0


def test_adamw_does_not_count_the_steps_without_noise(tmp_path):
    """Else its first steps on the weights of the noise would be several times too large."""
    config = quick(loss="crps", epochs=1, limit_train_batches=4, crps_share=0.5)
    names = list(dict(run(model=tiny_sphere(noise=4), config=config, directory=tmp_path).network.named_parameters()))
    state = torch.load(tmp_path / "training.pt", weights_only=True)["optimizer"]["state"]
    steps = {name: int(state[index]["step"]) for index, name in enumerate(names)}
    noise = {name for name in names if "noise_field" in name or "scale_and_shift" in name}
    assert noise and {steps[name] for name in noise} == {2}
    assert {steps[name] for name in steps.keys() - noise} == {4}


def test_validation_in_groups_is_that_of_all_members_at_once(forecaster):
    """A step so small that the weights stay: 8 members at once, and 4 times 2."""
    curves = [
        run(
            noisy_waves(), valid=noisy_waves(20, "2001-03-01"), start_from=forecaster,
            config=quick(loss="crps", members=members, learning_rate=1e-12, ema_decay=0),
        ).training_curve.iloc[-1]
        for members in (2, 8)
    ]  # fmt: skip
    for column in curves[0].index[curves[0].index.str.startswith("valid_")]:
        assert curves[0][column] == pytest.approx(curves[1][column], rel=0.03), column
    assert curves[0]["valid_spread_skill_t2m_6h"] > 0


def test_activation_checkpointing_changes_no_weight(forecaster):
    config = dataclasses.replace(CONFIG, activation_checkpointing=True)
    again = run(noisy_waves(), valid=noisy_waves(20, "2001-03-01"), model=tiny_sphere(noise=4), config=config)
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(value, forecaster.network.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_a_stopped_run_resumes_exactly(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, rollout=2, rollout_share=0.5, crps_share=0.7)
    whole = run(model=tiny_sphere(noise=4), config=config)
    save = checkpoint.save

    def save_and_stop(run, *arguments):
        save(run, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(model=tiny_sphere(noise=4), config=config, directory=tmp_path)
    monkeypatch.setattr(checkpoint, "save", save)
    assert_same_weights(whole, run(model=tiny_sphere(noise=4), config=config, directory=tmp_path))


def test_the_first_steps_without_start_train_the_squared_error():
    """So that the losses of the first epoch do not depend on the share of steps in the second."""
    shares = [run(model=tiny_sphere(noise=4), config=quick(loss="crps", epochs=2, crps_share=x)) for x in (None, 0.1)]
    assert shares[0].provenance["config"]["crps_share"] == 0.5
    half, tenth = (forecaster.training_curve["loss"] for forecaster in shares)
    assert half[1] == tenth[1] and half[2] != tenth[2]


def test_errors_name_the_way_out(forecaster):
    with pytest.raises(ValueError, match="a network with noise, a SimVPSphereConfig or SimVPv2Config, and .* function"):
        run(model=lambda shape: SimVPv2(tiny_model(padding="zeros"), history=2, channels=2), config=CONFIG)
    with pytest.raises(ValueError, match="noise=4, which loss='mse' does not train: set loss='crps'"):
        run(start_from=forecaster, config=quick())
    with pytest.raises(ValueError, match="noise=8 .it has 4."):
        run(model=dataclasses.replace(forecaster.network.config, noise=8), start_from=forecaster, config=CONFIG)
    with pytest.raises(ValueError, match="members=3 .* are for loss='crps'"):
        quick(members=3)
    with pytest.raises(ValueError, match="members=1 must be an integer of at least 2"):
        quick(loss="crps", members=1)
    with pytest.raises(ValueError, match="this one has none. Train with TrainConfig"):
        run(model=tiny_sphere())(LATER, members=2)
    with pytest.raises(ValueError, match="members=0 must be an integer of at least 1"):
        forecaster(LATER, members=0)
    with pytest.raises(ValueError, match="seed=1 would be ignored without members"):
        forecaster(LATER, seed=1)
    with pytest.raises(ValueError, match="dataset must not have ensemble members"):
        forecaster(LATER.expand_dims(number=2), members=2)


def test_the_training_curve_has_scores_of_the_ensemble(forecaster):
    curve = forecaster.training_curve
    for name in ("crps", "spread_skill"):
        assert {f"valid_{name}_{variable}_{lead}h" for variable in TASK.variables for lead in (6, 12)} <= set(curve)
    assert curve.attrs["units"]["valid_crps_t2m_6h"] == "K"
    assert not any("small_scales" in column for column in curve)  # 16 longitudes do not resolve them


# ---- SimVPv2, which has batch norms


@pytest.fixture(scope="module")
def deterministic_v2():
    return run(noisy_waves(), model=tiny_model(), config=quick(epochs=2, learning_rate=1e-2))


def test_a_simvpv2_with_new_noise_is_the_deterministic_one(deterministic_v2):
    started = run(start_from=deterministic_v2, config=quick(loss="crps", learning_rate=1e-12, ema_decay=0))
    assert started.network.config == dataclasses.replace(deterministic_v2.network.config, noise=16)
    assert started.network.noise_grid == (16, 4, 8)  # the grid of 8 x 16 cells, halved
    members, expected = started(LATER, horizon=5, members=2), deterministic_v2(LATER, horizon=5)
    for number, name in itertools.product(range(2), ("z500", "t2m")):
        xr.testing.assert_allclose(members[name].sel(number=number, drop=True), expected[name], rtol=1e-5)


def test_a_simvpv2_learns_to_spread_with_the_statistics_of_its_batch_norms_frozen(deterministic_v2, tmp_path):
    valid = noisy_waves(20, "2001-03-01")
    config = dataclasses.replace(CONFIG, epochs=15)
    trained = run(noisy_waves(), valid=valid, start_from=deterministic_v2, config=config)
    before = deterministic_v2.network.state_dict()
    statistics = {name: value for name, value in trained.network.state_dict().items() if "running" in name}
    assert len(statistics) == 8
    for name, value in statistics.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    curve = trained.training_curve
    assert curve["valid_spread_skill_z500_6h"].iloc[-1] > 0.4
    assert curve["valid_crps_z500_6h"].iloc[-1] < 0.9 * curve["valid_crps_z500_6h"].iloc[0]
    trained.save(tmp_path / "a.safetensors")
    loaded = type(trained).load(tmp_path / "a.safetensors", device="cpu")
    xr.testing.assert_equal(loaded(LATER, members=2), trained(LATER, members=2))
    # one factor for its noise, as for the default network
    calibrated = sc.calibrate_noise(trained, valid, horizon=2, every="18h", members=4)
    assert 0.25 <= calibrated.provenance["noise_factor"] <= 4


def test_a_simvpv2_from_nothing_trains_its_batch_norms_before_the_crps():
    config = quick(loss="crps", epochs=2, crps_share=0.5)
    trained = run(model=tiny_model(noise=4), config=config)
    counts = {int(value) for name, value in trained.network.state_dict().items() if "num_batches" in name}
    assert counts == {4}  # half of two epochs of 27 windows in batches of 8


def test_a_simvpv2_with_noise_is_built_for_a_grid():
    with pytest.raises(ValueError, match=r"noise=4 needs the sizes of the grid: SimVPv2\(..., grid="):
        SimVPv2(tiny_model(noise=4, padding="zeros"), history=2, channels=2)
    network = SimVPv2(tiny_model(noise=4, padding="zeros"), history=2, channels=2, grid=(9, 16))
    assert network.noise_grid == (4, 5, 8)
    with pytest.raises(ValueError, match=r"Noise of shape \(1, 4, 8, 5\): it must be \(windows, 4, 5, 8\)"):
        network(torch.zeros(1, 2, 2, 9, 16), None, torch.zeros(1, 4, 8, 5))
