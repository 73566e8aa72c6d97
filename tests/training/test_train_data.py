"""Data that training accepts and refuses."""

import os

import numpy as np
import pytest
import xarray as xr
from factories import STREAMED, TASK, quick, run, stored, waves

from simvp_climate.data.opening import open_dataset
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint
from simvp_climate.training.train import train


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


def test_a_modified_dataset_trains_on_its_modified_values(tmp_path):
    waves().to_zarr(tmp_path / "store.zarr", consolidated=False)
    lazy = open_dataset(tmp_path / "store.zarr", ["z500", "t2m"])
    shifted = run((lazy - 20).isel(time=slice(0, 30)))
    plain = run(lazy.isel(time=slice(0, 30)))
    np.testing.assert_allclose(shifted.normalizer.mean, plain.normalizer.mean - 20, rtol=1e-5)
    np.testing.assert_allclose(shifted.normalizer.std, plain.normalizer.std, rtol=1e-3)


def test_both_modes_train_on_the_same_windows(tmp_path):
    ds = stored(tmp_path)
    kept, streamed = run(ds), run(ds, config=quick(memory=STREAMED))
    np.testing.assert_allclose(kept.normalizer.mean, streamed.normalizer.mean, rtol=1e-12)
    first, second = (f.provenance["epochs"][0]["loss"] for f in (kept, streamed))
    assert first == pytest.approx(second, rel=0.05) and first != second


def test_a_store_that_changes_during_training_is_an_error(tmp_path, monkeypatch):
    ds = stored(tmp_path)
    chunk = next(
        path for path in (tmp_path / "s.zarr" / "t2m").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: (save(*arguments), os.utime(chunk, (1, 1))))
    with pytest.raises(ValueError, match="the store of dataset changed"):
        run(ds, config=quick(epochs=2, memory=STREAMED))


def test_the_series_that_is_too_short_is_named():
    with pytest.raises(ValueError, match=r"dataset\[1\] has no window of 4 states"):
        run([waves(times=30), waves(times=3, start="2001-05-01")])


def fractions(times=30, start="2001-01-01"):
    ds = waves(times=times, start=start)
    cover = ((ds["t2m"] - 240) / 60).clip(0, 1).assign_attrs(units="1")
    return ds[[]].assign(tcc=cover)


def test_series_without_units_do_not_mix_with_others():
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
    with pytest.raises(ValueError, match="tcc of the dataset has mean 0.58"):
        run(percent, task=task)(later)


def test_a_calm_season_is_valid_if_it_has_units():
    calm = fractions(12, "2001-03-01")
    calm["tcc"] = (calm["tcc"] * 0 + 0.6).assign_attrs(units="1")
    task = Task(["tcc"], history=2, horizon=2)
    assert np.isfinite(run(fractions(), task=task, valid=calm).provenance["epochs"][0]["valid_loss"])
    with pytest.raises(ValueError, match="tcc of valid has mean 0.6"):
        run(fractions(), task=task, valid=calm.drop_attrs())


def test_bounds_apply_to_valid_and_fine_tuning_too():
    task = Task(["tcc"], history=2, horizon=2, transforms={"tcc": (0, 1)})
    double = fractions(12, "2001-03-01") * 1.5
    double["tcc"].attrs["units"] = "1"
    with pytest.raises(ValueError, match="'tcc'.* within 0 to 1, but tcc of valid goes from"):
        run(fractions(), task=task, valid=double)
    with pytest.raises(ValueError, match="'tcc'.* within 0 to 1, but tcc of dataset goes from"):
        run(double, task=task, start_from=run(fractions(), task=task))


def test_series_with_different_static_fields_are_refused():
    ds = waves(times=30)
    hills = xr.DataArray(np.random.default_rng(0).random((8, 16)), dims=("latitude", "longitude"))
    task = Task(["z500", "t2m"], history=2, horizon=2, forcings=["orography"])
    first, second = ds.assign(orography=hills), ds.assign(orography=hills[::-1].values + 0 * hills)
    assert len(run([first, first], task=task).statics) == 1
    with pytest.raises(ValueError, match=r"'orography' in forcings differs between .*dataset\[1\]"):
        run([first, second], task=task)
    with pytest.raises(ValueError, match="'orography'.* not in the data"):
        run([first, ds], task=task)


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
    with pytest.raises(ValueError, match="start_from is a dict: give a Forecaster, or the path of its file"):
        run(ds, start_from={})
    with pytest.raises(FileNotFoundError, match="f.safetensors"):
        run(ds, start_from="f.safetensors")
    with pytest.raises(ValueError, match="device='gpu' is not available.* 'auto'"):
        train(TASK, ds, valid=None, device="gpu")
    with pytest.raises(ValueError, match="grids differ"):
        run(ds, valid=waves(times=12, start="2001-03-01").isel(latitude=slice(0, 5)))
    with pytest.raises(ValueError, match="type Path|type PosixPath|type str"):
        run("era5.zarr")
