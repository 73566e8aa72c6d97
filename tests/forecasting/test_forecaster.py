import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import GLOBAL, quick, tiny_model, waves
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simvp_climate import plot
from simvp_climate.data import progress
from simvp_climate.data.opening import open_dataset
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.metrics.score import score
from simvp_climate.processing.task import Task
from simvp_climate.training.train import train

matplotlib.use("agg")


def test_dimensions_times_and_attributes_of_a_forecast(forecaster):
    forecast = forecaster(waves(), every="12h")
    assert forecast["t2m"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert list(forecast.data_vars) == ["z500", "t2m"]
    assert forecast["init_time"].dt.hour.isin([0, 12]).all()
    # the first init has a full history of 3 states, the last is the last 12-hourly time of the data
    assert forecast["init_time"].values[0] == np.datetime64("2001-01-01T12")
    assert forecast["init_time"].values[-1] == np.datetime64("2001-01-15T12")
    assert forecast["lead_time"].values.tolist() == [np.timedelta64(h, "h").astype("m8[ns]") for h in (6, 12, 18)]
    expected = forecast["init_time"].values[:, None] + forecast["lead_time"].values
    np.testing.assert_array_equal(forecast["valid_time"], expected)
    assert forecast["t2m"].attrs["units"] == "K" and forecast["t2m"].attrs["standard_name"] == "air_temperature"
    assert 200 < forecast["t2m"].mean() < 330 and 4e4 < forecast["z500"].mean() < 6e4


def test_default_is_one_forecast_from_the_last_time(forecaster):
    ds = waves()
    forecast = forecaster(ds)
    assert forecast["init_time"].values.tolist() == [ds["time"].values[-1].astype(int)]
    np.testing.assert_array_equal(forecaster(ds, init_times=[ds.indexes["time"][-1]])["t2m"], forecast["t2m"])


def test_states_after_the_initialization_are_ignored(forecaster):
    ds = waves()
    init = ds["time"].values[30]
    without_future = ds.where(ds["time"] <= init)
    xr.testing.assert_equal(forecaster(without_future, init_times=[init]), forecaster(ds, init_times=[init]))


def test_a_saved_forecaster_forecasts_the_same(forecaster, tmp_path):
    forecaster.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors", device="cpu")
    ds = waves()
    first, second = forecaster(ds, every="1D"), loaded(ds, every="1D")
    xr.testing.assert_identical(first.assign_attrs(history=""), second.assign_attrs(history=""))
    assert loaded.task == forecaster.task and loaded.provenance == forecaster.provenance
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


def test_save_overwrites_forecasters_only(forecaster, tmp_path):
    (tmp_path / "thesis.pdf").write_text("do not lose me")
    with pytest.raises(FileExistsError, match="thesis.pdf.*not a forecaster"):
        forecaster.save(tmp_path / "thesis.pdf")
    assert (tmp_path / "thesis.pdf").read_text() == "do not lose me"
    with pytest.raises(ValueError, match="thesis.pdf.*not a forecaster"):
        Forecaster.load(tmp_path / "thesis.pdf")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Forecaster.load(tmp_path / "none")
    forecaster.save(tmp_path / "f")
    forecaster.save(tmp_path / "f")


@pytest.mark.parametrize("every", ["6h", "12h", "1D", "36h"])
def test_every_counts_from_00_utc(forecaster, every):
    inits = forecaster(waves(start="2001-01-01T06"), every=every).indexes["init_time"]
    assert len(inits) >= 9 and inits[0] < pd.Timestamp("2001-01-04")
    assert ((inits - pd.Timestamp("1970-01-01")) % pd.Timedelta(every) == pd.Timedelta(0)).all()


def test_every_in_other_calendars(forecaster):
    ds = waves()
    ds = ds.assign_coords(time=xr.date_range("2001-02-25", periods=60, freq="6h", calendar="noleap", use_cftime=True))
    forecast = forecaster(ds.isel(time=slice(0, 56)), every="1D")
    assert {time.hour for time in forecast["init_time"].values} == {0} and forecast.sizes["init_time"] == 13
    assert (forecast - ds.sel(time=forecast.valid_time))["t2m"].notnull().all()


def test_longer_horizons_are_rolled_out_and_shorter_ones_cut(forecaster):
    ds = waves()
    long, task, short = (forecaster(ds, horizon=steps) for steps in (7, 3, 1))
    assert long.sizes["lead_time"] == 7 and short.sizes["lead_time"] == 1
    np.testing.assert_allclose(long["t2m"][:, :3], task["t2m"], rtol=1e-6)
    np.testing.assert_allclose(short["t2m"], task["t2m"][:, :1], rtol=1e-6)
    # a rollout equals a forecast from the forecast
    fed_back = task.isel(init_time=0).swap_dims(lead_time="valid_time").rename(valid_time="time")
    fed_back = fed_back.drop_vars(["lead_time", "init_time"])
    again = forecaster(fed_back[["z500", "t2m"]])
    np.testing.assert_allclose(again["z500"][0], long["z500"][0, 3:6], rtol=1e-5)


def test_batches_of_inits_do_not_change_forecasts(forecaster, monkeypatch):
    together = forecaster(waves(), every="1D")
    monkeypatch.setattr("simvp_climate.forecasting.initial_states._BATCH_BYTES", 1)
    np.testing.assert_allclose(forecaster(waves(), every="1D")["t2m"], together["t2m"], rtol=1e-6)


LATITUDE, LONGITUDE = GLOBAL
NOISY = np.rad2deg(np.linspace(0, 2 * np.pi, 16, endpoint=False))
GRIDS = {
    "global": (LATITUDE, LONGITUDE, ("time", "latitude", "longitude")),
    "descending": (LATITUDE[::-1], LONGITUDE, ("time", "lat", "lon")),
    "-180..180": (LATITUDE, LONGITUDE - 180, ("time", "latitude", "longitude")),
    "noisy": (LATITUDE, NOISY, ("time", "latitude", "longitude")),
    "regional": (np.arange(60.0, 20, -2.5), np.arange(-20, 30, 2.5, dtype="f4"), ("time", "lat", "lon")),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_forecasts_align_with_the_data(grid, tmp_path):
    ds = waves(*GRIDS[grid][:2], names=GRIDS[grid][2])
    task = Task(["z500", "t2m"], history=2, horizon=2)
    f = train(task, ds.isel(time=slice(0, 40)), valid=None, model=tiny_model(), config=quick(), device="cpu")
    forecast = f(ds.isel(time=slice(0, 56)), every="12h")
    difference = forecast - ds.sel(time=forecast.valid_time)
    assert list(difference.data_vars) == ["z500", "t2m"]
    assert difference.sizes == forecast.sizes
    assert all(value.notnull().all() for value in difference.values())
    for axis in GRIDS[grid][2][1:]:
        assert forecast[axis].dtype == ds[axis].dtype
        assert forecast[axis].values.tobytes() == ds[axis].values.tobytes()


@pytest.mark.parametrize("grid", ["descending", "-180..180", "noisy"])
def test_the_convention_of_the_data_does_not_change_the_forecast(forecaster, grid):
    latitude, longitude, names = GRIDS[grid]
    ds = waves(latitude, longitude, names=names)
    forecast = forecaster(ds).rename({names[1]: "latitude", names[2]: "longitude"})
    forecast = forecast.assign_coords(longitude=np.round(forecast["longitude"] % 360, 6)).sortby(
        ["latitude", "longitude"]
    )
    np.testing.assert_allclose(forecast["z500"], forecaster(waves())["z500"], rtol=1e-5)


def test_longitude_before_latitude_and_levels_in_pascal():
    ds = waves()
    levels = xr.concat([ds["z500"], ds["z500"] * 0.3], pd.Index([50000.0, 85000.0], name="plev"))
    levels["plev"].attrs.update(units="Pa", standard_name="air_pressure")
    ds = ds[["t2m"]].assign(geopotential=levels.transpose("time", "plev", "longitude", "latitude"))
    task = Task(["geopotential", "t2m"], levels=[850, 500], history=2, horizon=2)
    f = train(task, ds.isel(time=slice(0, 40)), valid=None, model=tiny_model(), config=quick(), device="cpu")
    assert [str(channel) for channel in f.normalizer.channels] == [
        "geopotential at level 850",
        "geopotential at level 500",
        "t2m",
    ]
    forecast = f(ds)
    assert forecast["geopotential"].dims == ("init_time", "lead_time", "plev", "latitude", "longitude")
    assert forecast["plev"].values.tolist() == [85000, 50000] and forecast["plev"].attrs["units"] == "Pa"
    assert forecast["geopotential"].sel(plev=85000).mean() == pytest.approx(0.3 * 4.9e4, rel=0.1)


def test_to_netcdf_writes_a_cf_file(forecaster, tmp_path):
    import netCDF4

    forecast = forecaster(waves(), every="1D")
    forecast.to_netcdf(tmp_path / "forecast.nc")
    with xr.open_dataset(tmp_path / "forecast.nc") as back:
        xr.testing.assert_identical(back.load(), forecast)
    with netCDF4.Dataset(tmp_path / "forecast.nc") as file:
        assert file.Conventions == "CF-1.8"
        assert file.dimensions["init_time"].isunlimited()
        for name, standard_name in {
            "init_time": "forecast_reference_time",
            "lead_time": "forecast_period",
            "valid_time": "time",
            "latitude": "latitude",
            "longitude": "longitude",
            "t2m": "air_temperature",
            "z500": "geopotential",
        }.items():
            assert file[name].standard_name == standard_name
            assert ("_FillValue" in file[name].ncattrs()) == (name in ("t2m", "z500"))
        assert file["init_time"].dtype == file["lead_time"].dtype == np.float64
        assert file["init_time"].units == "hours since 1970-01-01" and file["lead_time"].units == "hours"
        assert "valid_time" in file["t2m"].coordinates


def test_calendar_steps(tmp_path):
    ds = waves(times=30)
    ds = ds.assign_coords(time=pd.date_range("1990-01-01", periods=30, freq="MS", unit="ns"))
    task = Task(["t2m"], history=3, horizon=2, step="1MS")
    f = train(task, ds, valid=None, model=tiny_model(), config=quick(), device="cpu")
    forecast = f(ds, horizon=4)
    assert forecast["lead_time"].values.tolist() == [1, 2, 3, 4] and forecast["lead_time"].attrs["units"] == "months"
    assert forecast["valid_time"].dt.strftime("%Y-%m").values.tolist() == [["1992-07", "1992-08", "1992-09", "1992-10"]]
    verified = f(ds, every="1MS").isel(init_time=slice(0, -2))
    assert (verified - ds[["t2m"]].sel(time=verified.valid_time))["t2m"].notnull().all()
    forecast.to_netcdf(tmp_path / "monthly.nc")


def test_times_in_minutes_survive_a_file(tmp_path):
    ds = waves(times=30)
    ds = ds.assign_coords(time=pd.date_range("2001-01-01", periods=30, freq="10min", unit="ns"))
    task = Task(["t2m"], history=2, horizon=2, step="10min")
    f = train(task, ds, valid=None, model=tiny_model(), config=quick(), device="cpu")
    forecast = f(ds, every="10min")
    forecast.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as back:
        xr.testing.assert_identical(back.load(), forecast)


def test_attributes_of_the_analysis_are_dropped(forecaster):
    ds = waves()
    ds["t2m"].attrs.update(valid_range=[0, 1], actual_range=[0, 1], comment="kept")
    attrs = forecaster(ds)["t2m"].attrs
    assert attrs["comment"] == "kept" and "cell_methods" not in attrs
    assert not {"valid_range", "actual_range"} & attrs.keys()


def test_a_forecast_survives_zarr(forecaster, tmp_path):
    forecast = forecaster(waves(), every="1D")
    forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "f.zarr", consolidated=False) as back:
        xr.testing.assert_identical(back.load(), forecast)


def with_hole(ds):
    ds = ds.copy(deep=True)
    ds["t2m"][-1, 2, 3] = np.nan
    return ds


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda ds: ds.isel(latitude=slice(0, 4)), {}, "grid of the training data: .* differ"),
        (lambda ds: ds.assign_coords(longitude=ds["longitude"] + 1), {}, "longitude 0 is 0 against 1"),
        (lambda ds: ds.drop_vars("z500"), {}, "no variable 'z500'"),
        (lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="Pa")), {}, "t2m is in 'Pa'.* 'K'"),
        (lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="degC")), {}, "t2m is 2.* degC .* 362.5 K.* units"),
        (with_hole, {}, "t2m is nan at 2001-01-15 18:00"),
        (lambda ds: ds.isel(time=slice(0, 2)), {}, "no window of 3 states"),
        (lambda ds: ds.drop_isel(time=-2), {}, "2001-01-15 18:00:00: it takes 3 states"),
        (lambda ds: ds, {"init_times": ["2001-01-03T01"]}, "can start at 2001-01-03 01:00:00"),
        (lambda ds: ds, {"init_times": ["2001-01-03"], "every": "12h"}, "not both"),
        (lambda ds: ds, {"horizon": 0}, "horizon=0 must be a positive integer"),
        (lambda ds: ds.isel(time=slice(1, 4)), {"every": "12h"}, "every='12h' matches none of the 1 times"),
        (lambda ds: ds, {"every": "1MS"}, "every='1MS' and step='6h'.* months"),
        (lambda ds: ds, {"every": 6}, "6 is not a time step"),
        (lambda ds: ds["t2m"], {}, "xarray.Dataset, not DataArray"),
        (lambda ds: ds.assign(t2m=(ds["t2m"] - 273.15).drop_attrs()), {}, "t2m of the dataset has mean .* units"),
    ],
)  # fmt: skip
def test_invalid_input_is_an_error(forecaster, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        forecaster(change(waves()), **arguments)


def test_a_single_level_and_a_time_of_another_name(tmp_path):
    ds = waves()[["t2m"]].rename(time="valid_time", t2m="theta").expand_dims(pressure_level=[850.0], axis=1)
    ds["pressure_level"].attrs.update(units="hPa", standard_name="air_pressure", positive="down")
    task = Task(["theta"], history=2, horizon=2)
    f = train(task, ds.isel(valid_time=slice(0, 40)), valid=None, model=tiny_model(), config=quick(), device="cpu")
    forecast = f(ds.isel(valid_time=slice(0, 56)), every="1D")
    named = open_dataset(ds, task.variables)
    difference = forecast - named.sel(time=forecast.valid_time)
    assert difference["theta"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert difference["theta"].notnull().all()
    assert len(plot.maps(forecast, ds).axes) > 3


def test_a_missing_folder_is_an_error(forecaster, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere'"):
        forecaster.save(tmp_path / "nowhere" / "f.safetensors")


def test_units_may_be_spelled_differently(forecaster):
    ds = waves()
    ds["z500"].attrs["units"] = "m**2 s**-2"
    assert forecaster(ds)["z500"].attrs["units"] == "m**2 s**-2"


def test_a_forecaster_is_frozen(forecaster):
    with pytest.raises(dataclasses.FrozenInstanceError):
        forecaster.task = None


@settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    north_first=st.booleans(),
    west=st.sampled_from([0, -180]),
    seam=st.integers(0, 15),
    names=st.sampled_from([("time", "latitude", "longitude"), ("time", "lat", "lon")]),
    order=st.permutations(range(3)),
    celsius=st.booleans(),
    by_name=st.booleans(),
    calendar=st.sampled_from(["standard", "noleap", "360_day"]),
    dask=st.booleans(),
)  # fmt: skip
def test_forecasts_align_with_any_mix_of_conventions(
    forecaster, north_first, west, seam, names, order, celsius, by_name, calendar, dask
):
    """`forecast - ds.sel(time=forecast.valid_time)` is complete and aligned, with the values of the canonical run."""
    plain = waves()
    canonical = forecaster(plain.isel(time=slice(0, 56)), every="1D")
    ds = plain.roll(longitude=seam, roll_coords=True)
    if north_first:
        ds = ds.isel(latitude=slice(None, None, -1))
    ds = ds.assign_coords(longitude=(ds["longitude"] - west) % 360 + west)
    if celsius:
        ds["t2m"] = (ds["t2m"] - 273.15).assign_attrs(units="degC")
    if calendar != "standard":
        when = xr.date_range("2001-01-01", periods=60, freq="6h", calendar=calendar, use_cftime=True)
        ds = ds.assign_coords(time=when)
    ds = ds.rename(dict(zip(("time", "latitude", "longitude"), names, strict=True)))
    ds = ds.transpose(*(names[index] for index in order))
    if by_name:
        ds = ds.rename(t2m="2m_temperature", z500="geopotential_500hPa")
    if dask:
        ds = ds.chunk({names[0]: 7})
    renamed = open_dataset(ds, forecaster.task.variables).rename({"latitude": names[1], "longitude": names[2]})
    forecast = forecaster(ds.isel(time=slice(0, 56)), every="1D")
    difference = forecast - renamed.sel(time=forecast.valid_time)
    for name in ("z500", "t2m"):
        assert difference[name].dims == ("init_time", "lead_time", *names[1:])
        assert difference[name].shape == canonical[name].shape and difference[name].notnull().all()
    assert forecast["t2m"].attrs["units"] == ("degC" if celsius else "K")
    for axis in names[1:]:
        np.testing.assert_array_equal(forecast[axis], ds[axis])
    back = forecast.rename({names[1]: "latitude", names[2]: "longitude"})
    back = back.assign_coords(longitude=back["longitude"] % 360).sortby(["latitude", "longitude"])
    for name, tolerance in (("z500", 0), ("t2m", 3e-3 if celsius else 0)):
        expected = canonical[name].values - (273.15 if celsius and name == "t2m" else 0)
        np.testing.assert_allclose(back[name].values, expected, rtol=0 if tolerance else 1e-6, atol=tolerance)


def train_small(ds, variables=("z500", "t2m"), valid=None, **settings):
    """Return a forecaster trained for one epoch on the first 40 times."""
    task = Task(list(variables), history=2, horizon=2, **settings)
    return train(task, ds.isel(time=slice(0, 40)), valid=valid, model=tiny_model(), config=quick(), device="cpu")


class TestMasks:
    def ocean(self, **options):
        ds = waves(**options)
        land = (ds["latitude"] > 40) & (ds["longitude"] < 100)
        return ds.assign(t2m=ds["t2m"].where(~land))

    def test_cells_without_values_are_masked(self):
        ds = self.ocean()
        made = train_small(ds)
        forecast = made(ds.isel(time=slice(0, 56)), every="12h")
        difference = forecast - ds.sel(time=forecast.valid_time)
        land = ds["t2m"].isel(time=0).isnull()
        assert land.sum() == 2 * 5
        assert (difference["t2m"].isnull() == land).all() and difference["z500"].notnull().all()
        assert np.isfinite(made.provenance["epochs"][0]["loss"])

    def test_masked_cells_do_not_change_the_statistics(self):
        """The statistics are those of the cells with values."""
        ds = self.ocean()
        first, second = train_small(ds), train_small(waves().where(self.ocean()["t2m"].notnull()))
        assert first.normalizer.mean[1] == second.normalizer.mean[1]
        whole = train_small(waves())
        assert abs(first.normalizer.mean[1] - whole.normalizer.mean[1]) > 0.1, "the mask must matter for the test"
        assert first.normalizer.mean[1] == pytest.approx(
            ds["t2m"].isel(time=slice(0, 40)).astype("f8").weighted(np.cos(np.deg2rad(ds["latitude"]))).mean().item(),
            rel=1e-6,
        )

    def test_network_output_in_masked_cells_is_not_fed_back(self):
        ds = self.ocean()
        made = train_small(ds)
        land = torch.from_numpy(made.normalizer.mask)
        assert land.any()

        class WithOffset(torch.nn.Module):
            shared_channels = 2

            def __init__(self, network, offset):
                super().__init__()
                self.network, self.offset = network, torch.nn.Parameter(torch.tensor(offset))
                self.config = network.config

            def forward(self, x, f=None):
                return self.network(x, f) + self.offset * land

        without, with_offset = (
            dataclasses.replace(made, network=WithOffset(made.network, offset)) for offset in (0.0, 100.0)
        )
        xr.testing.assert_equal(without(ds, horizon=7), with_offset(ds, horizon=7))

    def test_bounds_apply_to_states_that_are_fed_back(self):
        ds, middle = waves(), 285.0
        ds["t2m"] = ds["t2m"].clip(max=middle)
        made = train_small(ds, transforms={"t2m": (None, middle)})
        forecast = made(ds, horizon=4)
        assert (forecast["t2m"] <= np.float32(middle)).all()
        # leads three and four are a forecast from the first two leads as the file holds them
        chained = xr.concat(
            [ds.isel(time=[-1]), forecast.isel(init_time=0, lead_time=[0, 1]).swap_dims(lead_time="valid_time")
             .drop_vars(["init_time", "lead_time"]).rename(valid_time="time")[["z500", "t2m"]]], "time"
        )  # fmt: skip
        again = made(chained)
        for name, size in (("z500", 5e4), ("t2m", 300)):
            np.testing.assert_allclose(again[name][0], forecast[name][0, 2:], rtol=0, atol=2e-6 * size)

    def test_a_mask_is_saved(self, tmp_path):
        ds = self.ocean()
        made = train_small(ds)
        made.save(tmp_path / "f.safetensors")
        again = Forecaster.load(tmp_path / "f.safetensors", "cpu")
        xr.testing.assert_equal(made(ds), again(ds))

    def test_a_missing_value_outside_the_mask_is_an_error(self):
        ds = self.ocean()
        made = train_small(ds)
        ds["t2m"][-1, 0, 0] = np.nan
        with pytest.raises(ValueError, match="t2m is nan at 2001-01-15 18:00, latitude -78.75, longitude 0"):
            made(ds)

    def test_a_mask_that_differs_from_training_is_an_error(self):
        made = train_small(waves())
        with pytest.raises(ValueError, match="t2m is nan .* no value at any of the 2 times"):
            made(self.ocean())

    def test_a_mask_in_valid_only_is_an_error(self):
        with pytest.raises(ValueError, match="t2m of valid has no value .* training"):
            train_small(waves(), valid=self.ocean(times=10, start="2001-02-01"))

    def test_masked_forecasts_are_scored(self):
        ds = self.ocean()
        scores = score(train_small(ds)(ds, every="12h"), ds)
        assert scores["t2m"].sel(metric="rmse").notnull().all()


class TestMembers:
    def ensemble(self, name="number", **options):
        members = [waves(**options) + 0.1 * member for member in range(3)]
        for member in members:
            member["z500"].attrs["units"], member["t2m"].attrs["units"] = "m2 s-2", "K"
        return xr.concat(members, xr.DataArray([0, 5, 9], dims=name, name=name))

    @pytest.mark.parametrize("name", ["number", "realization"])
    def test_members_are_trained_on_and_forecast(self, name):
        ds = self.ensemble(name)
        made = train_small(ds)
        forecast = made(ds.isel(time=slice(0, 56)), every="1D")
        assert forecast["t2m"].dims == ("init_time", "lead_time", name, "latitude", "longitude")
        assert forecast[name].values.tolist() == [0, 5, 9]
        difference = forecast - ds.sel(time=forecast.valid_time)
        assert difference["t2m"].notnull().all() and difference["t2m"].sizes == forecast["t2m"].sizes
        alone = made(ds.isel({name: 1, "time": slice(0, 56)}, drop=True), every="1D")
        xr.testing.assert_allclose(alone["t2m"], forecast["t2m"].isel({name: 1}, drop=True), rtol=1e-5)

    def test_members_train_as_a_list_of_series(self):
        ds = self.ensemble()
        first = train_small(ds)
        task, series = first.task, [ds.isel(number=member, time=slice(0, 40), drop=True) for member in range(3)]
        second = train(task, series, valid=None, model=tiny_model(), config=quick(), device="cpu")
        for name, value in first.network.state_dict().items():
            torch.testing.assert_close(value, second.network.state_dict()[name], rtol=0, atol=0)


class TestUnits:
    def test_degrees_celsius_in_and_out(self, forecaster):
        ds = waves()
        celsius = ds.assign(t2m=(ds["t2m"] - 273.15).assign_attrs(units="degC"))
        kelvin, other = forecaster(ds, every="1D"), forecaster(celsius, every="1D")
        assert other["t2m"].attrs["units"] == "degC"
        np.testing.assert_allclose(other["t2m"] + 273.15, kelvin["t2m"], atol=2e-3)
        xr.testing.assert_allclose(other["z500"], kelvin["z500"], rtol=1e-6)

    @pytest.mark.parametrize("units", ["m", "gpm"])
    def test_geopotential_height_for_geopotential(self, forecaster, units):
        ds = waves()
        height = ds.assign(zg500=(ds["z500"] / 9.80665).assign_attrs(units=units)).drop_vars("z500")
        reference, other = forecaster(ds, every="1D"), forecaster(height, every="1D")
        assert other["z500"].attrs["units"] == units
        assert other["z500"].attrs["standard_name"] == "geopotential_height"
        np.testing.assert_allclose(other["z500"] * 9.80665, reference["z500"], rtol=1e-5)

    def test_units_without_an_exact_conversion_are_an_error(self, forecaster):
        ds = waves()
        ds["z500"].attrs["units"] = "K"
        with pytest.raises(ValueError, match="z500 is in 'K'.* 'm2 s-2'.* conversion"):
            forecaster(ds)


class TestForcings:
    def data(self):
        ds = waves()
        height = (("latitude", "longitude"), np.random.default_rng(0).random((8, 16)) * 1000, {"units": "m"})
        return ds.assign(orography=height)

    def test_forcings_reach_the_network_and_are_saved(self, tmp_path):
        ds = self.data()
        names = ["insolation", "time_of_day", "time_of_year", "coordinates", "orography"]
        made = train_small(ds, forcings=names)
        assert made.network.forcings == 2 * (1 + 2 + 2) + 3 + 1
        forecast = made(waves(), every="1D", horizon=5)  # the initial data need no orography
        made.save(tmp_path / "f.safetensors")
        xr.testing.assert_equal(forecast, Forecaster.load(tmp_path / "f.safetensors", "cpu")(ds, every="1D", horizon=5))
        other = dataclasses.replace(made, statics=made.statics * np.linspace(0, 1, 16))
        assert abs(other(waves(), every="1D", horizon=5)["t2m"] - forecast["t2m"]).max() > 1e-5

    def test_forcings_are_known_after_the_end_of_the_data(self):
        ds = self.data()
        forecast = train_small(ds, forcings=["insolation"])(ds, horizon=9)
        assert forecast["t2m"].notnull().all() and forecast.valid_time[0, -1] > ds.time[-1]

    def test_invalid_names_are_errors(self):
        with pytest.raises(ValueError, match="'orografy' in forcings .* no variable 'orografy'"):
            train_small(self.data(), forcings=["orografy"])
        ds = waves().rename(z500="sst")
        with pytest.raises(ValueError, match="sst in forcings has dimensions time.* unknown"):
            train_small(ds, variables=["t2m"], forcings=["sst"])
        ds = self.data()
        ds["orography"][0, 0] = np.nan
        with pytest.raises(ValueError, match="orography in forcings has no value"):
            train_small(ds, forcings=["orography"])


class TestTransforms:
    def rain(self):
        ds = waves()
        wet = (ds["t2m"] - 280).clip(min=0) / 1e4
        return ds.assign(tp=wet.assign_attrs(units="m"), tcc=(ds["t2m"] / 320).clip(0, 1).assign_attrs(units="1"))

    def test_rain_is_never_negative_and_clouds_within_bounds(self, tmp_path):
        ds = self.rain()
        low, high = ds["tcc"].min().item(), ds["tcc"].max().item()
        made = train_small(ds, variables=["tp", "tcc"], transforms={"tp": "log", "tcc": (low, high)})
        forecast = made(ds, every="1D")
        assert forecast["tp"].min() >= 0
        assert np.float32(low) == forecast["tcc"].min() and forecast["tcc"].max() <= np.float32(high)
        # the logarithm is undone: the mean has the order of magnitude of the data
        assert 0.3 < forecast["tp"].mean() / ds["tp"].mean() < 3
        made.save(tmp_path / "f.safetensors")
        again = Forecaster.load(tmp_path / "f.safetensors", "cpu")
        assert again.task == made.task
        xr.testing.assert_equal(again(ds, every="1D"), forecast)

    def test_transformed_variables_in_other_units(self):
        ds = self.rain()
        made = train_small(ds, variables=["tp"], transforms={"tp": "log"})
        millimeters = ds.assign(tp=(ds["tp"] * 1000).assign_attrs(units="mm"))
        np.testing.assert_allclose(made(millimeters)["tp"], made(ds)["tp"] * 1000, rtol=1e-3, atol=1e-6)


def test_sums_over_time_keep_their_bounds(tmp_path):
    ds = waves()[["t2m"]].rename(t2m="tp")
    ds["tp"] = ((ds["tp"] - 200) / 1e4).assign_attrs(units="m", cell_methods="time: sum (interval: 1 hour)")
    ends = ds["time"].values
    bounds = np.stack([ends - np.timedelta64(6, "h"), ends], axis=1)
    ds = ds.assign_coords(time_bnds=(("time", "bnds"), bounds))
    ds["time"].attrs["bounds"] = "time_bnds"
    forecast = train_small(ds, variables=["tp"])(ds, every="1D")
    forecast.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc", decode_timedelta=True) as back:
        assert back["tp"].attrs["cell_methods"] == "time: sum (interval: 1 hour)"
        back = back.set_coords("valid_time_bnds")
        assert (back["valid_time_bnds"].isel(bnds=1) == back["valid_time"]).all()
        assert (back["valid_time"] - back["valid_time_bnds"].isel(bnds=0) == np.timedelta64(6, "h")).all()


def test_the_training_curve_is_a_table(forecaster):
    epochs = [
        {"epoch": 1, "loss": 3.0, "valid_loss": 2.0, "valid_rmse_z500_6h": 90.0, "valid_rmse_t2m_6h": 1.5},
        {"epoch": 2, "loss": 2.0, "valid_loss": 1.0, "valid_rmse_z500_6h": 80.0, "valid_rmse_t2m_6h": 1.4},
        {"epoch": 3, "loss": 1.0, "valid_loss": 1.0, "valid_rmse_z500_6h": 81.0, "valid_rmse_t2m_6h": 1.3},
    ]
    made = dataclasses.replace(forecaster, provenance={**forecaster.provenance, "epochs": epochs})
    table = made.training_curve
    assert table.index.tolist() == [1, 2, 3] and table.index.name == "epoch"
    assert table.columns.tolist() == ["loss", "valid_loss", "valid_rmse_z500_6h", "valid_rmse_t2m_6h"]
    assert table.loc[2].tolist() == [2, 1, 80, 1.4]
    assert table.attrs["units"] == {"valid_rmse_z500_6h": "m2 s-2", "valid_rmse_t2m_6h": "K"}
    assert table.attrs["kept"] == 2  # the first of the best
    without_valid = [{"loss": 3.0}, {"loss": 4.0}]
    last = dataclasses.replace(forecaster, provenance={**forecaster.provenance, "epochs": without_valid}).training_curve
    assert last.attrs["kept"] == 2 and last.columns.tolist() == ["loss"]


def test_jupyter_shows_the_training_of_a_forecaster(forecaster):
    page = forecaster._repr_html_()
    best = forecaster.training_curve.loc[forecaster.training_curve["valid_loss"].idxmin()]
    for text in (
        "z500, t2m: 3 steps of 6h from 3 states",
        forecaster.provenance["training"],
        forecaster.digest[:16],
        f"{forecaster.normalizer.mean[0]:.5g}",
        f"t2m 6h: {best['valid_rmse_t2m_6h']:.4g} K",
    ):
        assert text in page


@pytest.mark.parametrize("progress_shown", [True, False])
def test_progress_counts_the_forecasts(forecaster, monkeypatch, capsys, progress_shown):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    forecasts = forecaster(waves(), every="12h", progress=progress_shown)
    lines = capsys.readouterr().err.splitlines()
    count = forecasts.sizes["init_time"]
    assert bool(lines) == progress_shown
    assert not lines or lines[-1].startswith(f"{count} of {count} forecasts, ")
