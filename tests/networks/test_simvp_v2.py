import numpy as np
import pytest
import torch

from simvp_climate.networks.padding import PADDING_MODES
from simvp_climate.networks.rollout import rollout
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config


def small(padding="zeros", predict="state", channels=2, forcings=0, **changes):
    torch.manual_seed(0)
    sizes = dict(hidden_space=4, hidden_time=12, blocks=3, mlp_ratio=2.0, drop_path=0.0)
    config = SimVPv2Config(**{**sizes, **changes}, padding=padding, predict=predict)
    network = SimVPv2(config, history=3, channels=channels, forcings=forcings).eval()
    for name, value in network.named_parameters():
        # the small initial layer scales and biases would hide the blocks
        if "scale" in name or "bias" in name:
            torch.nn.init.normal_(value, 0.5, 0.3)
    return network


@pytest.mark.parametrize(
    ("history", "channels", "hidden_time", "published"),
    [(12, 1, 256, 12_758_305), (12, 2, 256, 12_758_626), (4, 12, 256, 9_964_268), (4, 12, 512, 37_868_780)],
)
def test_parameter_counts_are_the_published_ones(history, channels, hidden_time, published):
    config = SimVPv2Config(hidden_time=hidden_time, padding="zeros")
    network = SimVPv2(config, history=history, channels=channels)
    assert sum(value.numel() for value in network.parameters()) == published


def test_the_published_network_has_its_parameters_and_predicts_states():
    config = SimVPv2Config.published()
    network = SimVPv2(config, history=12, channels=1)
    assert sum(weight.numel() for weight in network.parameters()) == 12_758_305
    assert (config.padding, config.predict, config.drop_path) == ("zeros", "state", 0.1)


@pytest.mark.parametrize("padding", PADDING_MODES[1:])
@pytest.mark.parametrize(("layers", "stride"), [(2, 2), (4, 4)])
def test_shifting_the_input_in_longitude_shifts_the_output(layers, stride, padding):
    network = small(padding, spatial_layers=layers)
    x = torch.randn(2, 3, 2, 8, 16)
    with torch.no_grad():
        for shift in (stride, 3 * stride):
            shifted = network(x.roll(shift, -1))
            torch.testing.assert_close(shifted, network(x).roll(shift, -1), rtol=1e-5, atol=1e-5)
        zeros = small("zeros", spatial_layers=layers)
        assert (zeros(x.roll(stride, -1)) - zeros(x).roll(stride, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("padding", PADDING_MODES)
@pytest.mark.parametrize("size", [(25, 53), (7, 5), (1, 1), (8, 6)])
def test_any_grid_size(padding, size):
    network = small(padding, spatial_layers=4)
    x = torch.randn(1, 3, 2, *size)
    assert network(x).shape == x.shape
    assert network(x).isfinite().all()


def test_change_is_added_to_the_last_state():
    state, change = small(predict="state"), small(predict="change")
    change.load_state_dict(state.state_dict())
    change.change_scale_TC.fill_(2.0)
    x = torch.randn(2, 3, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(change(x), x[:, -1:] + 2 * state(x))


def test_drop_path_is_off_in_evaluation_and_at_zero():
    network = small(drop_path=0.0).train()
    assert all(block.drop_path == 0 for block in network.translator.blocks)
    dropping = small(drop_path=0.9)
    assert [round(block.drop_path, 3) for block in dropping.translator.blocks] == [0.01, 0.455, 0.9]
    x = torch.randn(4, 3, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(dropping(x), dropping(x))
        dropping.train()
        assert not torch.equal(dropping(x), dropping(x))


@pytest.mark.parametrize("horizon", [2, 3, 7])
def test_rollout_feeds_forecasts_back(horizon):
    def next_three(x_BTCHW):
        return x_BTCHW[:, -1:] + torch.arange(1, 4).view(1, 3, 1, 1, 1)

    x = torch.tensor([8.0, 9, 10]).view(1, 3, 1, 1, 1)
    assert rollout(next_three, x, horizon).flatten().tolist() == list(range(11, 11 + horizon))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_space": 5}, "hidden_space=5 must be an even integer"),
        ({"spatial_layers": 3}, "spatial_layers=3 must be an even integer"),
        ({"blocks": 1}, "blocks=1"),
        ({"mlp_ratio": 0}, "mlp_ratio=0"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"padding": "circular"}, "padding='circular' must be"),
        ({"predict": "tendency"}, "predict='tendency' must be"),
    ],
)
def test_bad_settings_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        SimVPv2Config(**changes)


def test_auto_padding_raises():
    with pytest.raises(ValueError, match="padding='auto' is resolved by train"):
        SimVPv2(SimVPv2Config(), history=2, channels=1)


def test_a_wrong_input_shape_raises():
    with pytest.raises(ValueError, match="history=3 and channels=2"):
        small()(torch.zeros(1, 4, 2, 8, 8))


def test_forcings_widen_only_the_first_convolution():
    without, with_five = (SimVPv2(SimVPv2Config(padding="zeros"), history=4, channels=12, forcings=n) for n in (0, 5))
    count = {name: value.numel() for name, value in without.state_dict().items()}
    wider = {name: value.numel() - count[name] for name, value in with_five.state_dict().items()}
    # 5 inputs, 32 outputs, a 3 x 3 kernel
    assert {name: extra for name, extra in wider.items() if extra} == {"encoder.0.conv.weight": 5 * 32 * 9}


def test_zero_forcings_give_the_same_network_as_the_default():
    torch.manual_seed(3)
    default = SimVPv2(SimVPv2Config(hidden_time=12, blocks=2, padding="zeros"), history=3, channels=2)
    after = torch.rand(1)
    torch.manual_seed(3)
    zero = SimVPv2(SimVPv2Config(hidden_time=12, blocks=2, padding="zeros"), history=3, channels=2, forcings=0)
    assert torch.equal(torch.rand(1), after)
    assert sum(value.numel() for value in default.parameters()) == sum(value.numel() for value in zero.parameters())
    x = torch.randn(1, 3, 2, 8, 8)
    with torch.no_grad():
        assert torch.equal(default.eval()(x), zero.eval()(x, None))


@pytest.mark.parametrize("padding", PADDING_MODES)
@pytest.mark.parametrize("predict", ["change", "state"])
def test_forecasts_depend_on_the_forcings_of_every_state(padding, predict):
    network = small(padding, predict, forcings=4)
    x, f = torch.randn(2, 3, 2, 7, 9), torch.randn(2, 3, 4, 7, 9)
    with torch.no_grad():
        output = network(x, f)
        assert output.shape == x.shape
        for time in range(3):
            for channel in range(4):
                other = f.clone()
                other[:, time, channel] += 1
                assert (network(x, other) - output).abs().max() > 1e-5
        # samples do not affect each other
        other = f.clone()
        other[0] += 1
        torch.testing.assert_close(network(x, other)[1], output[1])
        if padding == "periodic":
            # in float32 the sums of a convolution are rounded differently from column to column, by up to 4e-5 here
            x, f = torch.randn(1, 3, 2, 8, 16, dtype=torch.float64), torch.randn(1, 3, 4, 8, 16, dtype=torch.float64)
            shifted = network.double()(x.roll(2, -1), f.roll(2, -1))
            torch.testing.assert_close(shifted, network(x, f).roll(2, -1), rtol=1e-10, atol=1e-10)


def test_forcings_with_zero_weights_change_nothing():
    without, with_two = small(), small(forcings=2)
    weights = without.state_dict()
    weights["encoder.0.conv.weight"] = torch.nn.functional.pad(weights["encoder.0.conv.weight"], (0, 0, 0, 0, 0, 2))
    with_two.load_state_dict(weights)
    x = torch.randn(1, 3, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(with_two(x, torch.randn(1, 3, 2, 8, 8)), without(x))


@pytest.mark.parametrize(("horizon", "calls"), [(2, 1), (3, 1), (4, 2), (7, 3)])
def test_rollout_gives_every_call_its_forcings(horizon, calls):
    forcings_of_calls = []

    def add_forcing(x_BTCHW, f_BTFHW):
        forcings_of_calls.append(f_BTFHW.flatten().tolist())
        return x_BTCHW[:, -1:] + f_BTFHW.cumsum(1)

    x = torch.tensor([8.0, 9, 10]).view(1, 3, 1, 1, 1)
    f = torch.arange(1.0, 3 * calls + 1).view(1, 3 * calls, 1, 1, 1)
    output = rollout(add_forcing, x, horizon, f)
    assert forcings_of_calls == [[1, 2, 3], [4, 5, 6], [7, 8, 9]][:calls]
    # 10 plus the triangular numbers
    assert output.flatten().tolist() == [11, 13, 16, 20, 25, 31, 38, 46, 55][:horizon]


def test_rollout_with_too_few_forcings_raises():
    x, f = torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match="dimension 1 must be 6"):
        rollout(small(forcings=2), x, 4, f)


@pytest.mark.parametrize(
    ("forcings", "shape", "message"),
    [
        (4, None, r"None must have the shape \(1, 3, 4, 8, 8\)"),
        (0, (1, 3, 4, 8, 8), r"\(1, 3, 4, 8, 8\) must be left out"),
        (4, (1, 3, 2, 8, 8), r"\(1, 3, 2, 8, 8\) must have the shape \(1, 3, 4, 8, 8\)"),
        (4, (1, 2, 4, 8, 8), "must have the shape"),
        (4, (2, 3, 4, 8, 8), "must have the shape"),
        (4, (1, 3, 4, 8, 9), "must have the shape"),
    ],
)
def test_forcings_of_a_wrong_shape_raise(forcings, shape, message):
    with pytest.raises(ValueError, match=message):
        small(forcings=forcings)(torch.zeros(1, 3, 2, 8, 8), None if shape is None else torch.zeros(shape))


@pytest.mark.parametrize("padding", PADDING_MODES[1:])
@pytest.mark.parametrize("layers", [2, 4])
def test_longitude_is_periodic_where_the_stride_does_not_divide_it(padding, layers):
    # without the coarse grid, the output shifts by any number of columns
    network = small(padding, spatial_layers=layers, hidden_time=8)
    for layer in (network.translator.widen, *(layer.norm for layer in network.decoder[:-1])):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 3, 2, 6, 50)
    with torch.no_grad():
        shifted = network(x[..., :49].roll(5, -1))
        torch.testing.assert_close(shifted, network(x[..., :49]).roll(5, -1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network(x.roll(3, -1)), network(x).roll(3, -1), rtol=1e-5, atol=1e-5)


def test_downsampling_keeps_every_second_cell():
    network = small("periodic", spatial_layers=4)
    fine = torch.randn(1, 4, 5, 7)
    coarse = network.encoder[1].conv(fine)
    network.encoder[1].conv.stride = (1, 1)
    torch.testing.assert_close(coarse, network.encoder[1].conv(fine)[..., ::2, ::2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf must be a finite number"),
        ({"mlp_ratio": 0.01, "hidden_time": 8}, "mlp_ratio=0.01 must be from 0.125 to"),
        ({"mlp_ratio": 1e300}, "mlp_ratio=1e.300 must be from"),
        ({"hidden_space": 2**21}, "hidden_space=2097152 must be at most 1048576"),
        ({"mlp_ratio": "8"}, "mlp_ratio='8'"),
        ({"mlp_ratio": None}, "mlp_ratio=None"),
        ({"drop_path": None}, "drop_path=None must be a finite number"),
        ({"drop_path": 1}, "drop_path=1"),
        ({"hidden_time": True}, "hidden_time=True must be an integer"),
        ({"blocks": 2.0}, "blocks=2.0"),
        ({"hidden_space": 3}, "hidden_space=3 must be an even integer"),
    ],
)
def test_sizes_out_of_range_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        SimVPv2Config(**changes)


def test_a_first_block_that_is_too_wide_raises():
    with pytest.raises(ValueError, match="mlp_ratio=1.04858e.06 must be from .* history=3 and hidden_space=1048576"):
        SimVPv2(SimVPv2Config(2**20, 1, mlp_ratio=2**20, padding="zeros"), history=3, channels=1)


def test_sizes_become_plain_numbers():
    config = SimVPv2Config(hidden_time=np.int64(8), mlp_ratio=np.float32(2))
    assert type(config.hidden_time) is int and type(config.mlp_ratio) is float


@pytest.mark.parametrize(
    ("name", "value"), [("history", 0), ("channels", 1.5), ("forcings", -1), ("output_channels", True)]
)
def test_bad_counts_raise(name, value):
    counts = {"history": 2, "channels": 2, name: value}
    with pytest.raises(ValueError, match=f"{name}={value} must be an integer"):
        SimVPv2(SimVPv2Config(padding="zeros"), **counts)


def test_rollout_constrains_the_states_it_feeds_back():
    def add_steps(x):
        return x[:, -1:] + torch.arange(1.0, 4)[:, None, None, None]

    x = torch.zeros(1, 3, 1, 1, 2)
    forecast = rollout(add_steps, x, 7, constrain=lambda y: y.clamp(max=2))
    # the forecast itself is not clamped, only the input of the next call
    assert forecast[0, :, 0, 0, 0].tolist() == [1, 2, 3, 3, 4, 5, 3]
    inputs = []
    rollout(lambda y: inputs.append(y) or y + 1, x, 6, constrain=lambda y: y * 0)
    assert len(inputs) == 2 and (inputs[1] == 0).all()


def test_activation_checkpointing_recomputes_the_same_numbers():
    plain, checkpointed = (small("sphere", drop_path=0.4).train() for _ in range(2))
    checkpointed.activation_checkpointing = True
    calls = {}
    for network in (plain, checkpointed):
        expand = network.translator.blocks[1].expand
        expand.register_forward_hook(lambda module, *_: calls.update({module: calls.get(module, 0) + 1}))
    x = torch.randn(2, 3, 2, 8, 8)
    for network in (plain, checkpointed):
        torch.manual_seed(5)
        network(x).square().sum().backward()
    # with checkpointing a layer runs again in the backward pass
    assert list(calls.values()) == [1, 2]
    for (name, value), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, value.grad, msg=name)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(dict(checkpointed.named_buffers())[name], value, msg=name)


class TestDifferentInputAndOutputChannels:
    config = SimVPv2Config(hidden_space=4, hidden_time=12, blocks=2, padding="zeros", predict="change")
    x = torch.randn(2, 3, 3, 8, 8)

    @pytest.mark.parametrize("output_channels", [1, 2, 5])
    def test_output_shape_and_shared_channels(self, output_channels):
        network = SimVPv2(self.config, history=3, channels=3, output_channels=output_channels).eval()
        assert network(self.x).shape == (2, 3, output_channels, 8, 8)
        assert network.shared_channels == min(3, output_channels)

    def test_a_change_is_added_only_to_shared_channels(self):
        network = SimVPv2(self.config, history=3, channels=3, output_channels=4, shared_channels=2).eval()
        torch.nn.init.zeros_(network.readout.weight)
        network.readout.bias.data = torch.tensor([1.0, 2, 3, 4])
        y = network(self.x)
        torch.testing.assert_close(y[:, 2, :2], self.x[:, -1, :2] + torch.tensor([1.0, 2])[:, None, None])
        assert (y[:, :, 2] == 3).all() and (y[:, :, 3] == 4).all()

    def test_a_rollout_needs_all_input_channels_in_the_output(self):
        network = SimVPv2(self.config, history=3, channels=3, output_channels=4).eval()
        assert rollout(network, self.x, 7).shape == (2, 7, 4, 8, 8)
        network = SimVPv2(self.config, history=3, channels=3, output_channels=2).eval()
        assert rollout(network, self.x, 3).shape == (2, 3, 2, 8, 8)
        with pytest.raises(ValueError, match="horizon=4 must be at most 3: .* 3 input channels"):
            rollout(network, self.x, 4)

    def test_too_many_shared_channels_raise(self):
        with pytest.raises(ValueError, match="shared_channels=3 must be from 0 .*output_channels=2"):
            SimVPv2(self.config, history=3, channels=3, output_channels=2, shared_channels=3)
