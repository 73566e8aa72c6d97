"""Fine-tuning and transfer: what is known by name goes along, the rest starts fresh, and both are said."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from factories import quick, run, tiny_model, tiny_sphere, waves, weights

from simvp_climate.data.reader import Channel
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.processing import tensors
from simvp_climate.processing.task import Task
from simvp_climate.training import transfer

SMALL = Task(["z500", "t2m"], history=2, horizon=2, forcings=["insolation", "time_of_day"])
WIDE = Task(["t2m", "u10", "z500"], history=2, horizon=2, forcings=["coordinates", "insolation"])
STILL = dict(learning_rate=1e-30, weight_decay=0.0)


def windy(*arguments, **more) -> xr.Dataset:
    ds = waves(*arguments, **more)
    return ds.assign(u10=((ds["z500"] - 5e4) / 100).assign_attrs(units="m s-1"))


@pytest.fixture(scope="module")
def start() -> Forecaster:
    return run(windy(times=40), task=SMALL, config=quick(epochs=2, learning_rate=1e-2))


def test_channels_in_another_order_give_the_same_forecast(start):
    task = dataclasses.replace(SMALL, variables=("t2m", "z500"), forcings=("time_of_day", "insolation"))
    network = SimVPv2(start.network.config, history=2, channels=2, forcings=6).eval()
    network.change_scale_TC.copy_(start.network.change_scale_TC[:, [1, 0]])
    found = transfer.copy_weights(network, start, tensors.channel_roles(task, (Channel("t2m"), Channel("z500"))))
    assert found["new"] == found["left_out"] == [] and len(found["taken"]) == 8
    x_BTCHW, f_BTFHW = torch.randn(1, 2, 2, 8, 16), torch.randn(1, 2, 6, 8, 16)
    # insolation, time of day (cosine, sine) at the input, then at the target; the other way round
    turned = [1, 2, 0, 4, 5, 3]
    with torch.no_grad():
        expected = start.network(x_BTCHW, f_BTFHW)[:, :, [1, 0]]
        given = network(x_BTCHW[:, :, [1, 0]], f_BTFHW[:, :, turned])
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_the_names_of_forcings_are_as_many_as_their_channels():
    task = dataclasses.replace(WIDE, forcings=("orography", "time_of_year", "coordinates", "insolation", "lsm"))
    latitude, longitude = np.array([0.0, 30.0]), np.array([0.0, 90.0])
    statics = np.random.default_rng(0).random((2, 2, 2))
    built = tensors.Forcings(task, latitude, longitude, statics, np.ones(2), torch.device("cpu"))
    names = tensors.forcing_names(task)
    assert len(names) == len(built) == len(set(names)) == 11
    assert names[0] == "time_of_year_cos" and names[-2:] == ["orography", "lsm"]


def test_what_has_the_same_name_goes_along_and_the_rest_starts_fresh(start, capsys):
    config = quick(statistics="inherit", **STILL)
    wide = run(windy(times=30), task=WIDE, start_from=start, config=config)
    assert capsys.readouterr().out == (
        "start_from: copied the weights of t2m, z500, insolation, insolation_at_output; new, with random "
        "weights: u10, latitude_sin, latitude_cos_longitude_cos, latitude_cos_longitude_sin; left out: "
        "time_of_day_cos, time_of_day_sin, time_of_day_cos_at_output, time_of_day_sin_at_output; "
        "statistics: those of start_from\n"
    )
    fresh = run(windy(times=30), task=WIDE, model=tiny_model(), config=quick(**STILL))
    given, old, new = (weights(one) for one in (wide, start, fresh))
    # inputs of WIDE: t2m, u10, z500, insolation (input, target), three coordinates
    first = "encoder.0.conv.weight"
    for at, there in {0: 1, 2: 0, 3: 2, 4: 5}.items():
        assert torch.equal(given[first][:, at], old[first][:, there])
    for at in (1, 5, 6, 7):
        assert torch.equal(given[first][:, at], new[first][:, at])
    for name in ("readout.weight", "readout.bias"):
        assert torch.equal(given[name][[0, 2]], old[name][[1, 0]]) and torch.equal(given[name][1], new[name][1])
    assert torch.equal(given["translator.blocks.1.near.weight"], old["translator.blocks.1.near.weight"])
    statistics, before, data = wide.normalizer, start.normalizer, fresh.normalizer
    for name in ("mean", "std"):
        taken, theirs, own = (getattr(one, name) for one in (statistics, before, data))
        assert (taken[0], taken[2]) == (theirs[1], theirs[0]) and taken[1] == own[1]
    np.testing.assert_array_equal(statistics.change_std[:, [0, 2]], before.change_std[:, [1, 0]])
    scale = statistics.change_std / statistics.std
    np.testing.assert_allclose(given["change_scale_TC"].numpy(), scale, rtol=1e-6)
    record = wide.provenance["start_from"]
    assert record["new"][0] == "u10" and record["provenance"]["training"] == start.provenance["training"]
    assert wide.provenance["config"]["statistics"] == "inherit" and "epochs" not in record["provenance"]


def test_fewer_channels_are_taken_too(start):
    one = Task(["t2m"], history=2, horizon=2)
    narrow = run(windy(times=30), task=one, start_from=start, config=quick(statistics="inherit", **STILL))
    assert torch.equal(weights(narrow)["readout.weight"][0], weights(start)["readout.weight"][1])
    assert narrow.provenance["start_from"]["left_out"][0] == "z500"


def test_levels_are_known_by_their_value():
    def on_levels(levels):
        ds = waves(times=30)
        fields = [ds["z500"] * (1.9 - level / 500) for level in levels]
        return xr.concat(fields, xr.Variable("level", levels, {"units": "hPa"})).rename("z").to_dataset()

    first = run(on_levels([500.0, 850.0]), task=Task(["z"], [500, 850], 2, 2))
    task = Task(["z"], [300, 850], 2, 2)
    second = run(on_levels([300.0, 850.0]), task=task, start_from=first, config=quick(statistics="inherit", **STILL))
    assert second.provenance["start_from"]["taken"] == ["z at level 850"]
    assert torch.equal(weights(second)["readout.bias"][1], weights(first)["readout.bias"][1])


FINER = (np.arange(-82.5, 90, 15.0), np.arange(0, 360, 15.0))


def test_another_grid_takes_the_weights_and_its_own_statistics_and_mask(start, capsys):
    land = xr.DataArray(np.zeros((12, 24), bool), dims=("latitude", "longitude"))
    land[5, 3:7] = True
    fine = windy(*FINER, times=30)
    fine = fine.assign(t2m=fine["t2m"].where(~land))
    tuned = run(fine, task=SMALL, start_from=start, config=quick(statistics="compute", **STILL))
    assert capsys.readouterr().out.endswith("statistics: of the new data\n")
    own = run(fine, task=SMALL, model=tiny_model()).normalizer
    for name in ("mean", "std", "change_std", "mask"):
        np.testing.assert_array_equal(getattr(tuned.normalizer, name), getattr(own, name))
    assert tuned.latitude.size == 12 and tuned.normalizer.mask[1].sum() == 4
    assert torch.equal(weights(tuned)["encoder.0.conv.weight"], weights(start)["encoder.0.conv.weight"])
    assert tuned.network.config == start.network.config
    # a part of the globe does not close
    part = run(fine.isel(longitude=slice(0, 9)), task=SMALL, start_from=start, config=quick(statistics="compute"))
    assert part.network.config.padding == "zeros" != start.network.config.padding


def test_drop_path_may_be_another_and_other_differences_are_named(start):
    own = start.network.config
    tuned = run(windy(times=30), task=SMALL, start_from=start, model=dataclasses.replace(own, drop_path=0.3))
    assert tuned.network.config.drop_path == 0.3
    with pytest.raises(ValueError, match=r"not the network of start_from: blocks=5 \(it has 2\)\. Leave model out"):
        run(windy(times=30), task=SMALL, start_from=start, model=dataclasses.replace(own, blocks=5))


def test_a_new_diagnostic_is_named(start, capsys):
    task = dataclasses.replace(start.task, diagnostics=("tp",))
    ds = windy(times=30)
    ds = ds.assign(tp=abs(ds["t2m"] - 280).assign_attrs(units="mm"))
    made = run(ds, task=task, start_from=start, config=quick(statistics="inherit"))
    assert made.provenance["start_from"]["new"] == ["tp"]
    assert "new, with random weights: tp" in capsys.readouterr().out


@pytest.mark.parametrize("before", ["variable", "diagnostic"])
def test_a_variable_that_turns_into_a_diagnostic_or_back_starts_fresh(before, capsys):
    ds = windy(times=40)
    seen = dataclasses.replace(SMALL, variables=("z500", "t2m"))
    told = dataclasses.replace(SMALL, variables=("z500",), diagnostics=("t2m",))
    first, second = (seen, told) if before == "variable" else (told, seen)
    one = run(ds, task=first)
    two = run(ds, task=second, start_from=one, config=quick(statistics="inherit", learning_rate=1e-9))
    fresh = run(ds, task=second, config=quick(learning_rate=1e-9))
    assert "t2m" in two.provenance["start_from"]["new"]
    assert "new, with random weights: t2m" in capsys.readouterr().out
    readout = [made.network.state_dict()["readout.weight"] for made in (one, two, fresh)]
    torch.testing.assert_close(readout[1][0], readout[0][0], rtol=0, atol=1e-6)  # z500 is taken
    assert (readout[1][1] - readout[0][1]).abs().max() > 1e-3
    assert readout[1][1].std() == pytest.approx(float(readout[2][1].std()), rel=0.8)


def test_the_padding_may_be_another(start):
    model = dataclasses.replace(start.network.config, padding="zeros")
    assert run(windy(times=30), task=SMALL, start_from=start, model=model).network.config.padding == "zeros"


def test_units_may_be_others_where_statistics_are_computed(start):
    celsius = windy(times=30)
    celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
    tuned = run(celsius, task=SMALL, start_from=start, config=quick(statistics="compute"))
    assert tuned.normalizer.units[1] == "degC" and tuned.normalizer.mean[1] < 30


def test_fields_without_time_are_taken_from_the_start_or_from_the_data():
    hills = xr.DataArray(np.random.default_rng(0).random((8, 16)), dims=("latitude", "longitude"))
    task = Task(["z500", "t2m"], history=2, horizon=2, forcings=["orography"])
    first = run(windy(times=30).assign(orography=hills), task=task)
    assert np.array_equal(run(windy(times=30), task=task, start_from=first).statics, first.statics)
    both = dataclasses.replace(task, forcings=("lsm", "orography"))
    tuned = run(windy(times=30).assign(lsm=hills > 0.5), task=both, start_from=first)
    np.testing.assert_array_equal(tuned.statics, np.stack([hills > 0.5, hills]))
    with pytest.raises(ValueError, match="'orography' in forcings is not built in"):
        run(windy(times=30), task=task, start_from=first, config=quick(statistics="compute"))


@pytest.mark.parametrize(
    ("task", "statistics", "message"),
    [
        (
            WIDE,
            "auto",
            r"the channels are \['t2m', 'u10', 'z500'\], those of start_from \['z500', 't2m'\]: choose how to n",
        ),
        (Task(["u10"], None, 2, 2), "inherit", r"start_from forecasts \['z500', 't2m'\], none of \['u10'\]"),
        (Task(["t2m"], None, 3, 2), "inherit", "history=3 must be 2, .*Set history=2"),
        (Task(["t2m"], None, 2, 2, "12h"), "compute", "step='12h' must be '6h'"),
        (
            Task(["t2m"], None, 2, 2, transforms={"t2m": (0, None)}),
            "compute",
            r"transforms of 't2m' is \(0, None\), but must be None",
        ),
    ],
)
def test_a_task_that_does_not_fit_the_start_is_refused(task, statistics, message, start):
    with pytest.raises(ValueError, match=message):
        run(windy(times=30), task=task, start_from=start, config=quick(statistics=statistics))


def test_data_that_do_not_fit_the_start_are_refused(start):
    for statistics in ("auto", "inherit"):
        with pytest.raises(ValueError, match=r"on another grid than start_from.*12.*statistics='compute'"):
            run(windy(*FINER, times=30), task=SMALL, start_from=start, config=quick(statistics=statistics))
        celsius = windy(times=30)
        celsius["t2m"] = (celsius["t2m"] - 273.15).assign_attrs(units="degC")
        with pytest.raises(ValueError, match=r"\* 1 \+ 273.15\).assign_attrs\(units='K'\); or compute them from"):
            run(celsius, task=SMALL, start_from=start, config=quick(statistics=statistics))
    dead = windy(times=30)
    dead["u10"] = dead["u10"] * 0 + 3
    with pytest.raises(ValueError, match=r"u10 is constant"):
        run(dead, task=WIDE, start_from=start, config=quick(statistics="inherit"))
    with pytest.raises(ValueError, match="statistics='inherit' would be ignored without start_from"):
        run(config=quick(statistics="inherit"))
    with pytest.raises(ValueError, match="is not the network of start_from"):
        run(windy(times=30), task=SMALL, start_from=start, model=tiny_model(hidden_time=16))


def test_a_transfer_is_resumed_or_refused(start, tmp_path):
    arguments = dict(task=WIDE, config=quick(statistics="inherit"), directory=tmp_path / "run")
    first = run(windy(times=30), start_from=start, **arguments)
    again = run(windy(times=30), start_from=start, **arguments)
    assert torch.equal(weights(first)["readout.weight"], weights(again)["readout.weight"])
    other = run(windy(times=40), task=SMALL, config=quick(seed=5))
    with pytest.raises(ValueError, match=r"start_from differs \(other weights or statistics\)"):
        run(windy(times=30), start_from=other, **arguments)
    loaded = Forecaster.load(tmp_path / "run" / "forecaster.safetensors", "cpu")
    assert loaded.provenance["start_from"]["left_out"]
    with pytest.raises(ValueError, match=r"start_from is None, was '\w+'"):
        run(windy(times=30), model=tiny_model(), **{**arguments, "config": quick()})


# ---- spectral blocks, which are for the whole globe


def test_spectral_blocks_go_to_a_finer_grid_and_are_left_out_on_a_regional_one(capsys):
    trained = run(model=tiny_sphere(blocks=2))
    assert len(trained.network.translator.spectral_blocks) == 1
    fine = waves(np.arange(-84.375, 90, 11.25), np.arange(0, 360, 11.25), times=30)
    finer = run(fine, start_from=trained, config=quick(learning_rate=1e-12, ema_decay=0, statistics="compute"))
    (old,), (new,) = (each.network.translator.spectral_blocks for each in (trained, finer))
    assert (old.degrees, new.degrees) == (4, 8)
    for before, after in zip(old.mix, new.mix, strict=False):
        torch.testing.assert_close(after.weight, before.weight, rtol=1e-6, atol=1e-8)
    assert new.synthesis.shape == (8, 8, 8)
    capsys.readouterr()
    regional = waves(longitude=np.arange(0, 180, 22.5), times=30)
    config = quick(statistics="compute", progress=True)
    part = run(regional, start_from=trained, config=config)
    assert part.network.config.spectral_blocks == 0
    assert "left out: spectral blocks (1), which need a grid around the globe" in capsys.readouterr().out
    # a regional network is trained without them, unless they are asked for
    assert run(regional, model=tiny_sphere()).network.config.spectral_blocks == 0
    with pytest.raises(ValueError, match="spectral_blocks=1 needs a grid around the globe"):
        run(regional, model=tiny_sphere(spectral_blocks=1))


def test_spectral_blocks_need_rows_from_pole_to_pole():
    trained = run(model=tiny_sphere(blocks=2))
    belt = waves(latitude=np.arange(-28.125, 30, 11.25), times=30)
    assert run(belt, model=tiny_sphere()).network.config.spectral_blocks == 0
    assert run(belt, start_from=trained, config=quick(statistics="compute")).network.config.spectral_blocks == 0
    with pytest.raises(ValueError, match="needs rows from pole to pole, .* from -28.125 to 28.125: set spectral"):
        run(belt, model=tiny_sphere(padding="periodic"))


def test_the_settings_that_it_was_trained_with_are_accepted(start):
    settings = tiny_sphere(blocks=2)
    trained = run(model=settings)
    assert run(start_from=trained, model=settings).network.config == trained.network.config
    regional, config = waves(longitude=np.arange(0, 180, 22.5), times=30), quick(statistics="compute")
    without = tiny_sphere(blocks=2, padding="zeros")
    assert run(regional, start_from=trained, model=without, config=config).network.config.spectral_blocks == 0


def test_a_weight_of_another_network_may_have_any_name():
    class Wave(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.waves = torch.nn.Parameter(torch.randn(1))

        def forward(self, x, f=None):
            return x * (1 + 0.01 * self.waves)

    first = run(model=lambda shape: Wave())
    again = run(model=lambda shape: Wave(), start_from=first, config=quick(learning_rate=1e-12, ema_decay=0))
    torch.testing.assert_close(again.network.waves, first.network.waves, rtol=1e-6, atol=1e-8)
