import numpy as np
import pytest
import torch

from simvp_climate.networks.padding import pad
from simvp_climate.networks.simvp_v2 import PADDING_MODES, SimVPv2, SimVPv2Config, rollout


def small(padding="zeros", predict="state", channels=2, forcings=0, **changes):
    torch.manual_seed(0)
    sizes = dict(hidden_space=4, hidden_time=12, blocks=3, mlp_ratio=2.0, drop_path=0.0)
    config = SimVPv2Config(**{**sizes, **changes}, padding=padding, predict=predict)
    network = SimVPv2(config, history=3, channels=channels, forcings=forcings).eval()
    for name, value in network.named_parameters():
        # the initial layer scales and biases would hide the blocks
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


@pytest.mark.parametrize("padding", PADDING_MODES[1:])
@pytest.mark.parametrize(("layers", "stride"), [(2, 2), (4, 4)])
def test_output_turns_with_longitude(layers, stride, padding):
    network = small(padding, spatial_layers=layers)
    x = torch.randn(2, 3, 2, 8, 16)
    with torch.no_grad():
        for shift in (stride, 3 * stride):
            turned = network(x.roll(shift, -1))
            torch.testing.assert_close(turned, network(x).roll(shift, -1), rtol=1e-5, atol=1e-5)
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


def test_drop_path_is_off_in_evaluation_and_zero_means_none():
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
        ({"hidden_space": 5}, "hidden_space=5 must be an even whole number"),
        ({"spatial_layers": 3}, "spatial_layers=3 must be an even whole number"),
        ({"blocks": 1}, "blocks=1"),
        ({"mlp_ratio": 0}, "mlp_ratio=0"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"padding": "circular"}, "padding='circular' must be 'auto' or one of"),
        ({"predict": "tendency"}, "predict='tendency' must be 'change' or 'state'"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        SimVPv2Config(**changes)


def test_auto_padding_must_be_resolved():
    with pytest.raises(ValueError, match="resolved by train"):
        SimVPv2(SimVPv2Config(), history=2, channels=1)


def test_wrong_input_shape_is_named():
    with pytest.raises(ValueError, match="history=3 and channels=2"):
        small()(torch.zeros(1, 4, 2, 8, 8))


def test_forcings_widen_the_first_convolution_alone():
    without, with_five = (SimVPv2(SimVPv2Config(padding="zeros"), history=4, channels=12, forcings=n) for n in (0, 5))
    count = {name: value.numel() for name, value in without.state_dict().items()}
    wider = {name: value.numel() - count[name] for name, value in with_five.state_dict().items()}
    # 5 inputs, 32 outputs, a 3 x 3 kernel
    assert {name: more for name, more in wider.items() if more} == {"encoder.0.conv.weight": 5 * 32 * 9}


def test_no_forcings_is_the_network_of_before():
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
def test_forecasts_depend_on_the_forcings_of_every_frame(padding, predict):
    network = small(padding, predict, forcings=4)
    x, f = torch.randn(2, 3, 2, 7, 9), torch.randn(2, 3, 4, 7, 9)
    with torch.no_grad():
        output = network(x, f)
        assert output.shape == x.shape
        for frame in range(3):
            for channel in range(4):
                other = f.clone()
                other[:, frame, channel] += 1
                assert (network(x, other) - output).abs().max() > 1e-5
        # samples do not see each other
        other = f.clone()
        other[0] += 1
        torch.testing.assert_close(network(x, other)[1], output[1])
        if padding == "periodic":
            x, f = torch.randn(1, 3, 2, 8, 16), torch.randn(1, 3, 4, 8, 16)
            turned = network(x.roll(2, -1), f.roll(2, -1))
            torch.testing.assert_close(turned, network(x, f).roll(2, -1), rtol=1e-5, atol=1e-5)


def test_zero_weights_for_the_forcings_give_the_network_without():
    without, with_two = small(), small(forcings=2)
    weights = without.state_dict()
    weights["encoder.0.conv.weight"] = torch.nn.functional.pad(weights["encoder.0.conv.weight"], (0, 0, 0, 0, 0, 2))
    with_two.load_state_dict(weights)
    x = torch.randn(1, 3, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(with_two(x, torch.randn(1, 3, 2, 8, 8)), without(x))


@pytest.mark.parametrize(("horizon", "calls"), [(2, 1), (3, 1), (4, 2), (7, 3)])
def test_rollout_hands_every_call_its_forcings(horizon, calls):
    seen = []

    def add_forcing(x_BTCHW, f_BTFHW):
        seen.append(f_BTFHW.flatten().tolist())
        return x_BTCHW[:, -1:] + f_BTFHW.cumsum(1)

    x = torch.tensor([8.0, 9, 10]).view(1, 3, 1, 1, 1)
    f = torch.arange(1.0, 3 * calls + 1).view(1, 3 * calls, 1, 1, 1)
    output = rollout(add_forcing, x, horizon, f)
    assert seen == [[1, 2, 3], [4, 5, 6], [7, 8, 9]][:calls]
    # 10 and the triangular numbers
    assert output.flatten().tolist() == [11, 13, 16, 20, 25, 31, 38, 46, 55][:horizon]


def test_rollout_with_forcings_of_the_wrong_length():
    x, f = torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match="2 calls of 3 states each: dimension 1 must be 6"):
        rollout(small(forcings=2), x, 4, f)


@pytest.mark.parametrize(
    ("forcings", "shape", "message"),
    [
        (4, None, "has forcings=4: give f_BTFHW of shape \\(1, 3, 4, 8, 8\\)"),
        (0, (1, 3, 4, 8, 8), "built without: leave them out, or build it with forcings=4"),
        (4, (1, 3, 2, 8, 8), "must have the shape \\(1, 3, 4, 8, 8\\)"),
        (4, (1, 2, 4, 8, 8), "must have the shape"),
        (4, (2, 3, 4, 8, 8), "must have the shape"),
        (4, (1, 3, 4, 8, 9), "must have the shape"),
    ],
)
def test_forcings_of_the_wrong_shape_are_named(forcings, shape, message):
    with pytest.raises(ValueError, match=message):
        small(forcings=forcings)(torch.zeros(1, 3, 2, 8, 8), None if shape is None else torch.zeros(shape))


@pytest.mark.parametrize("rows", [(2, 3), (9, 8), (21, 30)])
@pytest.mark.parametrize(("padding_mode", "first"), [("sphere", 0.5), ("sphere_with_poles", 0)])
def test_a_field_goes_on_across_the_pole(rows, padding_mode, first):
    # x, y, z of a point: latitudes beyond 90 degrees are those of the opposite meridian by themselves
    height, width, before, after = 8, 12, *rows
    spacing = torch.pi / (height - 1 + 2 * first)
    latitude = (torch.arange(-before, height + after, dtype=torch.float64) + first) * spacing - torch.pi / 2
    longitude = torch.arange(-5, width + 2, dtype=torch.float64) * 2 * torch.pi / width
    y, x = torch.meshgrid(latitude, longitude, indexing="ij")
    whole = (2 * y.cos() * x.cos() - 3 * y.cos() * x.sin() + y.sin())[None, None]
    inside = whole[..., before : before + height, 5 : 5 + width]
    torch.testing.assert_close(pad(inside, padding_mode, rows, (5, 2)), whole)


@pytest.mark.parametrize("padding", PADDING_MODES[1:])
@pytest.mark.parametrize("layers", [2, 4])
def test_the_ring_of_longitudes_closes_where_the_stride_does_not_divide_it(padding, layers):
    # without what the coarse grid says, a turn by any number of columns turns the output
    network = small(padding, spatial_layers=layers, hidden_time=8)
    for layer in (network.translator.widen, *(one.norm for one in network.decoder[:-1])):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 3, 2, 6, 50)
    with torch.no_grad():
        turned = network(x[..., :49].roll(5, -1))
        torch.testing.assert_close(turned, network(x[..., :49]).roll(5, -1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network(x.roll(3, -1)), network(x).roll(3, -1), rtol=1e-5, atol=1e-5)


def test_coarse_states_are_those_of_every_second_cell_of_the_ring():
    network = small("periodic", spatial_layers=4)
    fine = torch.randn(1, 4, 5, 7)
    every = network.encoder[1].conv(fine)
    network.encoder[1].conv.stride = (1, 1)
    torch.testing.assert_close(every, network.encoder[1].conv(fine)[..., ::2, ::2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf must be a number from .* with hidden_time=256"),
        ({"mlp_ratio": 0.01, "hidden_time": 8}, "mlp_ratio=0.01 must be a number from 0.125 to"),
        ({"mlp_ratio": 1e300}, "mlp_ratio=1e.300 must be a number from"),
        ({"hidden_space": 2**21}, "hidden_space=2097152 must be at most 1048576"),
        ({"mlp_ratio": "8"}, "mlp_ratio='8'"),
        ({"mlp_ratio": None}, "mlp_ratio=None"),
        ({"drop_path": None}, r"drop_path=None must be a number in \[0, 1\)"),
        ({"drop_path": 1}, "drop_path=1"),
        ({"hidden_time": True}, "hidden_time=True must be a whole number"),
        ({"blocks": 2.0}, "blocks=2.0"),
        ({"hidden_space": 3}, "hidden_space=3 must be an even whole number"),
    ],
)
def test_bad_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        SimVPv2Config(**changes)


def test_a_first_block_that_is_too_wide_is_named():
    with pytest.raises(ValueError, match="makes 3298534883328 channels of history . hidden_space in the first block"):
        SimVPv2(SimVPv2Config(2**20, 1, mlp_ratio=2**20, padding="zeros"), history=3, channels=1)


def test_sizes_are_kept_as_plain_values():
    config = SimVPv2Config(hidden_time=np.int64(8), mlp_ratio=np.float32(2))
    assert type(config.hidden_time) is int and type(config.mlp_ratio) is float


@pytest.mark.parametrize(
    ("name", "value"), [("history", 0), ("channels", 1.5), ("forcings", -1), ("output_channels", True)]
)
def test_bad_numbers_of_channels_are_named(name, value):
    numbers = {"history": 2, "channels": 2, name: value}
    with pytest.raises(ValueError, match=f"{name}={value} must be a whole number"):
        SimVPv2(SimVPv2Config(padding="zeros"), **numbers)


def test_what_is_fed_back_is_held():
    def one_more(x):
        return x[:, -1:] + torch.arange(1.0, 4)[:, None, None, None]

    x = torch.zeros(1, 3, 1, 1, 2)
    held = rollout(one_more, x, 7, constrain=lambda y: y.clamp(max=2))
    # the forecast itself is not held, only what the next call is given
    assert held[0, :, 0, 0, 0].tolist() == [1, 2, 3, 3, 4, 5, 3]
    seen = []
    rollout(lambda y: seen.append(y) or y + 1, x, 6, constrain=lambda y: y * 0)
    assert len(seen) == 2 and (seen[1] == 0).all()


def test_recomputing_changes_no_number():
    plain, again = (small("sphere", drop_path=0.4).train() for _ in range(2))
    again.activation_checkpointing = True
    x = torch.randn(2, 3, 2, 8, 8)
    for network in (plain, again):
        torch.manual_seed(5)
        network(x).square().sum().backward()
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, msg=name)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(dict(again.named_buffers())[name], value, msg=name)


class TestOtherChannelsOut:
    config = SimVPv2Config(hidden_space=4, hidden_time=12, blocks=2, padding="zeros", predict="change")
    x = torch.randn(2, 3, 3, 8, 8)

    def test_fewer_and_more(self):
        for outputs in (1, 2, 5):
            network = SimVPv2(self.config, history=3, channels=3, output_channels=outputs).eval()
            assert network(self.x).shape == (2, 3, outputs, 8, 8)
            assert network.shared_channels == min(3, outputs)

    def test_a_change_is_added_to_the_shared_ones_alone(self):
        network = SimVPv2(self.config, history=3, channels=3, output_channels=4, shared_channels=2).eval()
        torch.nn.init.zeros_(network.readout.weight)
        network.readout.bias.data = torch.tensor([1.0, 2, 3, 4])
        y = network(self.x)
        torch.testing.assert_close(y[:, 2, :2], self.x[:, -1, :2] + torch.tensor([1.0, 2])[:, None, None])
        assert (y[:, :, 2] == 3).all() and (y[:, :, 3] == 4).all()

    def test_a_rollout_feeds_back_what_goes_in(self):
        more = SimVPv2(self.config, history=3, channels=3, output_channels=4).eval()
        assert rollout(more, self.x, 7).shape == (2, 7, 4, 8, 8)
        fewer = SimVPv2(self.config, history=3, channels=3, output_channels=2).eval()
        assert rollout(fewer, self.x, 3).shape == (2, 3, 2, 8, 8)
        with pytest.raises(ValueError, match="horizon of 4 takes 2 calls .* of the 3 channels .* only 2 come out"):
            rollout(fewer, self.x, 4)

    def test_more_shared_than_there_are(self):
        with pytest.raises(ValueError, match="shared_channels=3 must be at most .*output_channels=2"):
            SimVPv2(self.config, history=3, channels=3, output_channels=2, shared_channels=3)
