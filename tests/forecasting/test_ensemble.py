import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import waves

from simvp_climate.forecasting.ensemble import ensemble, fit_amplitude, perturbed_ensemble
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.forecasting.predict import predict
from simvp_climate.metrics.score import score


@pytest.fixture(scope="module")
def other(forecaster, tmp_path_factory):
    """The same forecaster with other weights."""
    path = tmp_path_factory.mktemp("other") / "f.safetensors"
    forecaster.save(path)
    result = Forecaster.load(path, device="cpu")
    for value in result.network.parameters():
        value.data.mul_(1.01)
    return result


@pytest.fixture(scope="module")
def states():
    """Two years of states in random order."""
    ds = waves(times=60)
    random = np.random.default_rng(0)
    times = pd.date_range("1999-01-01", "2000-12-31T18:00", freq="6h", unit="ns")
    positions = random.integers(0, 60, size=len(times))
    return ds.isel(time=positions).assign_coords(time=times)


def test_an_ensemble_has_the_forecasts_of_each_forecaster(forecaster, other):
    ds = waves()
    result = ensemble([forecaster, other], ds, every="24h")
    assert result.t2m.dims == ("init_time", "lead_time", "number", "latitude", "longitude")
    xr.testing.assert_equal(result.isel(number=0, drop=True), forecaster(ds, every="24h"))
    xr.testing.assert_equal(result.isel(number=1, drop=True), other(ds, every="24h"))
    assert result.attrs["forecaster_sha256"] == f"{forecaster.digest} {other.digest}"
    table = score(result, ds)
    assert np.isfinite(table.t2m.sel(system="2 forecasters", metric=["crps", "spread"])).all()


def test_an_ensemble_is_the_same_after_netcdf(forecaster, other, tmp_path):
    result = ensemble([forecaster, other], waves(), every="24h")
    result.to_netcdf(tmp_path / "f.nc")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "f.nc", decode_timedelta=True), result)


def test_too_few_or_repeated_forecasters_are_errors(forecaster, other):
    ds = waves()
    with pytest.raises(ValueError, match="1 forecasters .* at least two"):
        ensemble([forecaster], ds)
    with pytest.raises(ValueError, match=f"{forecaster.digest[:12]}.* repeated"):
        ensemble([forecaster, other, forecaster], ds)


@pytest.mark.slow
def test_a_store_holds_the_same_ensemble(forecaster, other, states, tmp_path, monkeypatch):
    ds = waves()
    monkeypatch.setattr("simvp_climate.forecasting.hindcast._BATCH_BYTES", 1)  # one initialization at a time
    calls = {
        "seeds": lambda **options: ensemble([forecaster, other], ds, every="24h", **options),
        "perturbed": lambda **options: perturbed_ensemble(
            forecaster, ds, states, 0.3, every="24h", members=3, **options
        ),
    }
    for name, call in calls.items():
        expected = call()
        assert expected.sizes["init_time"] > 2
        result = call(store=tmp_path / f"{name}.zarr", progress=False)
        xr.testing.assert_allclose(result.load(), expected, rtol=1e-5)
        for key in ("forecaster_sha256", "data_sha256", "system"):
            assert result.attrs[key] == expected.attrs[key]
        assert result.number.attrs == expected.number.attrs
    with pytest.raises(FileExistsError, match="another hindcast: ensemble is '3 members, perturbed by 0.2"):
        perturbed_ensemble(
            forecaster,
            ds,
            states,
            0.2,
            every="24h",
            members=3,
            store=tmp_path / "perturbed.zarr",
            progress=False,
        )
    changed = states.copy(deep=True)
    changed["z500"][1:-1] = states.z500[1:-1].values[::-1]
    with pytest.raises(FileExistsError, match="another hindcast: perturbations"):
        perturbed_ensemble(
            forecaster,
            ds,
            changed,
            0.3,
            every="24h",
            members=3,
            store=tmp_path / "perturbed.zarr",
            progress=False,
        )
    with pytest.raises(FileExistsError, match="is another hindcast"):
        forecaster.hindcast(ds, every="24h", store=tmp_path / "perturbed.zarr", progress=False)


def test_an_interrupted_ensemble_resumes(forecaster, other, tmp_path, monkeypatch):
    ds, calls = waves(), []
    monkeypatch.setattr("simvp_climate.forecasting.hindcast._BATCH_BYTES", 1)

    def stop(*args):
        calls.append(args)
        if len(calls) == 5:  # two for each initialization
            raise KeyboardInterrupt
        return predict(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("simvp_climate.forecasting.member_forecasts.predict", stop)
        ensemble([forecaster, other], ds, every="24h", store=tmp_path / "e.zarr", progress=False)
    assert not (tmp_path / "e.zarr").exists()
    result = ensemble([forecaster, other], ds, every="24h", store=tmp_path / "e.zarr", progress=False)
    xr.testing.assert_allclose(result.load(), ensemble([forecaster, other], ds, every="24h"), rtol=1e-5)


class TestPerturbed:
    def test_pairs_lie_around_the_analysis(self, forecaster, states):
        ds = waves()
        result = perturbed_ensemble(forecaster, ds, states, 1e-3, every="48h", members=5)
        plain = forecaster(ds, every="48h")
        assert result.t2m.dims == ("init_time", "lead_time", "number", "latitude", "longitude")
        np.testing.assert_array_equal(result.t2m.sel(number=4), plain.t2m)
        # small perturbations grow linearly: the mean of a pair is the unperturbed forecast
        deviation = result.t2m - plain.t2m
        assert float(abs(deviation.sel(number=0)).max()) > 1e-3
        pair = deviation.sel(number=0) + deviation.sel(number=1)
        assert float(abs(pair).max()) < 0.1 * float(abs(deviation.sel(number=0)).max())
        assert not np.allclose(deviation.sel(number=0), deviation.sel(number=2))

    def test_perturbations_depend_on_their_initialization_only(self, forecaster, states):
        ds = waves()
        whole = perturbed_ensemble(forecaster, ds, states, 0.1, every="48h", members=2, seed=3)
        single = perturbed_ensemble(
            forecaster, ds, states, 0.1, init_times=whole.init_time[[4]].values, members=2, seed=3
        )
        np.testing.assert_allclose(single.t2m[0], whole.t2m[4], rtol=1e-5)
        again = perturbed_ensemble(forecaster, ds, states, 0.1, every="48h", members=2, seed=4)
        assert not np.allclose(again.t2m, whole.t2m)

    def test_perturbations_are_converted_to_the_units_of_training(self, forecaster, states):
        ds = waves()
        celsius = ds.assign(t2m=(ds.t2m - 273.15).assign_attrs(units="degC"))
        cool = states.assign(t2m=(states.t2m - 273.15).assign_attrs(units="degC"))
        first = perturbed_ensemble(forecaster, ds, states, 0.1, every="96h", members=2)
        second = perturbed_ensemble(forecaster, celsius, cool, 0.1, every="96h", members=2)
        np.testing.assert_allclose(second.t2m + 273.15, first.t2m, atol=2e-3)
        # perturbations in other units than the data
        meters = states.assign(z500=(states.z500 / 9.80665).assign_attrs(units="m"))
        third = perturbed_ensemble(forecaster, ds, meters, 0.1, every="96h", members=2)
        np.testing.assert_allclose(third.z500, first.z500, rtol=1e-5)

    def test_the_fitted_amplitude_gives_a_spread_as_large_as_the_error(self, forecaster, states):
        ds = waves()
        amplitude = fit_amplitude(forecaster, ds, states, every="48h", members=4)
        assert 1e-3 < amplitude < 2
        result = perturbed_ensemble(forecaster, ds, states, amplitude, every="48h", members=4)
        table = score(result, ds, metrics=["spread_skill_ratio"]).sel(system="SimVPv2, perturbed")
        ratio = np.mean([float(table[name].sel(metric="spread_skill_ratio")[-1]) for name in table])
        assert ratio == pytest.approx(1, abs=0.1)

    def test_invalid_settings_are_errors(self, forecaster, states):
        ds = waves()
        with pytest.raises(ValueError, match="amplitude=0"):
            perturbed_ensemble(forecaster, ds, states, 0)
        with pytest.raises(ValueError, match="members=1"):
            perturbed_ensemble(forecaster, ds, states, 0.1, members=1)
        with pytest.raises(ValueError, match="no two states at .* UTC"):
            perturbed_ensemble(forecaster, ds, states.isel(time=slice(600, 700)), 0.1)
        later = states.assign_coords(time=states.time + np.timedelta64(400, "D"))
        for call in (lambda: fit_amplitude(forecaster, ds, later),
                     lambda: perturbed_ensemble(forecaster, ds, later, 0.1, every="24h")):  # fmt: skip
            with pytest.raises(ValueError, match=r"states of the perturbations, 2001-01-.* period of the forecasts"):
                call()
