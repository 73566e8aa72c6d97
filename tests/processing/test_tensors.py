"""Input-only and output-only variables from training to the labeled forecast."""

import numpy as np
import pytest
import torch
from factories import quick, tiny_model, waves

from simvp_climate.data.reader import Channel
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.processing import tensors
from simvp_climate.processing.task import Task
from simvp_climate.training.train import train


@pytest.fixture(scope="module")
def ds():
    ds = waves(times=60)
    # rain follows from the temperature one step earlier, and no variable shows the rain itself
    ds["tp"] = (abs(ds["t2m"].shift(time=1).fillna(280.0) - 280) * 1e-5).assign_attrs(units="m")
    ds["u10"] = (ds["t2m"] * 0.1).assign_attrs(units="m s-1")
    return ds


@pytest.fixture(scope="module")
def forecaster(ds):
    task = Task(["z500"], inputs=["t2m", "u10"], diagnostics=["tp"], history=3, horizon=3, transforms={"tp": "log"})
    valid = ds.isel(time=slice(40, None))
    return train(
        task, ds.isel(time=slice(0, 40)), valid=valid, model=tiny_model(), config=quick(epochs=2), device="cpu"
    )


def test_channel_roles():
    channels = [Channel("z", 500.0), Channel("z", 850.0), Channel("t2m", None), Channel("tp", None)]
    task = Task(["z"], [500, 850], inputs=["t2m"], diagnostics=["tp"], forcings=["orography"], history=2, horizon=2)
    levels = ["z at level 500", "z at level 850"]
    inputs, outputs = [*levels, "t2m", "orography"], [*levels, "tp"]
    expected = tensors.ChannelRoles([0, 1, 2], [0, 1, 3], 2, [], ["orography"], inputs, outputs)
    assert tensors.channel_roles(task, channels) == expected


def test_network_channels_and_forecast_variables(forecaster, ds):
    network = forecaster.network
    assert (network.channels, network.output_channels, network.shared_channels) == (3, 2, 1)
    assert network.change_scale_TC.shape == (3, 1)
    with_rain, without = forecaster(ds), forecaster(ds.drop_vars("tp"))
    assert list(without) == ["z500", "tp"]
    assert without["tp"].dims == without["z500"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert without["tp"].attrs["units"] == "m"
    assert float(without["tp"].min()) >= 0  # the bound of the logarithm
    np.testing.assert_array_equal(with_rain["tp"], without["tp"])
    assert {"valid_rmse_z500_6h", "valid_rmse_tp_18h"} <= set(forecaster.provenance["epochs"][-1])
    assert not any("t2m" in name for name in forecaster.provenance["epochs"][-1])


def test_a_saved_forecaster_keeps_the_roles(forecaster, ds, tmp_path):
    forecaster.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors", device="cpu")
    assert loaded.task == forecaster.task
    np.testing.assert_array_equal(loaded(ds)["tp"], forecaster(ds)["tp"])


def test_units_of_inputs_are_converted(forecaster, ds):
    celsius = ds.assign(t2m=(ds["t2m"] - 273.15).assign_attrs(units="degC"))
    np.testing.assert_allclose(forecaster(celsius)["z500"], forecaster(ds)["z500"], rtol=1e-5)


def test_missing_inputs_and_too_long_horizons_raise(forecaster, ds):
    with pytest.raises(ValueError, match=r"horizon=4 .*inputs=\['t2m', 'u10'\]"):
        forecaster(ds, horizon=4)
    with pytest.raises(ValueError, match="u10"):
        forecaster(ds.drop_vars("u10"))


def test_the_loss_covers_only_output_channels(ds):
    # noise cannot be forecast: if the input were in the loss, the loss would not fall
    rng = np.random.default_rng(0)
    noise = ds["t2m"].copy(data=280 + rng.normal(size=ds["t2m"].shape).astype("f4"))
    task = Task(["z500"], inputs=["t2m"], history=2, horizon=2)
    trained = train(
        task,
        ds.assign(t2m=noise),
        valid=None,
        model=tiny_model(hidden_space=8, hidden_time=16),
        config=quick(epochs=40, learning_rate=1e-2, ema_decay=0.0),
        device="cpu",
    )
    losses = [epoch["loss"] for epoch in trained.provenance["epochs"]]
    assert losses[-1] < 0.1 * losses[0]


def test_a_rollout_forecasts_diagnostics(ds):
    task = Task(["z500"], diagnostics=["tp"], history=2, horizon=4)
    trained = train(task, ds, valid=None, model=tiny_model(), config=quick(), device="cpu")
    forecast = trained(ds, horizon=7)
    assert forecast["tp"].shape[:2] == (1, 7)
    assert bool(np.isfinite(forecast["tp"]).all())


def test_an_exported_program_has_the_roles(forecaster, ds, tmp_path):
    forecaster.export(tmp_path / "f.pt2")
    program = torch.export.load(tmp_path / "f.pt2").module()
    states = np.stack([ds[name].values[-3:] for name in ("z500", "t2m", "u10")], axis=1)[None]
    forecast = program(torch.from_numpy(states)).numpy()
    expected = forecaster(ds)
    for channel, name in enumerate(("z500", "tp")):
        scale = float(expected[name].std())
        np.testing.assert_allclose(forecast[0, :, channel], expected[name][0], atol=1e-5 * scale, rtol=0)
