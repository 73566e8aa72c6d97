"""Which values training, forecasts and scores refuse: impossible ones and fill values, but no records and no trends."""

import dataclasses

import numpy as np
import pytest
from factories import quick, tiny_model, waves

import simvp_climate as sc
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.reader import Channel
from simvp_climate.data.variables import tolerated_range
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.quality import rules

CELL = dict(time=9, latitude=3, longitude=4)


def made(name="t2m", units="K", low=250.0, high=300.0, start="2001-01-01", times=24):
    """A wave of one variable from `low` to `high`."""
    ds = waves(times=times, start=start)[["t2m"]].rename(t2m=name)
    values = (ds[name] - ds[name].min()) / (ds[name].max() - ds[name].min())
    return ds.assign({name: (low + (high - low) * values).drop_attrs().assign_attrs({"units": units} if units else {})})


def with_cell(ds, value, **cell):
    (name,) = ds.data_vars
    ds = ds.copy(deep=True)
    ds[name][CELL | cell] = value
    return ds


def run(ds, valid=None, **options):
    (name,) = ds.data_vars
    task = sc.Task([name], history=2, horizon=2)
    return sc.train(task, ds, valid=valid, **{"model": tiny_model(), "config": quick()} | options, device="cpu")


LATER = "2001-07-01"


@pytest.mark.parametrize(
    ("training", "later"),
    [
        (("tp6h", "m", 0, 0.004), ("tp6h", "m", 0, 0.9)),  # a dry week, a flood
        (("t2m", "K", 293, 301), ("t2m", "K", 268, 276)),  # a region in July, in January
        (("siconc", "1", 0, 0.1), ("siconc", "1", 0.9, 1.004)),
        (("q50", "kg kg-1", 2e-6, 4e-6), ("q50", "kg kg-1", -1e-6, 4e-6)),
        (("t2m", "K", 293, 301), ("t2m", "degC", -60, 60)),
        (("co2", "ppm", 400, 401.7), ("co2", "ppm", 405, 415)),  # unknown to the vocabulary
        (("sd", "m", 0, 0.008), ("sd", "m", 0, 0.5)),
        (("foo", None, -5, 5), ("foo", None, -8, 8)),
    ],
)
def test_records_trends_and_other_seasons_pass(training, later):
    other = made(*later, start=LATER)
    if training[1] == later[1]:
        run(made(*training), valid=other)
    assert run(made(*training))(other, every="6h").sizes["init_time"] == 23


@pytest.mark.parametrize(
    ("arguments", "value", "message"),
    [
        ((), -9999, r"t2m {} is -9999 K at 2001-07-03 06:00, latitude -11.25, longitude 90; .*250 to 300 K, .*fill"),
        ((), 0, r"t2m {} is 0 K .*had 250 to 300 K, and the range of 2m_temperature with a margin is 152.5 to 362.5 K"),
        (("tp24h", "mm", 0, 20), 999, "tp24h {} is 999 mm .*, and it is a usual fill value"),
        (("sd", "m", 0, 0.5), -9999, "sd {} is -9999 m .*, and it is a usual fill value"),
        (("sd", "m", 0, 0.5), 51, "sd {} is 51 m .* the range of training with a margin is -0.5 to 50.5 m"),
        (("sd", "m", 0, 0.5), -0.6, "sd {} is -0.6 m"),
        (("foo", "K", -20, 60), -900, "foo {} is -900 K .* the range of training with a margin is -820 to 860 K"),
        (("z850", "m2 s-2", 8e3, 17e3), -9999, "z850 {} is -9999"),
        (("t2m", None), 0, "t2m {} is 0 at"),  # the training values are in the vocabulary's units
        (("foo", None, 0, 800), -9999, "foo {} is -9999 at"),
    ],
)
def test_impossible_values_are_refused_in_validation_and_forecasts(arguments, value, message):
    forecaster, other = run(made(*arguments)), with_cell(made(*arguments, start=LATER), value)
    with pytest.raises(ValueError, match=message.format("of valid")):
        run(made(*arguments), valid=other)
    with pytest.raises(ValueError, match=message.replace(" {}", "")) as error:
        forecaster(other, every="6h")
    exec(str(error.value).rsplit("accept it: ", 1)[1], {"forecaster": forecaster})
    assert np.isfinite(forecaster(other, every="6h").to_array()).all()  # the way out for a true record


@pytest.mark.parametrize(
    ("arguments", "value", "share", "message"),
    [
        (("t2m", None), 0, 0, "t2m has values from 0 to 300 K; 2m_temperature lies within 170 to 345"),
        (("t2m", None), -5000, 0, "t2m has values from -5000"),
        (("foo", None, 0, 800), -9999, 0.3, "foo has the fill value -9999"),  # an undecoded land mask
        (("t2m", None, -30, 30), -9999, 0, "t2m has the fill value -9999"),  # anomalies
        (("tcc", "1", 0, 1.02), 255, 0, "tcc has values from 0 to 255"),
        (("t2m", None, -30, 30), None, 0, None),
        (("t2m", None, -3, 3), None, 0, None),  # normalized
        (("tp6h", None, -0.5, 8), None, 0, None),
        (("tcc", "1", -0.02, 1.02), None, 0, None),
        (("cape", "J kg-1", 0, 999), None, 0, None),
    ],
)
def test_training_data_without_units_or_a_known_name(arguments, value, share, message):
    ds = made(*arguments)
    if value is not None:
        ds = with_cell(ds, value, longitude=slice(4, 5 + int(16 * share)), time=slice(None) if share else 9)
    if message is None:
        assert run(ds).normalizer.extremes.shape == (1, 2)
    else:
        with pytest.raises(ValueError, match=message):
            run(ds)


def test_fine_tuning_gives_extremes_to_forecasters_without_them():
    trained = run(made())
    old = dataclasses.replace(trained.normalizer, extremes=np.array([[-np.inf, np.inf]]))
    tuned = run(made(high=305), start_from=dataclasses.replace(trained, normalizer=old))
    np.testing.assert_allclose(tuned.normalizer.extremes, [[250, 305]], rtol=1e-6)
    np.testing.assert_allclose(run(made(low=240, high=290), start_from=trained).normalizer.extremes, [[240, 300]])
    for start_from in (trained, dataclasses.replace(trained, normalizer=old)):
        for value in (-9999, 0):
            with pytest.raises(ValueError, match=rf"t2m of dataset is {value} K .*statistics='compute'"):
                run(with_cell(made(), value), start_from=start_from)


def test_usual_fill_values_are_refused_where_the_extremes_are_unknown():
    trained = run(made("foo", "1"))
    old = dataclasses.replace(trained.normalizer, extremes=np.array([[-np.inf, np.inf]]))
    forecaster = dataclasses.replace(trained, normalizer=old)
    with pytest.raises(ValueError, match="foo is -9999 1 at"):
        forecaster(with_cell(made("foo", "1"), -9999), every="6h")
    assert forecaster(with_cell(made("foo", "1"), 800), every="6h").sizes["init_time"] == 23


def test_limits_worked_out_by_hand():
    channels = [Channel("t2m"), Channel("tp"), Channel("foo"), Channel("sd"), Channel("z", 500.0)]
    count = len(channels)
    normalizer = Normalizer(
        tuple(channels), ("degC", "mm", "1", "1", "m2 s-2"), np.zeros(count), np.ones(count), np.ones((1, count)),
        np.zeros((count, 1, 1), bool), np.zeros(count), np.zeros((count, 2)),
        extremes=np.array([[-10, 90], [0, 5], [-1, 1], [0, 2], [5e4, 6e4]]),
    )  # fmt: skip
    geopotential = 44330.8 * (1 - (500 / 1013.25) ** 0.190263) * 9.80665
    expected = [
        [152.5 - 273.15, 90],
        [-11.01, 1100.1],
        [-21, 21],
        [-2, 202],
        [0.35 * geopotential, 2.15 * geopotential],
    ]
    np.testing.assert_allclose(rules.plausible_limits(normalizer), expected, rtol=2e-6)
    fills = [[-310, 390], [-15, 20], [-7, 7], [-6, 8], [2e4, 9e4]]
    np.testing.assert_allclose(rules.fill_value_limits(normalizer), fills)
    np.testing.assert_allclose(tolerated_range("tcc", "%"), [-10.12, 110.12])
    np.testing.assert_allclose(tolerated_range("z1000", "m"), np.array([-1800, 1800]) + 111, atol=1)


@pytest.mark.parametrize(
    ("arguments", "value", "is_refused"),
    [
        (("tcc", "1", 0, 1), 1.0015, False), (("r", "%", 0, 100), -31, False), (("tp6h", "m", 0, 0.01), -0.0012, False),
        (("tcc", "1", 0, 1), 255, True), (("t2m", "K"), 0, True), (("foo", None, 0, 800), -9999, True),
        (("foo", None, 0, 800), 2000, False), (("t2m", "K", -20, 20), 21, False), (("t2m", "K", -20, 20), -999, True),
        (("tp6h", "m", -0.1, 0.2), -0.15, False),
    ],
)  # fmt: skip
def test_truth_and_climatologies_of_scores(arguments, value, is_refused):
    ds, (name, *_) = made(*arguments, times=1500).chunk(time=100), arguments
    forecast = sc.baselines.persistence(ds, ds.time[5:10], ["6h", "12h"])
    bad = with_cell(ds.compute(), value).chunk(time=100)
    climatology = sc.baselines.climatology(ds)
    bad_climatology = climatology.copy(deep=True)
    bad_climatology[name][0, 2, 3, 4] = value
    if not is_refused:
        assert np.isfinite(sc.score(forecast, bad, metrics=["rmse"], persistence=False)[name]).all()
        sc.baselines.climatology(bad)
        return
    for call in (
        lambda: sc.score(forecast, bad, metrics=["rmse"]),
        lambda: sc.baselines.climatology(bad),
        lambda: sc.score(forecast, ds, bad_climatology, metrics=["acc"], allow_overlap=True),
    ):
        with pytest.raises(ValueError, match=rf"{name} of \w+ is {value:g}.*'{name}'\] != {value:g}\)"):
            call()


@pytest.mark.parametrize("units", [None, "mm"])
def test_rain_in_mm_with_or_without_units_is_scored(units):
    """In the units of the vocabulary, m, 40 would be far beyond all records."""
    attrs = {} if units is None else {"units": units}
    values = np.zeros((24, 8, 16))
    values[:, 2, 3], values[8, 5, 6] = 0.2, 40
    truth = waves(times=24)[["t2m"]].rename(t2m="tp24h")
    truth = truth.assign(tp24h=(truth["tp24h"].dims, values, attrs))
    forecast = sc.baselines.persistence(truth, truth["time"][:12:4], ["1D"])
    # of three forecasts has one 0 instead of 40, and one 40 instead of 0
    weight = float((latitude_weights(truth) / latitude_weights(truth).sum())[5]) / 16
    expected = np.sqrt(2 * 40**2 * weight / 3)
    assert float(sc.metrics.rmse(forecast, truth)["tp24h"][0]) == pytest.approx(expected)
