"""Weights chosen by the bias of a long rollout over the validation period."""

import numpy as np
import pytest
import torch
from factories import quick, run, tiny_sphere, waves

from simvp_climate.data.grid import latitude_weights
from simvp_climate.processing.task import Task

TASK = Task(["z500", "t2m"], history=2, horizon=2)
INPUTS = Task(["z500"], inputs=["t2m"], history=2, horizon=2)


class Persist(torch.nn.Module):
    """Forecasts the last state, shifted by its weight."""

    def __init__(self, shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_BTCHW):
        return x_BTCHW[:, -1:].expand_as(x_BTCHW) + self.weight


def test_the_bias_of_persistence_is_that_of_its_first_state():
    ds, valid = waves(times=30), waves(times=50, start="2001-03-01")
    # the weight does not move
    config = quick(select="rollout", learning_rate=1e-12)
    forecaster = run(ds, valid=valid, task=TASK, model=Persist, config=config)
    statistics, weights = forecaster.normalizer, latitude_weights(valid)
    squares = []
    for index, name in enumerate(("z500", "t2m")):
        bias = (valid[name][1] - valid[name].mean("time")) / statistics.std[index]
        squares.append((bias**2).weighted(weights).mean().item())
    record = forecaster.provenance["epochs"][0]
    assert record["valid_rollout_bias"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-3)


def test_the_epoch_with_the_smallest_bias_is_kept(tmp_path):
    ds, valid = waves(times=30), waves(times=30, start="2001-03-01")
    config = quick(select="rollout", select_every=2, epochs=5, learning_rate=3e-3, ema_decay=0.0)
    forecaster = run(ds, valid=valid, task=TASK, model=tiny_sphere(), config=config, directory=tmp_path)
    curve = forecaster.training_curve
    biases = curve["valid_rollout_bias"]
    assert list(biases.index[biases.notna()]) == [2, 4, 5]
    assert curve.attrs["kept"] == biases.idxmin()
    # the same weights as of a run that ends there
    assert biases.nunique() == 3
    again = run(ds, valid=valid, task=TASK, model=tiny_sphere(), config=config, directory=tmp_path)
    assert again.digest == forecaster.digest


def test_noise_forcings_and_prescribed_variables_are_used():
    ds, valid = waves(times=30), waves(times=40, start="2001-03-01")
    task = Task(["z500"], prescribed=["t2m"], forcings=["time_of_year"], history=2, horizon=2)
    config = quick(select="rollout", loss="crps", crps_share=1.0, epochs=2)
    forecaster = run(ds, valid=valid, task=task, model=tiny_sphere(), config=config)
    biases = [record["valid_rollout_bias"] for record in forecaster.provenance["epochs"]]
    assert np.isfinite(biases).all() and biases[0] != biases[1]
    again = run(ds, valid=valid, task=task, model=tiny_sphere(), config=config)
    assert [record["valid_rollout_bias"] for record in again.provenance["epochs"]] == biases


def test_steps_are_those_of_the_task_where_the_data_have_shorter_ones():
    """Else the rollout would go on for four times the validation period."""
    daily = Task(["z500", "t2m"], history=2, horizon=2, step="1D")
    biases = []
    for every in (1, 4):
        ds, valid = (
            waves(times=120, start=start).isel(time=slice(0, None, every)) for start in ("2001-01-01", "2001-03-01")
        )
        Counting.calls = 0
        run(ds, valid=valid, task=daily, model=Counting, config=quick(select="rollout", learning_rate=1e-12))
        biases.append(Counting.calls)
    # 00 UTC of 30 days, of which the rollout starts from the first two; validation has 27 windows, in batches of 8
    assert biases[1] == 14 and biases[0] in (14, 15)


class Counting(Persist):
    """Counts its calls on single windows without gradients: those of the rollout."""

    calls = 0

    def forward(self, x_BTCHW):
        if not torch.is_grad_enabled() and len(x_BTCHW) == 1:
            Counting.calls += 1
        return super().forward(x_BTCHW)


def test_a_gap_in_prescribed_variables_is_an_error():
    valid = waves(times=60, start="2001-03-01").drop_isel(time=[30])
    task = Task(["z500"], prescribed=["t2m"], history=2, horizon=2)
    with pytest.raises(ValueError, match="at all times of valid, which lacks 2001-03-08T12:00.* or select='loss'"):
        run(waves(times=30), valid=valid, task=task, model=tiny_sphere(), config=quick(select="rollout"))


def test_epochs_before_the_crps_are_no_candidates():
    """Their noise has no effect, so that all members would be the same."""
    config = quick(select="rollout", loss="crps", epochs=4, crps_share=0.5)
    curve = run(valid=waves(times=30, start="2001-03-01"), task=TASK, model=tiny_sphere(), config=config).training_curve
    assert list(curve.index[curve["valid_rollout_bias"].notna()]) == [3, 4] and curve.attrs["kept"] in (3, 4)


class Exploding(Persist):
    def forward(self, x_BTCHW):
        return (100 + self.weight) * x_BTCHW


def test_without_a_finite_rollout_the_last_weights_are_kept():
    ds, valid = waves(times=30), waves(times=50, start="2001-03-01")
    config = quick(select="rollout", epochs=2, gradient_clip=1e-3)
    with pytest.warns(UserWarning, match="no rollout over the validation period stayed finite"):
        forecaster = run(ds, valid=valid, task=Task(["z500"], history=2, horizon=2), model=Exploding, config=config)
    assert np.isnan(forecaster.training_curve["valid_rollout_bias"]).all()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"select": "bias"}, {}, "select='bias' must be one of"),
        ({"select_every": 2}, {}, "select_every=2 would be ignored with select='loss'"),
        ({"select": "rollout", "patience": 1, "epochs": 3}, {}, "leave patience out"),
        ({"select": "rollout"}, {"valid": None}, "select='rollout' would be ignored without valid"),
        (
            {"select": "rollout"},
            {"task": Task(["z500"], inputs=["t2m"], history=2, horizon=2)},
            "select='rollout' needs",
        ),
    ],
)
def test_settings_that_cannot_work(changes, options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"valid": waves(times=30, start="2001-03-01"), "config": quick(**changes), **options})
