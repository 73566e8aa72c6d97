"""The network for the sphere in training, files and transfer."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from factories import assert_same_weights, quick, run, stop_after, tiny_model, tiny_sphere, waves, weights

import simvp_climate as sc
from simvp_climate.networks.simvp_sphere import SimVPSphere
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.processing.task import Task

VALID = waves(times=12, start="2001-03-01")
MUON = quick(epochs=2, optimizer="muon", learning_rate=1e-2)


@pytest.fixture(scope="module")
def forecaster():
    return run(model=tiny_sphere(), config=MUON)


def test_the_network_takes_anomalies_from_the_mean_state_of_training(forecaster):
    ds, normalizer = waves(times=30), forecaster.normalizer
    for index, name in enumerate(("z500", "t2m")):
        expected = (ds[name].mean("time").values - normalizer.mean[index]) / normalizer.std[index]
        np.testing.assert_allclose(forecaster.network.mean_field_CHW[index], expected, atol=1e-5)
    assert forecaster.network.config.padding == "periodic"


def test_forecasts_and_summaries_name_the_network(forecaster):
    attributes = forecaster(waves()).attrs
    assert attributes["system"] == "SimVPSphere"
    assert attributes["title"] == "Forecast of z500, t2m by SimVPSphere"
    assert attributes["references"] == "developed from SimVPv2, Tan et al., arXiv:2211.12509"
    millions = sum(weight.numel() for weight in forecaster.network.parameters()) / 1e6
    assert f"SimVPSphere, {millions:.2g} M parameters" in forecaster._repr_html_()
    assert f"{millions:.2g} M parameters" in repr(forecaster)


def test_a_saved_forecaster_forecasts_the_same_bits(forecaster, tmp_path):
    forecaster.save(tmp_path / "f")
    with pytest.raises(ValueError, match="network would be ignored"):
        sc.Forecaster.load(tmp_path / "f", "cpu", network=lambda shape: SimVPSphere(tiny_sphere(), shape))
    loaded = sc.Forecaster.load(tmp_path / "f", "cpu")
    assert isinstance(loaded.network, SimVPSphere) and loaded.network.config == forecaster.network.config
    assert loaded.digest == forecaster.digest
    xr.testing.assert_identical(
        loaded(waves(), every="1D").drop_attrs(deep=False), forecaster(waves(), every="1D").drop_attrs(deep=False)
    )


def test_it_is_trained_by_default(monkeypatch):
    task = Task(["z500", "t2m"])
    config = sc.TrainConfig(limit_train_batches=1, epochs=1, progress=False, precision="32-true", compile=False)
    trained = sc.train(task, waves(times=30), valid=None, config=config, device="cpu")
    assert isinstance(trained.network, SimVPSphere)
    assert (task.history, task.horizon, config.optimizer) == (4, 4, "muon")
    assert trained(waves(times=30))["z500"].notnull().all()


def test_muon_changes_the_result_and_a_stopped_run_resumes_exactly(forecaster, tmp_path, monkeypatch):
    arguments = {"model": tiny_sphere(), "config": dataclasses.replace(MUON, save_minutes=0), "valid": VALID}
    whole = run(directory=tmp_path / "whole", **arguments)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 4)
        run(directory=tmp_path / "run", **arguments)
    resumed = run(directory=tmp_path / "run", **arguments)
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]
    with_adamw = run(model=tiny_sphere(), config=dataclasses.replace(MUON, optimizer="adamw"))
    name = "translator.blocks.0.value_and_gate.weight"
    assert not torch.allclose(weights(with_adamw)[name], weights(forecaster)[name], atol=1e-4)


STILL = quick(learning_rate=1e-30, weight_decay=0.0)


def test_fine_tuning_without_steps_gives_the_same_forecasts(forecaster):
    again = run(waves(times=20, start="2001-02-01"), start_from=forecaster, config=STILL)
    expected = forecaster(waves(), every="1D")
    for name, field in again(waves(), every="1D").data_vars.items():
        np.testing.assert_allclose(field, expected[name], rtol=1e-6)


def test_channels_in_another_order_and_new_ones(forecaster, capsys):
    ds = waves(times=30)
    ds = ds.assign(u10=((ds["z500"] - 5e4) / 100).assign_attrs(units="m s-1"))
    task = Task(["t2m", "u10", "z500"], history=2, horizon=2)
    wide = run(ds, task=task, start_from=forecaster, config=dataclasses.replace(STILL, statistics="inherit"))
    assert "new, with random weights: u10" in capsys.readouterr().out
    old, new = weights(forecaster), weights(wide)
    for name in ("encoder.weight", "skip.weight"):
        by_channel, before = new[name].unflatten(1, (3, 2)), old[name].unflatten(1, (2, 2))
        assert torch.equal(by_channel[:, [2, 0]], before)
    assert torch.equal(new["readout.weight"].unflatten(0, (3, 2))[[2, 0]], old["readout.weight"].unflatten(0, (2, 2)))
    assert torch.equal(new["mean_field_CHW"][[2, 0]], old["mean_field_CHW"])
    assert torch.equal(new["position_Dhw"], old["position_Dhw"])


def test_another_grid_interpolates_the_position_field(forecaster):
    coarse = dataclasses.replace(forecaster, network=copy.deepcopy(forecaster.network))
    coarse.network.position_Dhw.data[:] = torch.arange(4.0)[:, None]  # by row
    fine = waves(np.arange(-84.375, 90, 11.25), np.arange(0, 360, 11.25), times=30)
    other = run(fine, start_from=coarse, config=dataclasses.replace(STILL, statistics="compute"))
    assert other.network.grid == (16, 32)
    expected = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(other.network.position_Dhw[0, :, 5], expected)


def test_another_type_of_network_is_an_error(forecaster):
    with pytest.raises(ValueError, match="SimVPv2Config.*SimVPSphereConfig"):
        run(start_from=forecaster, model=tiny_model())
    with pytest.raises(ValueError, match="blocks=3"):
        run(start_from=forecaster, model=tiny_sphere(blocks=3))


def test_muon_with_divided_weights_is_an_error():
    with pytest.raises(ValueError, match="optimizer='muon'"):
        sc.TrainConfig(strategy="fsdp")
    assert sc.TrainConfig(strategy="fsdp", optimizer="adamw").strategy == "fsdp"


def test_the_published_network_is_still_there():
    published = run(model=tiny_model(padding="zeros", predict="state"), config=STILL)
    assert isinstance(published.network, SimVPv2)


def test_masked_cells_have_no_mean_and_no_forecast():
    ds = waves(times=20)
    ds["t2m"][:, :3, :5] = np.nan
    trained = run(ds, model=tiny_sphere(), config=STILL)
    mean_field_CHW = trained.network.mean_field_CHW
    assert mean_field_CHW.isfinite().all() and (mean_field_CHW[1, :3, :5] == 0).all()
    assert (mean_field_CHW[1, 3:] != 0).all()
    assert trained(ds)["t2m"].isnull().sum() == 2 * 3 * 5


def test_a_forcing_that_becomes_a_variable_takes_its_mean_from_the_new_data():
    height = (("latitude", "longitude"), np.random.default_rng(0).random((8, 16)) * 1000, {"units": "m"})
    forced = Task(["z500"], history=2, horizon=2, forcings=["orography"])
    first = run(waves(times=20).assign(orography=height), task=forced, model=tiny_sphere(), config=STILL)
    ds = waves(times=20).rename(t2m="orography")
    ds["orography"].attrs["units"] = "m"
    task = Task(["z500"], history=2, horizon=2, inputs=["orography"])
    second = run(ds, task=task, start_from=first, config=dataclasses.replace(STILL, statistics="inherit"))
    expected = (ds["orography"].mean("time").values - second.normalizer.mean[1]) / second.normalizer.std[1]
    np.testing.assert_allclose(second.network.mean_field_CHW[1], expected, atol=1e-5)
    assert torch.equal(second.network.mean_field_CHW[0], first.network.mean_field_CHW[0])
