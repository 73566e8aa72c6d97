import numpy as np
import pytest
import xarray as xr
from conftest import waves
from typer.testing import CliRunner

from simvp_climate.__main__ import app
from simvp_climate.provenance import reproduce


def test_a_file_says_where_it_comes_from(forecaster, tmp_path):
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


def test_the_same_again(forecaster, tmp_path):
    ds = waves()
    forecast = forecaster(ds, every="12h", horizon=6)
    words = reproduce(forecast, forecaster, ds)
    assert words.splitlines() == [
        *("z500: bit by bit the same", "t2m: bit by bit the same", "data: bit by bit those of the forecast")
    ]
    part = reproduce(forecast.isel(init_time=3, lead_time=[2, 4]), forecaster, ds)
    assert "some of its initializations" in part
    turned = ds.isel(latitude=slice(None, None, -1))
    forecaster(turned, every="24h").to_zarr(tmp_path / "f.zarr", zarr_format=2)
    stored = xr.open_zarr(tmp_path / "f.zarr", decode_timedelta=True)
    assert "data: bit by bit" in reproduce(stored, forecaster, ds)


def test_what_differs_is_said(forecaster):
    ds = waves()
    forecast = forecaster(ds, every="12h")
    other = ds.assign(t2m=(ds.t2m + 0.5).assign_attrs(ds.t2m.attrs))
    with pytest.raises(ValueError, match=r"not reproduced.*t2m: differs by at most .*data: not those"):
        reproduce(forecast, forecaster, other)
    with pytest.raises(ValueError, match="has no attribute forecaster_sha256"):
        reproduce(forecast.drop_attrs(), forecaster, ds)
    with pytest.raises(ValueError, match=r"SHA-256 000.*this one has"):
        reproduce(forecast.assign_attrs(forecaster_sha256="0" * 64), forecaster, ds)
    with pytest.raises(ValueError, match="is an ensemble along 'number'"):
        reproduce(forecast.expand_dims(number=[0, 1]), forecaster, ds)
    with pytest.raises(ValueError, match="no multiple of the forecaster's step"):
        leads = forecast.lead_time + np.timedelta64(1, "h")
        reproduce(forecast.assign_coords(lead_time=leads), forecaster, ds)


def test_the_command(forecaster, tmp_path):
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
