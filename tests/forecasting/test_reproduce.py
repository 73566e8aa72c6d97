import copy
import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from factories import waves
from typer.testing import CliRunner

from simvp_climate.__main__ import app
from simvp_climate.data.opening import open_sample
from simvp_climate.forecasting.ensemble import ensemble, perturbed_ensemble
from simvp_climate.forecasting.pretrained import open_pretrained
from simvp_climate.forecasting.reproduce import reproduce


def test_a_file_names_its_forecaster_and_data(forecaster, tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    ds = xr.open_dataset(tmp_path / "data.nc")
    forecaster(ds, every="12h").to_netcdf(tmp_path / "f.nc")
    attrs = xr.open_dataset(tmp_path / "f.nc", decode_timedelta=True).attrs
    assert attrs["forecaster_sha256"] == forecaster.digest and len(attrs["data_sha256"]) == 64
    assert attrs["data_source"] == str(tmp_path / "data.nc") and attrs["seed"] == 0
    assert {"simvp_climate_version", "history", "source"} <= set(attrs)
    forecaster.save(tmp_path / "m.safetensors")
    again = type(forecaster).load(tmp_path / "m.safetensors", device="cpu")
    assert again.digest == forecaster.digest


def test_the_same_forecast_is_reproduced(forecaster, tmp_path):
    ds = waves()
    forecast = forecaster(ds, every="12h", horizon=6)
    report = reproduce(forecast, forecaster, ds)
    assert report.splitlines() == [
        *("z500: bit by bit the same", "t2m: bit by bit the same", "data: bit by bit those of the forecast")
    ]
    selected = reproduce(forecast.isel(init_time=3, lead_time=[2, 4]), forecaster, ds)
    assert "some of its initializations" in selected
    flipped = ds.isel(latitude=slice(None, None, -1))
    forecaster(flipped, every="24h").to_zarr(tmp_path / "f.zarr", zarr_format=2)
    stored = xr.open_zarr(tmp_path / "f.zarr", decode_timedelta=True)
    assert "data: bit by bit" in reproduce(stored, forecaster, ds)


def test_differences_are_reported(forecaster):
    ds = waves()
    forecast = forecaster(ds, every="12h")
    other = ds.assign(t2m=(ds.t2m + 0.5).assign_attrs(ds.t2m.attrs))
    with pytest.raises(ValueError, match=r"not reproduced.*t2m: differs by at most .*data: not those"):
        reproduce(forecast, forecaster, other)
    with pytest.raises(ValueError, match="no attribute forecaster_sha256"):
        reproduce(forecast.drop_attrs(), forecaster, ds)
    with pytest.raises(ValueError, match=f"SHA-256 000.* not from {forecaster.digest[:12]}"):
        reproduce(forecast.assign_attrs(forecaster_sha256="0" * 64), forecaster, ds)
    with pytest.raises(ValueError, match="members along 'number'.* one forecaster"):
        reproduce(forecast.expand_dims(number=[0, 1]), forecaster, ds)
    with pytest.raises(ValueError, match="must be a multiple of .* step, 6h"):
        leads = forecast.lead_time + np.timedelta64(1, "h")
        reproduce(forecast.assign_coords(lead_time=leads), forecaster, ds)


@pytest.fixture(scope="module")
def second(forecaster):
    """Another forecaster of the same task: one weight differs."""
    network = copy.deepcopy(forecaster.network)
    with torch.no_grad():
        network.readout.bias += 0.01
    return dataclasses.replace(forecaster, network=network)


def test_an_ensemble_of_forecasters(forecaster, second, tmp_path):
    ds = waves()
    members = ensemble([forecaster, second], ds, every="48h")
    members.to_netcdf(tmp_path / "e.nc")
    stored = xr.open_dataset(tmp_path / "e.nc", decode_timedelta=True)
    report = reproduce(stored, [second, forecaster], ds)  # the order does not matter
    assert "z500: bit by bit the same" in report and "data: bit by bit" in report
    assert "t2m: bit by bit the same" in reproduce(stored.isel(number=[1]), [forecaster, second], ds)
    assert "t2m: bit by bit the same" in reproduce(stored.isel(number=1), [forecaster, second], ds)
    with pytest.raises(ValueError, match=f"SHA-256 {second.digest[:12]}.* not from {forecaster.digest[:12]}"):
        reproduce(stored, forecaster, ds)
    with pytest.raises(ValueError, match=f"{second.digest[:12]}.* did not contribute"):
        reproduce(forecaster(ds), [forecaster, second], ds)
    changed = stored.assign(t2m=stored.t2m + 100 * (stored.number == 1))
    with pytest.raises(ValueError, match="not reproduced.*t2m: differs by at most 100"):
        reproduce(changed, [forecaster, second], ds)


def test_a_perturbed_ensemble(forecaster, tmp_path):
    ds, perturbations = waves(), waves(times=400, start="2000-01-01")
    made = perturbed_ensemble(forecaster, ds, perturbations, 0.3, every="96h", members=3, seed=4)
    made.to_netcdf(tmp_path / "p.nc")
    stored = xr.open_dataset(tmp_path / "p.nc", decode_timedelta=True)
    assert "z500: bit by bit the same" in reproduce(stored, forecaster, ds, perturbations=perturbations)
    assert "z500: bit by bit the same" in reproduce(
        stored.isel(number=[0, 2], init_time=[1]), forecaster, ds, perturbations=perturbations
    )
    with pytest.raises(ValueError, match="perturbed ensemble. Pass perturbations"):
        reproduce(stored, forecaster, ds)
    with pytest.raises(ValueError, match="not a perturbed ensemble"):
        reproduce(forecaster(ds), forecaster, ds, perturbations=perturbations)
    with pytest.raises(ValueError, match="not reproduced"):
        reproduce(stored.assign_attrs(perturbation_seed=5), forecaster, ds, perturbations=perturbations)
    assert "z500: bit by bit the same" in reproduce(stored.sel(number=2), forecaster, ds, perturbations=perturbations)
    with pytest.raises(ValueError, match="lacks the coordinate 'number'"):
        reproduce(stored.isel(number=2, drop=True), forecaster, ds, perturbations=perturbations)
    for wrong in (1, 2.5, True):
        with pytest.raises(ValueError, match=f"members={wrong} must be an integer"):
            perturbed_ensemble(forecaster, ds, perturbations, 0.3, members=wrong)


def test_the_command_reproduces_ensembles(forecaster, second, tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    waves(times=400, start="2000-01-01").to_netcdf(tmp_path / "perturbations.nc")
    ds, perturbations = (xr.open_dataset(tmp_path / f"{name}.nc") for name in ("data", "perturbations"))
    models = []
    for name, model in {"a": forecaster, "b": second}.items():
        model.save(tmp_path / f"{name}.safetensors")
        models += ["--forecaster", str(tmp_path / f"{name}.safetensors")]
    ensemble([forecaster, second], ds, every="96h").to_netcdf(tmp_path / "e.nc")
    perturbed_ensemble(forecaster, ds, perturbations, 0.3, every="96h", members=2).to_netcdf(tmp_path / "p.nc")
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "e.nc"), *models])
    assert result.exit_code == 0 and "t2m: bit by bit the same" in result.output, result.output
    perturbed = ["reproduce", str(tmp_path / "p.nc"), *models[:2]]
    result = CliRunner().invoke(app, [*perturbed, "--perturbations", str(tmp_path / "perturbations.nc")])
    assert result.exit_code == 0 and "z500: bit by bit the same" in result.output, result.output
    result = CliRunner().invoke(app, perturbed)
    assert result.exit_code == 1 and "Pass perturbations" in result.output


def test_the_command_reproduces_a_forecast(forecaster, tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    forecaster.save(tmp_path / "m.safetensors")
    forecast = forecaster(xr.open_dataset(tmp_path / "data.nc"), every="12h")
    forecast.to_netcdf(tmp_path / "f.nc")
    model = ["--forecaster", str(tmp_path / "m.safetensors")]
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "f.nc"), *model])
    assert result.exit_code == 0 and "t2m: bit by bit the same" in result.output
    (forecast + 3.0).assign_attrs(forecast.attrs).to_netcdf(tmp_path / "g.nc")
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "g.nc"), *model, "--data", str(tmp_path / "data.nc")])
    assert result.exit_code == 1 and "not reproduced" in result.output
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "nothing.nc"), *model])
    assert result.exit_code == 2


def test_a_forecast_finds_its_forecaster_and_data(forecaster, second, tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    saved = dataclasses.replace(forecaster, source=None)
    before = saved(waves(), every="96h")
    assert "forecaster_source" not in before.attrs
    with pytest.raises(ValueError, match="does not name the file of its forecaster"):
        reproduce(before)
    saved.save(tmp_path / "m.safetensors")
    ds = xr.open_dataset(tmp_path / "data.nc")
    saved(ds, every="96h").to_netcdf(tmp_path / "f.nc")
    stored = xr.load_dataset(tmp_path / "f.nc", decode_timedelta=True)
    assert stored.attrs["forecaster_source"] == str(tmp_path / "m.safetensors")
    assert "t2m: bit by bit the same" in reproduce(stored)
    loaded = type(forecaster).load(tmp_path / "m.safetensors", device="cpu")
    assert loaded.source == saved.source and loaded(ds).attrs["forecaster_source"] == saved.source
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "f.nc")])
    assert result.exit_code == 0 and "t2m: bit by bit the same" in result.output, result.output
    # another forecaster has taken its place
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.safetensors"):
        reproduce(stored)
    assert CliRunner().invoke(app, ["reproduce", str(tmp_path / "f.nc")]).exit_code == 2
    second.save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is from the forecaster with the SHA-256"):
        reproduce(stored)
    with pytest.raises(ValueError, match="does not name its data"):
        reproduce(before, forecaster)


def test_an_ensemble_finds_its_forecasters(forecaster, second, tmp_path):
    waves().to_netcdf(tmp_path / "data.nc")
    for name, model in {"a": forecaster, "b": second}.items():
        model.save(tmp_path / f"{name}.safetensors")
    members = ensemble([forecaster, second], xr.open_dataset(tmp_path / "data.nc"), every="96h")
    assert members.attrs["forecaster_source"].splitlines() == [forecaster.source, second.source]
    assert "t2m: bit by bit the same" in reproduce(members)
    unsaved = ensemble([dataclasses.replace(forecaster, source=None), second], waves())
    assert unsaved.attrs["forecaster_source"] == ""


def test_a_pretrained_forecaster_is_named_by_its_call():
    ds = open_sample().isel(time=slice(0, 8))
    forecast = open_pretrained("sample", device="cpu")(ds)
    assert forecast.attrs["forecaster_source"] == "open_pretrained(sample)"
    assert "data: bit by bit those" in reproduce(forecast)
