import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from factories import quick, run, waves
from torch import nn

from simvp_climate.data.reader import Channel
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training import loader
from simvp_climate.training.datasets import Setup
from simvp_climate.training.loss import Loss, _channel_weights

INITS = pd.date_range("2001", periods=1)
AREA = np.array([0.5, 1.5])  # of two rows, mean one


def loss_of(history=1, horizon=2, mask=None, **config) -> Loss:
    """The loss of two channels on two cells, one above the other; statistics: mean 0, std (1, 2), change (0.5, 4)."""
    task = Task(["z500", "t2m"], history=history, horizon=horizon)
    nothing = np.zeros((2, 2, 1), dtype=bool)
    statistics = Normalizer(
        channels=(Channel("z500"), Channel("t2m")),
        units=("", ""),
        mean=np.zeros(2),
        std=np.array([1.0, 2.0]),
        change_std=np.tile([0.5, 4.0], (history, 1)),
        mask=nothing if mask is None else mask,
        log_scale=np.zeros(2),
        bounds=np.tile([-np.inf, np.inf], (2, 1)),
        extremes=np.tile([-np.inf, np.inf], (2, 1)),
    )
    device = torch.device("cpu")
    forcings = tensors.Forcings(task, np.array([0.0, 60.0]), np.array([0.0]), np.empty((0, 2, 1)), AREA, device)
    config, channels = quick(**config), statistics.channels
    setup = Setup(
        task=task,
        leads=config.leads(task),
        channels=channels,
        units=statistics.units,
        roles=tensors.channel_roles(task, channels),
        log_scale=statistics.log_scale,
        bounds=statistics.bounds,
        latitude=np.array([0.0, 60.0]),
        longitude=np.array([0.0]),
        weights=AREA,
    )
    return Loss(config, setup, statistics, forcings, device)


def batch(states) -> loader.Batch:
    """One window; states (T, C, H) in physical units."""
    return loader.Batch(torch.tensor(states, dtype=torch.float32)[None, ..., None], np.array([0]))


# the initialization is 0; the truth after one step is off by (1, 2) in channel 0 and by (2, 2) in channel 1, north
# and south; after two steps by twice as much. In standard deviations of the channels: (1, 2) and (1, 1)
WINDOW = batch([[[0, 0], [0, 0]], [[1, 2], [2, 2]], [[2, 4], [4, 4]]])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # area: channel 0 (0.5 * 1 + 1.5 * 4) / 2 = 3.25, channel 1 1; the second lead is four times as much
        ({"loss_normalization": "state"}, (3.25 + 1 + 13 + 4) / 4),
        # no area: 2.5 and 1
        ({"loss_normalization": "state", "area_weighted": False}, (2.5 + 1 + 10 + 4) / 4),
        # in units of the change: 0.5 of channel 0 and 2 of channel 1, in standard deviations
        ({}, (3.25 / 0.25 + 1 / 4 + 13 / 0.25 + 4 / 4) / 4),
        # weights 3 : 1 are 1.5 and 0.5
        ({"loss_normalization": "state", "lead_weights": (3, 1)}, (1.5 * (3.25 + 1) + 0.5 * (13 + 4)) / 4),
        ({"loss_normalization": "state", "variable_weights": {"t2m": 3}}, (0.5 * (3.25 + 13) + 1.5 * (1 + 4)) / 4),
    ],
)
def test_hand_worked_losses(config, expected):
    persistence = nn.Identity()
    assert float(loss_of(**config)(persistence, WINDOW, INITS, 2)) == pytest.approx(expected, rel=1e-6)


def test_cells_without_values_do_not_count():
    mask = np.zeros((2, 2, 1), dtype=bool)
    mask[0, 0] = True  # the north of channel 0
    loss = loss_of(mask=mask, loss_normalization="state")
    # channel 0 is the south alone: 4, then 16
    assert float(loss(nn.Identity(), WINDOW, INITS, 2)) == pytest.approx((4 + 1 + 16 + 4) / 4, rel=1e-6)


def test_weights_of_levels_go_before_those_of_variables():
    channels = [Channel("z", 500.0), Channel("z", 850.0), Channel("t2m"), Channel("t", 850.0)]
    assert _channel_weights({"z": 2, "z_500": 3, "t_850": 4}, channels).tolist() == [3, 2, 1, 4]
    with pytest.raises(ValueError, match=r"variable_weights names \['z_700'\], .* \['t', 't2m', 't_850', 'z', 'z_500'"):
        _channel_weights({"z_700": 2}, channels)


def test_the_mean_of_lead_weights_is_one_whatever_leads_are_in_use():
    loss = loss_of(horizon=1, rollout=2, loss_normalization="state", lead_weights=(7,))
    assert float(loss(nn.Identity(), WINDOW, INITS, 1)) == pytest.approx((3.25 + 1) / 2, rel=1e-6)
    assert float(loss(nn.Identity(), WINDOW, INITS, 2)) == pytest.approx((3.25 + 1 + 13 + 4) / 4, rel=1e-6)
    # beyond the horizon: as the last one
    loss = loss_of(horizon=2, rollout=3, loss_normalization="state", lead_weights=(2, 1))
    window = batch([*WINDOW.states[0, :, :, :, 0].tolist(), [[0, 0], [0, 0]]])
    expected = (1.5 * (3.25 + 1) + 0.75 * (13 + 4)) / 6
    assert float(loss(nn.Identity(), window, INITS, 3)) == pytest.approx(expected, rel=1e-6)


def test_what_is_fed_back_is_held_as_in_forecasts():
    mask = np.zeros((2, 2, 1), dtype=bool)
    mask[0, 0] = True
    loss, seen = loss_of(horizon=3, mask=mask), []

    def network(x, f=None):
        seen.append(x)
        return x + 7

    loss.forecast(network, batch(np.zeros((4, 2, 2))), INITS, 3)
    assert [x[0, 0, :, :, 0].tolist() for x in seen[1:]] == [[[0, 7], [7, 7]], [[0, 14], [14, 14]]]


def test_gradients_go_through_every_call_of_a_rollout():
    class Multiply(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x_BTCHW):
            return self.factor * x_BTCHW

    network = Multiply()
    # from 1 to 0, 0, 0: errors a, a^2, a^3, so that the loss is the mean of a^2, a^4, a^6
    window = batch([[[1, 1], [2, 2]]] + [[[0, 0], [0, 0]]] * 3)
    loss = loss_of(horizon=1, rollout=3, loss_normalization="state")(network, window, INITS, 3)
    assert loss.item() == pytest.approx((4 + 16 + 64) / 3)
    loss.backward()
    assert network.factor.grad.item() == pytest.approx((2 * 2 + 4 * 2**3 + 6 * 2**5) / 3)


def global_loss(mask=None, **config) -> Loss:
    """The loss of one channel on 4 x 8 cells around the globe, without normalization."""
    latitude, longitude = np.array([-60.0, -20.0, 20.0, 60.0]), np.arange(8) * 45.0
    weights = np.array([0.5, 1.5, 1.5, 0.5])
    task, channels = Task(["z500"], history=1, horizon=1), (Channel("z500"),)
    one, infinite = np.ones(1), np.array([[-np.inf, np.inf]])
    mask = np.zeros((1, 4, 8), dtype=bool) if mask is None else mask
    statistics = Normalizer(channels, ("",), 0 * one, one, np.ones((1, 1)), mask, 0 * one, infinite, infinite)
    device, config = torch.device("cpu"), quick(**config)
    forcings = tensors.Forcings(task, latitude, longitude, np.empty((0, 4, 8)), weights, device)
    roles = tensors.channel_roles(task, channels)
    grid = (latitude, longitude, weights)
    setup = Setup(task, 1, channels, ("",), roles, statistics.log_scale, statistics.bounds, *grid)
    return Loss(config, setup, statistics, forcings, device)


class TestAdjustedError:
    def test_is_the_squared_error_where_amplitudes_are_equal(self):
        """A wave that is shifted keeps its power, so that both errors are the same."""
        x = torch.sin(torch.arange(8) * torch.pi / 4)
        truth = x.expand(1, 1, 1, 4, 8).contiguous()
        shifted = truth.roll(1, dims=-1)
        squared, adjusted = (global_loss(loss=name).error(shifted, truth) for name in ("mse", "amse"))
        assert float(adjusted) == pytest.approx(float(squared), rel=1e-5) != 0

    def test_does_not_reward_blur(self):
        """Half the amplitude of a wave at 90 degrees: the squared error falls, the adjusted one does not."""
        x = torch.arange(8) * torch.pi / 4
        truth, wrong = (field.expand(1, 1, 1, 4, 8).contiguous() for field in (torch.sin(x), torch.cos(x)))
        # both waves have the power 1/2. Squared error: 1/2 + a^2 / 2; adjusted: (a - 1)^2 / 2 + 2 * 1/2
        for amplitude in (1.0, 0.5):
            squared, adjusted = (
                float(global_loss(loss=name).error(amplitude * wrong, truth)) for name in ("mse", "amse")
            )
            assert squared == pytest.approx((1 + amplitude**2) / 2, rel=1e-5)
            assert adjusted == pytest.approx((amplitude - 1) ** 2 / 2 + 1, rel=1e-5)

    def test_masked_cells_have_no_weight(self):
        """A forecast with the opposite sign has the same power everywhere, so that both errors agree."""
        truth = torch.randn(1, 1, 1, 4, 8, generator=torch.Generator().manual_seed(0))
        mask = np.zeros((1, 4, 8), dtype=bool)
        mask[:, 1, 2:5] = True
        squared, adjusted = (global_loss(mask=mask, loss=name).error(-truth, truth) for name in ("mse", "amse"))
        assert float(adjusted) == pytest.approx(float(squared), rel=1e-5)

    def test_gradient_of_a_flat_forecast_is_finite(self):
        forecast = torch.zeros(1, 1, 1, 4, 8, requires_grad=True)
        global_loss(loss="amse").error(forecast, torch.randn(1, 1, 1, 4, 8)).backward()
        assert forecast.grad.isfinite().all()

    def test_needs_longitudes_around_the_globe(self):
        with pytest.raises(ValueError, match="loss='amse' compares zonal spectra.*loss='mse' for a regional grid"):
            loss_of(loss="amse")


def test_input_noise_is_a_share_of_the_typical_change_and_only_in_training():
    inputs = []

    class Record(torch.nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x_BTCHW):
            if x_BTCHW.device.type == "cpu":  # memory is planned on another
                inputs.append((self.training, x_BTCHW.detach().clone()))
            return x_BTCHW + self.weight

    ds, valid, config = waves(times=60), waves(times=30, start="2001-03-01"), quick(learning_rate=1e-12)
    for noise in (0.0, 0.5):
        forecaster = run(ds, valid=valid, model=Record, config=dataclasses.replace(config, input_noise=noise))
    clean, noisy = (
        [torch.cat([x for training, x in half if training == mode]) for mode in (True, False)]
        for half in (inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :])
    )
    difference = (noisy[0] - clean[0]).std(dim=(0, 1, 3, 4)).numpy()
    statistics = forecaster.normalizer
    np.testing.assert_allclose(difference, 0.5 * statistics.change_std[0] / statistics.std, rtol=0.03)
    torch.testing.assert_close(noisy[1], clean[1])
