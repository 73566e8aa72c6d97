"""Rules about data: training and check state the same values and the same fix, in the user's own names."""

import numpy as np
import pytest
import xarray as xr
from factories import quick, tiny_model, waves

import simvp_climate as sc
from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.reader import Channel, open_source
from simvp_climate.data.windows import find_windows
from simvp_climate.processing.statistics import Normalizer, compute_statistics, resolve_log_scale_and_bounds
from simvp_climate.quality import rules

TASK = sc.Task(["t2m"], history=2, horizon=2)


def own_names(ds):
    """West to east from -180, north to south, with the names of another center."""
    ds = ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude")
    ds = ds[["t2m"]].isel(latitude=slice(None, None, -1))
    return ds.rename(time="valid_time", latitude="lat", longitude="lon", t2m="tas")


def with_cells(value, times, rows=slice(2, 3), columns=slice(2, 3)):
    ds = own_names(waves(times=40)).copy(deep=True)
    ds["tas"][times, rows, columns] = value
    return ds


def with_units(units):
    ds = own_names(waves(times=40))
    return ds.assign(tas=ds["tas"].assign_attrs(units=units))


EVERYWHERE = (slice(None), slice(None))


SAME_FINDING = {
    # code: (dataset, keywords of the message)
    "time-order": (own_names(waves(times=40)).isel(valid_time=[1, 0, *range(2, 40)]), "00:00:00 comes after"),
    "time-duplicates": (own_names(waves(times=40)).isel(valid_time=[0, 0, *range(1, 40)]), "appears more than once"),
    "nan-moving, one time": (with_cells(np.nan, 3), "latitude 33.75, longitude -135; 1 of 40 times"),
    "nan-moving, many times": (with_cells(np.nan, slice(0, 9)), "latitude 33.75, longitude -135; 9 of 40 times"),
    "nan-times": (with_cells(np.nan, slice(3, 5), *EVERYWHERE), "2 of 40 times, the first is 2001-01-01 18:00"),
    "infinite": (with_cells(np.inf, 3), "tas is inf at 2001-01-01 18:00, latitude 33.75, longitude -135"),
    "units-wrong": (with_units("m s-1"), "tas has the units 'm s-1'"),
    "units-mislabeled": (with_units("degC"), "'degC'"),
    "range": (with_cells(500, 3), "to 500 K"),
    "fill-values": (with_cells(-9999, 3), "-9999"),
    "constant": (with_cells(280, slice(None), *EVERYWHERE), "constant, 280"),
    "all-missing": (with_cells(np.nan, slice(None), *EVERYWHERE), "tas has no value"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_FINDING)
def test_training_raises_the_finding_of_check(name):
    ds, keywords = SAME_FINDING[name]
    code = name.split(",")[0]
    finding = next(finding for finding in sc.check(ds, TASK).findings if finding.severity == "error")
    assert finding.code == code and keywords in finding.message
    with pytest.raises(ValueError) as error:
        sc.train(TASK, ds, valid=None, model=tiny_model(), config=quick(), device="cpu")
    assert keywords in str(error.value) and finding.fix in str(error.value)
    if code.startswith("nan") or code in ("infinite", "fill-values"):
        names = {"ds": ds.copy(), "np": np, "xr": xr}
        exec(finding.fix, names)
        # an infinite value in one cell becomes a missing one
        left = {finding.code for finding in sc.check(names["ds"], TASK).findings if finding.severity == "error"}
        assert left <= ({"nan-moving"} if code in ("infinite", "fill-values") else set())


def test_missing_times_are_dropped_where_few_and_cells_are_masked_where_many():
    land = with_cells(np.nan, slice(None), slice(0, 1), slice(0, 1))
    few, many = land.copy(deep=True), land.copy(deep=True)
    few["tas"][3, 4, 4] = np.nan
    many["tas"][:20, 4, 4] = np.nan
    for ds, times, masked in ((few, 39, 1), (many, 40, 2)):
        (finding,) = [finding for finding in sc.check(ds, TASK).findings if finding.severity == "error"]
        names = {"ds": ds.copy()}
        exec(finding.fix, names)
        mended = names["ds"]["tas"]
        assert mended.sizes["valid_time"] == times
        assert int(mended.isnull().all("valid_time").sum()) == masked == int(mended.isnull().any("valid_time").sum())


def field(name="t2m", units="K"):
    ds = waves(times=3).rename(t2m=name)
    ds[name].attrs["units"] = units
    return rules.find_fields(canonicalize(ds, [name]))[name]


@pytest.mark.parametrize(
    ("units", "low", "high", "code"),
    [("K", 220, 320, None), ("degC", -60, 45, None), ("K", -60, 45, "units-mislabeled"), ("K", 150, 320, "range")],
)
def test_values_are_compared_with_the_vocabulary(units, low, high, code):
    finding = rules.implausible_values(field(units=units), low, high)
    assert code == (finding and finding.code)
    assert finding is None or finding.severity == "error"
    # unknown variables have no range
    assert rules.implausible_values(field("mine", units), low, high) is None


@pytest.mark.parametrize(
    ("name", "units", "low", "high", "transform", "std", "keyword"),
    [
        ("tcc", "1", -0.001, 1.001, (0, 1), 0.3, None),
        ("q", "kg kg-1", -1e-6, 0.02, (0, None), 5e-3, None),
        ("tp", "m", -1e-4, 0.1, "log", 1.0, None),
        ("tcc", "%", 0, 100, (0, 1), 30, "within 0 to 1.* 0 to 100 %"),
        ("u10", "m s-1", -20, 20, ("log", 1.0), 1.0, "within 0 to inf.* -20 to 20 m s-1"),
    ],
)
def test_values_are_compared_with_the_bounds_of_transforms(name, units, low, high, transform, std, keyword):
    bounds = resolve_log_scale_and_bounds((Channel(name),), (units,), [(name, transform)])[1][0]
    finding = rules.outside_bounds(field(name, units), transform, bounds, low, high, std, "of dataset")
    if keyword is None:
        assert finding is None
    else:
        with pytest.raises(ValueError, match=keyword):
            rules.raise_first([None, finding])


def test_warnings_and_notes_are_not_raised():
    warning = rules.Finding("warning", "code", "t2m", "message", "fix")
    assert rules.raise_first([None, warning]) is None


@pytest.mark.parametrize("variable", ["t2m", "z500"])
def test_channels_without_anything_to_learn(variable):
    ds = waves(times=10)
    for values, keyword in ((ds[variable] * 0 + 280, "constant, 280"), (ds[variable] * np.nan, "has no value")):
        changed = canonicalize(ds.assign({variable: values.assign_attrs(ds[variable].attrs)}), ["z500", "t2m"])
        source = open_source(changed.dataset)
        windows = find_windows(changed.dataset.indexes["time"], "6h", 2, 2, "ds")
        weights = latitude_weights(changed.dataset["latitude"]).values
        statistics = compute_statistics([source], [windows], weights, 2, np.zeros(2))
        moments = statistics.mean, statistics.std, statistics.change_std, statistics.mask
        bounds = np.tile([-np.inf, np.inf], (2, 1))
        normalizer = Normalizer(source.channels, ("m2 s-2", "K"), *moments, np.zeros(2), bounds, bounds)
        with pytest.raises(ValueError, match=f"{variable} .*{keyword}|{variable} is {keyword}"):
            rules.raise_first(
                rules.unusable_channels(statistics, normalizer, changed, {}, lambda *_: "", lambda *_: False)
            )


def test_incomplete_histories_are_named_unless_the_mask_covers_them():
    canonical = canonicalize(own_names(waves(times=6)), ["t2m"])
    times, mask = canonical.dataset.indexes["time"], np.zeros((1, 8, 16), dtype=bool)
    states = canonical.dataset["t2m"].values[:, np.newaxis].copy()
    assert list(rules.incomplete_history(states, canonical, times, mask)) == []
    states[4, 0, 1, 10] = np.nan
    (finding,) = rules.incomplete_history(states, canonical, times, mask)
    assert finding.message.startswith("tas is nan at 2001-01-02, latitude -56.25, longitude -135")
    mask[0, 1, 10] = True
    assert list(rules.incomplete_history(states, canonical, times, mask)) == []
    states[:, 0, 1, 11] = np.inf
    (finding,) = rules.incomplete_history(states, canonical, times, mask)
    assert "tas is inf at 2001-01-01" in finding.message and "had values in training" in finding.message
