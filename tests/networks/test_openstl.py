"""Checkpoints of OpenSTL, against an independent implementation of its forward pass and weight names."""

import argparse
import math
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric.utilities.data import AttributeDict

from simvp_climate.networks.openstl import load
from simvp_climate.networks.rollout import rollout
from simvp_climate.networks.simvp_v1 import SimVPv1, SimVPv1Config
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


@dataclass(frozen=True)
class Case:
    """A configuration of OpenSTL under OpenSTL's names."""

    version: int
    T: int
    C: int
    hid_S: int  # noqa: N815
    hid_T: int  # noqa: N815
    N_S: int
    N_T: int
    H: int
    W: int
    mlp_ratio: float = 8.0

    @property
    def config(self):
        if self.version == 1:
            return SimVPv1Config(self.hid_S, self.hid_T, self.N_S, self.N_T)
        sizes = (self.hid_S, self.hid_T, self.N_S, self.N_T, self.mlp_ratio)
        return SimVPv2Config(*sizes, drop_path=0.0, padding="zeros", predict="state")

    @property
    def network(self):
        return (SimVPv1 if self.version == 1 else SimVPv2)(self.config, history=self.T, channels=self.C)


T2M = Case(2, 12, 1, 32, 256, 2, 8, 32, 64)
SMALL = Case(2, 3, 2, 4, 8, 2, 3, 8, 12)
SMALL_V1 = Case(1, 3, 2, 4, 10, 2, 3, 8, 12)


# ---- OpenSTL from its specification: shapes of the weights and forward pass


def shapes_of(case: Case) -> dict[str, tuple[int, ...]]:
    S, D, hidden, last = case.hid_S, case.T * case.hid_S, case.hid_T, case.N_T - 1
    shapes = {}

    def layer(name, outputs, inputs, kernel):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, kernel, kernel), (outputs,)

    def norm(name, channels, batch=False):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)
        if batch:
            shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (channels,)
            shapes[f"{name}.num_batches_tracked"] = ()

    for i in range(case.N_S):
        layer(f"enc.enc.{i}.conv.conv", S, S if i else case.C, 3)
        norm(f"enc.enc.{i}.conv.norm", S)
        if i % 2 == 0:
            layer(f"dec.dec.{i}.conv.conv.0", 4 * S, S, 3)
        else:
            layer(f"dec.dec.{i}.conv.conv", S, S, 3)
        norm(f"dec.dec.{i}.conv.norm", S)
    layer("dec.readout", case.C, S, 1)
    if case.version == 1:
        half = hidden // 2
        groups = 8 if half % 8 == 0 else 1
        enc = [(D, hidden)] + [(hidden, hidden)] * last
        dec = [(hidden, hidden)] + [(2 * hidden, hidden)] * (last - 1) + [(2 * hidden, D)]
        for side, sizes in (("enc", enc), ("dec", dec)):
            for i, (inputs, outputs) in enumerate(sizes):
                layer(f"hid.{side}.{i}.conv1", half, inputs, 1)
                for j, kernel in enumerate((3, 5, 7, 11)):
                    layer(f"hid.{side}.{i}.layers.{j}.conv", outputs, half // groups, kernel)
                    norm(f"hid.{side}.{i}.layers.{j}.norm", outputs)
        return shapes
    for i, (width, outputs) in enumerate([(D, hidden)] + [(hidden, hidden)] * (last - 1) + [(hidden, D)]):
        block, wide = f"hid.enc.{i}.block", int(width * case.mlp_ratio)
        shapes[f"{block}.layer_scale_1"] = shapes[f"{block}.layer_scale_2"] = (width,)
        norm(f"{block}.norm1", width, batch=True)
        norm(f"{block}.norm2", width, batch=True)
        layer(f"{block}.attn.proj_1", width, width, 1)
        layer(f"{block}.attn.spatial_gating_unit.conv0", width, 1, 5)
        layer(f"{block}.attn.spatial_gating_unit.conv_spatial", width, 1, 7)
        layer(f"{block}.attn.spatial_gating_unit.conv1", 2 * width, width, 1)
        layer(f"{block}.attn.proj_2", width, width, 1)
        layer(f"{block}.mlp.fc1", wide, width, 1)
        layer(f"{block}.mlp.dwconv.dwconv", wide, 1, 3)
        layer(f"{block}.mlp.fc2", width, wide, 1)
        if width != outputs:
            layer(f"hid.enc.{i}.reduction", outputs, width, 1)
    return shapes


def weights_of(case: Case, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random weights that give every branch a signal of order one, unlike initial weights.

    The running statistics of batch norms are close to those of their input, as after training. Otherwise signals would
    grow from block to block, and rounding too: float32 and float64 would differ by 1.
    """
    g = torch.Generator().manual_seed(seed)
    weights = OrderedDict()
    for name, shape in shapes_of(case).items():
        noise = torch.randn(shape, generator=g)
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(1234)
        elif "layer_scale" in name or (name.endswith("weight") and "norm" in name):
            weights[name] = 1 + 0.3 * noise
        elif name.endswith("weight"):
            weights[name] = noise * math.sqrt(2 / math.prod(shape[1:]))
        else:
            weights[name] = 0.3 * noise
    with torch.no_grad():
        reference(weights, torch.randn(1, case.T, case.C, case.H, case.W, generator=g), g)
    return weights


def reference(w: dict[str, torch.Tensor], x_BTCHW: torch.Tensor, measure: torch.Generator | None = None):
    """Return OpenSTL's forward pass in evaluation mode.

    With a generator `measure`, first set the running statistics close to those of `x_BTCHW`.
    """

    def conv(name, z, **options):
        return F.conv2d(z, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def group_norm(name, z, groups):
        return F.group_norm(z, groups, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def batch_norm(name, z):
        if measure:
            off_mean, off_std = 0.3 * torch.randn(2, z.shape[1], generator=measure)
            var, mean = torch.var_mean(z, (0, 2, 3))
            w[f"{name}.running_mean"], w[f"{name}.running_var"] = mean + off_mean * var.sqrt(), var * off_std.exp()
        moments = (w[f"{name}.running_mean"], w[f"{name}.running_var"])
        return F.batch_norm(z, *moments, w[f"{name}.weight"], w[f"{name}.bias"], False, 0.1, 1e-5)

    def depthwise(name, z, **options):
        return conv(name, z, groups=z.shape[1], **options)

    def attention_block(name, x):
        n = batch_norm(f"{name}.norm1", x)
        unit = f"{name}.attn.spatial_gating_unit"
        a = depthwise(f"{unit}.conv0", F.gelu(conv(f"{name}.attn.proj_1", n)), padding=2)
        f, g = conv(f"{unit}.conv1", depthwise(f"{unit}.conv_spatial", a, padding=9, dilation=3)).chunk(2, 1)
        a = conv(f"{name}.attn.proj_2", g.sigmoid() * f) + n
        x = x + w[f"{name}.layer_scale_1"].view(-1, 1, 1) * a
        m = conv(f"{name}.mlp.fc1", batch_norm(f"{name}.norm2", x))
        m = conv(f"{name}.mlp.fc2", F.gelu(depthwise(f"{name}.mlp.dwconv.dwconv", m, padding=1)))
        return x + w[f"{name}.layer_scale_2"].view(-1, 1, 1) * m

    def inception(name, z):
        u, total = conv(f"{name}.conv1", z), 0
        groups = 8 if u.shape[1] % 8 == 0 else 1
        for j, kernel in enumerate((3, 5, 7, 11)):
            branch = conv(f"{name}.layers.{j}.conv", u, padding=kernel // 2, groups=groups)
            total = total + F.leaky_relu(group_norm(f"{name}.layers.{j}.norm", branch, groups), 0.2)
        return total

    def count(prefix):
        return len({name.split(".")[2] for name in w if name.startswith(prefix)})

    B, T, C, H, W = x_BTCHW.shape
    layers, blocks = count("enc.enc."), count("hid.enc.")
    z, skip = x_BTCHW.reshape(B * T, C, H, W), None
    for i in range(layers):
        z = conv(f"enc.enc.{i}.conv.conv", z, stride=2 if i % 2 else 1, padding=1)
        z = F.silu(group_norm(f"enc.enc.{i}.conv.norm", z, 2))
        skip = z if i == 0 else skip
    latent = z.shape
    z = z.reshape(B, T * latent[1], *latent[2:])
    if "hid.dec.0.conv1.weight" in w:
        skips = []
        for i in range(blocks):
            z = inception(f"hid.enc.{i}", z)
            skips.append(z)
        z = inception("hid.dec.0", z)
        for i in range(1, blocks):
            z = inception(f"hid.dec.{i}", torch.cat([z, skips[blocks - 1 - i]], 1))
    else:
        for i in range(blocks):
            z = attention_block(f"hid.enc.{i}.block", z)
            if f"hid.enc.{i}.reduction.weight" in w:
                z = conv(f"hid.enc.{i}.reduction", z)
    z = z.reshape(latent)
    for i in range(layers):
        z = z + skip if i == layers - 1 else z
        if i % 2 == 0:
            z = F.pixel_shuffle(conv(f"dec.dec.{i}.conv.conv.0", z, padding=1), 2)
        else:
            z = conv(f"dec.dec.{i}.conv.conv", z, padding=1)
        z = F.silu(group_norm(f"dec.dec.{i}.conv.norm", z, 2))
    return conv("dec.readout", z).reshape(B, T, C, H, W)


def save(folder: pathlib.Path, content: object) -> pathlib.Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


def difference(network, weights, case: Case, batch: int) -> float:
    x = torch.randn(batch, case.T, case.C, case.H, case.W, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(weights, x)
        assert 0.2 < expected.std() < 5
        return (network(x) - expected).abs().max().item()


# ---- parity


@pytest.mark.parametrize(("file", "history", "channels"), [("small_t2m.pt", 12, 1), ("simvp_v1.pt", 4, 2)])
def test_golden_outputs_of_openstl(file, history, channels):
    golden = torch.load(GOLDENS / file, weights_only=True)
    weights = {name: value.float() for name, value in golden["state_dict"].items()}
    network = load(GOLDENS / file)
    version = 1 if "v1" in file else 2
    assert network.config == Case(version, history, channels, 16, 64, 2, 4, 32, 64).config
    with torch.no_grad():
        assert (reference(weights, golden["input"]) - golden["output_eval"]).abs().max() <= 2e-5
        assert (network(golden["input"]) - golden["output_eval"]).abs().max() <= 2e-5


CASES = [
    Case(2, 12, 1, 8, 32, 2, 8, 32, 64),
    Case(2, 12, 2, 4, 40, 2, 3, 24, 40),
    Case(2, 4, 12, 8, 16, 2, 6, 32, 64),
    Case(2, 4, 12, 8, 32, 4, 3, 16, 16),  # hid_T == T * hid_S: no reduction
    Case(2, 10, 1, 8, 64, 4, 2, 24, 40),
    Case(2, 1, 1, 2, 3, 2, 4, 2, 6),
    Case(2, 5, 2, 6, 10, 6, 2, 16, 24, mlp_ratio=2.5),
    Case(2, 7, 1, 2, 10, 2, 2, 8, 8, mlp_ratio=1.3),  # 14 * 1.3 and 10 * 1.3 are rounded down
    Case(1, 12, 1, 8, 32, 2, 8, 32, 64),
    Case(1, 4, 12, 4, 48, 4, 2, 16, 16),
    Case(1, 4, 2, 6, 20, 2, 3, 24, 40),  # hid_T // 2 == 10: one group
    Case(1, 10, 1, 8, 31, 4, 3, 32, 64),  # hid_T // 2 == 15
    Case(1, 4, 1, 8, 32, 2, 4, 16, 16),  # hid_T == T * hid_S
    Case(1, 1, 1, 2, 2, 2, 2, 4, 6),
]
FULL = [
    T2M,
    Case(2, 12, 1, 32, 256, 2, 8, 128, 256),
    Case(2, 4, 12, 32, 512, 2, 8, 32, 64),
    Case(2, 10, 1, 64, 512, 4, 8, 64, 64),
    Case(1, 12, 1, 32, 256, 2, 8, 32, 64),
    Case(1, 10, 1, 64, 512, 4, 8, 64, 64),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity_at_other_configurations(tmp_path, case):
    weights = weights_of(case, seed=case.T + case.hid_T)
    network = load(save(tmp_path, weights))
    assert (network.config, network.history, network.channels) == (case.config, case.T, case.C) or case.mlp_ratio == 1.3
    assert difference(network, weights, case, batch=2) <= 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", FULL, ids=str)
def test_parity_at_published_sizes(tmp_path, case):
    weights = weights_of(case)
    assert difference(load(save(tmp_path, weights)), weights, case, batch=1) <= 2e-5


# ---- published sizes


@dataclass(frozen=True)
class Published:
    """Parameters and multiply-adds of a configuration, from OpenSTL's documentation and its own counts."""

    case: Case
    parameters: int
    giga: float  # multiply-adds per forecast, in 10^9


PUBLISHED = {
    "t2m, r, tcc": Published(T2M, 12_758_305, 7.01),
    "uv10": Published(Case(2, 12, 2, 32, 256, 2, 8, 32, 64), 12_758_626, 7.01),
    "t2m at 1.40625 degrees": Published(Case(2, 12, 1, 32, 256, 2, 8, 128, 256), 12_758_305, 112.09),
    "multi-variable": Published(Case(2, 4, 12, 32, 256, 2, 8, 32, 64), 9_964_268, 5.25),
    "multi-variable, hid_T 512": Published(Case(2, 4, 12, 32, 512, 2, 8, 32, 64), 37_868_780, 19.52),
    "Moving MNIST": Published(Case(2, 10, 1, 64, 512, 4, 8, 64, 64), 46_769_665, 16.53),
    "v1, t2m": Published(Case(1, 12, 1, 32, 256, 2, 8, 32, 64), 14_666_017, 8.03),
    "v1, multi-variable": Published(Case(1, 4, 12, 32, 256, 2, 8, 32, 64), 13_798_124, 7.25),
    "v1, Moving MNIST": Published(Case(1, 10, 1, 64, 512, 4, 8, 64, 64), 57_946_113, 19.43),
}


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_published_configurations_load(tmp_path, published):
    # expanded tensors keep the file small: each stores one number
    file = {
        name: torch.ones(()).expand(shape) if shape else torch.tensor(0)
        for name, shape in shapes_of(published.case).items()
    }
    network = load(save(tmp_path, file))
    case = published.case
    assert (network.config, network.history, network.channels) == (case.config, case.T, case.C)
    assert sum(value.numel() for value in network.parameters()) == published.parameters


def count_multiply_adds(case: Case) -> int:
    """Return the multiply-adds of all convolutions in one forecast."""
    S, D, hidden, cells = case.hid_S, case.T * case.hid_S, case.hid_T, case.H * case.W
    coarse = cells // 2**case.N_S
    # every second layer of the encoder halves the grid; those of the decoder convolve before they double it
    frame = cells * 9 * case.C * S + cells * S * case.C
    frame += sum(cells // 4 ** ((i + 1) // 2) * 9 * S * S for i in range(1, case.N_S))
    frame += sum(coarse * 4 ** ((i + 1) // 2) * 9 * S * S * (4 if i % 2 == 0 else 1) for i in range(case.N_S))
    if case.version == 1:
        half, last = hidden // 2, case.N_T - 1
        inputs = D + last * hidden + hidden + last * 2 * hidden
        outputs = hidden + last * hidden + last * hidden + D
        # 9 + 25 + 49 + 121 taps, in 8 groups
        return case.T * frame + coarse * half * (inputs + 204 // 4 * outputs // 2)
    # 1 + 2 + 1 + 8 + 8 dense, 25 + 49 + 8 * 9 depth-wise
    blocks = 20 * D * D + 146 * D + (case.N_T - 1) * (20 * hidden * hidden + 146 * hidden)
    return case.T * frame + coarse * (blocks + (2 * D * hidden if hidden != D else 0))


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items(), ids=PUBLISHED)
def test_multiply_adds_equal_the_published_ones(name, published):
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    case, network = published.case, published.case.network.eval()
    elements = {torch.nn.GroupNorm: 0, torch.nn.BatchNorm2d: 0}

    def add(norm, output):
        elements[norm] += output.numel()

    for module in network.modules():
        for norm in elements:
            if isinstance(module, norm):
                module.register_forward_hook(lambda module, inputs, output, norm=norm: add(norm, output))
    # fake tensors have shapes but no values
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, case.T, case.C, case.H, case.W))
    convolutions = counter.get_total_flops() // 2
    print(f"{name}: {convolutions / 1e9:.3f} G multiply-adds in convolutions, published {published.giga} G")
    assert convolutions == count_multiply_adds(case)
    # OpenSTL counted with fvcore, which adds 5 per element of a group norm and 2 per element of a batch norm
    norms = 5 * elements[torch.nn.GroupNorm] + 2 * elements[torch.nn.BatchNorm2d]
    assert f"{(convolutions + norms) / 1e9:.2f}" == f"{published.giga:.2f}"
    assert 0.99 < convolutions / 1e9 / published.giga < 1


# ---- files that load


def lightning(weights, prefix="model."):
    """Return a Lightning checkpoint with hyperparameters like those of OpenSTL."""
    mean = np.arange(3.0, dtype="f4").reshape(1, 3, 1, 1)
    return {
        "epoch": 49,
        "global_step": 100,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": OrderedDict((prefix + name, value) for name, value in weights.items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 50}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "in_shape": [12, 1, 32, 64],
            "test_mean": mean,
            "test_std": mean.astype("f8")[..., ::2],
            "scale": np.float64(2.5),
            "count": np.int32(3),
            "names": np.array(["t2m", "r"]),
            "time": np.datetime64("2018-01-01"),
            "objects": np.array([1, "one"], dtype=object),
            "args": argparse.Namespace(lr=1e-3, mean=mean),
            "res_dir": pathlib.Path("work_dirs"),
            "nested": AttributeDict(fps=1),
            "metrics": ("mse", "mae"),
        },
    }


@pytest.mark.parametrize("case", [SMALL, SMALL_V1], ids=["v2", "v1"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module.", "model._orig_mod."])
def test_lightning_checkpoints_and_prefixes(tmp_path, case, prefix):
    weights = weights_of(case)
    network = load(save(tmp_path, lightning(weights, prefix)))
    assert network.config == case.config and not network.training
    assert difference(network, weights, case, batch=2) <= 2e-5


def test_checkpoints_pickled_with_older_numpy(tmp_path):
    path, new = tmp_path / "old.ckpt", save(tmp_path, lightning(weights_of(SMALL)))
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            assert not entry.endswith("data.pkl") or b"numpy._core" in content
            target.writestr(entry, content.replace(b"numpy._core", b"numpy.core"))
    assert load(path).config == SMALL.config


def test_checkpoints_in_the_old_format_of_torch(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(weights_of(SMALL), path, _use_new_zipfile_serialization=False)
    assert load(path).config == SMALL.config


def test_tensors_of_profilers_and_losses_are_ignored(tmp_path):
    ignored = {
        "model.total_ops": torch.zeros(1, dtype=torch.float64),
        "model.enc.enc.0.total_params": torch.zeros(1, dtype=torch.float64),
        "criterion.weight": torch.ones(3),
        "n_averaged": torch.tensor(3),
    }
    file = lightning(weights_of(SMALL))
    file["state_dict"].update(ignored)
    assert load(save(tmp_path, file)).config == SMALL.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32(tmp_path, dtype):
    weights = weights_of(SMALL)
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    network = load(save(tmp_path, stored))
    assert all(value.dtype == torch.float32 for value in network.parameters())
    rounded = {name: value.float() for name, value in stored.items()}
    assert difference(network, rounded, SMALL, batch=2) <= 2e-5


def test_loading_draws_no_random_numbers(tmp_path):
    path = save(tmp_path, weights_of(SMALL))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load(path)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("case", [SMALL, SMALL_V1], ids=["v2", "v1"])
def test_a_loaded_network_rolls_out(tmp_path, case):
    network = load(save(tmp_path, weights_of(case)))
    x = torch.randn(1, 3, 2, 7, 9)
    with torch.no_grad():
        twice = rollout(network, x, 5)
        torch.testing.assert_close(twice[:, 3:], network(network(x))[:, :2])


# ---- files that raise


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", ["os.system", "exec", "Path.touch"])
@pytest.mark.parametrize("where", ["hyper_parameters", "weights", "numpy", "plain pickle"])
def test_code_in_a_file_does_not_run(tmp_path, function, where):
    made = tmp_path / "made"
    evil = {
        "os.system": Evil(os.system, f"touch {made}"),
        "exec": Evil(exec, f"open({str(made)!r}, 'w').close()"),
        "Path.touch": Evil(pathlib.Path.touch, made),
    }[function]
    file = lightning(weights_of(SMALL))
    if where == "hyper_parameters":
        file["hyper_parameters"]["lr"] = evil
    elif where == "weights":
        file["state_dict"]["model.enc.enc.0.conv.norm.bias"] = evil
    elif where == "numpy":
        file["hyper_parameters"]["mean"] = np.array([evil], dtype=object)
    path = tmp_path / "evil.ckpt"
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(file, path)
    with pytest.raises(ValueError, match="evil.ckpt.* would run code from the file"):
        load(path)
    assert not made.exists()
    # the file is dangerous without the guard
    if where == "plain pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert made.exists()


def test_the_fix_in_the_error_works(tmp_path):
    file = lightning(weights_of(SMALL))
    file["hyper_parameters"]["shape"] = Evil(np.int64, 3)
    path = save(tmp_path, file)
    with pytest.raises(ValueError, match="save the weights alone .*torch.save"):
        load(path)
    torch.save(torch.load(path, weights_only=False)["state_dict"], tmp_path / "weights.pt")
    assert load(tmp_path / "weights.pt").config == SMALL.config


def test_loading_leaves_the_safe_globals_of_torch_unchanged(tmp_path):
    path = save(tmp_path, lightning(weights_of(SMALL)))
    load(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("new", [True, False])
def test_truncated_files_raise(tmp_path, share, new):
    path = tmp_path / "cut.pth"
    torch.save(weights_of(SMALL), path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="cut.pth' cannot be read .* damaged"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"time,t2m\n0,1\n", b"\x89HDF\r\n\x1a\n" + bytes(99), pickle.dumps({}, protocol=4)]
)
def test_files_of_other_formats_raise(tmp_path, content):
    path = tmp_path / "else.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="else.pth' cannot be read"):
        load(path)


def test_a_zip_file_of_numpy_raises(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "arrays.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ([], "holds a list"),
        ({"state_dict": 3}, "holds a int"),
        ({}, "holds nothing"),
        (
            {"cell_list.0.conv_x.0.weight": torch.zeros(1)},
            "holds 'cell_list.* must have .*'enc.enc.0.conv.conv.weight'",
        ),
        ({"model": {}, "epoch": 3}, "holds 'model', 'epoch'"),
    ],
)
def test_files_without_weights_raise(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path, content))


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load(tmp_path / "nothing.pth")


def test_weights_of_tau_raise(tmp_path):
    weights = weights_of(SMALL)
    for i, width in enumerate((12, 8, 8)):
        unit = f"hid.enc.{i}.block.attn.spatial_gating_unit"
        weights[f"{unit}.conv1.weight"], weights[f"{unit}.conv1.bias"] = (
            torch.zeros(width, width, 1, 1),
            torch.zeros(width),
        )
        weights[f"{unit}.fc.0.weight"], weights[f"{unit}.fc.2.weight"] = torch.zeros(4, width), torch.zeros(width, 4)
    with pytest.raises(ValueError, match="fc.0.weight.* OpenSTL's SimVPv2 .gSTA. does not have"):
        load(save(tmp_path, weights))


def test_other_translators_raise(tmp_path):
    weights = {name: value for name, value in weights_of(SMALL).items() if "layer_scale" not in name}
    with pytest.raises(ValueError, match="layer_scale_1' is missing"):
        load(save(tmp_path, weights))


def test_several_models_in_a_file_raise(tmp_path):
    weights = weights_of(SMALL)
    both = {f"{prefix}.{name}": value for prefix in ("model", "ema") for name, value in weights.items()}
    with pytest.raises(ValueError, match=r"several models, with prefixes \['model.', 'ema.'\]"):
        load(save(tmp_path, both))


@pytest.mark.parametrize("key", ["enc.enc.0.conv.conv.bias", "optimizer.lr", 3])
def test_unknown_names_raise(tmp_path, key):
    file = lightning(weights_of(SMALL))
    file["state_dict"][key] = torch.zeros(4)
    with pytest.raises(ValueError, match=f"'{key}' must begin with 'model.'"):
        load(save(tmp_path, file))


def test_a_value_other_than_a_tensor_raises(tmp_path):
    weights = weights_of(SMALL)
    weights["enc.enc.0.conv.norm.bias"] = [1, 2]
    with pytest.raises(ValueError, match=r"'enc.enc.0.conv.norm.bias' must be a dense tensor, not \[1, 2\]"):
        load(save(tmp_path, weights))


@pytest.mark.parametrize("case", [replace(SMALL, N_T=2), replace(SMALL_V1, N_T=2)], ids=["v2", "v1"])
def test_any_missing_or_misshapen_tensor_raises(tmp_path, case):
    whole = weights_of(case)
    for key, value in whole.items():
        with pytest.raises(ValueError, match="'enc.enc.0.conv.conv.weight'|missing|lacks|numbered"):
            load(save(tmp_path, {name: value for name, value in whole.items() if name != key}))
        longer = torch.cat([value, value[:1]]) if value.ndim else torch.zeros(3, dtype=torch.int64)
        with pytest.raises(ValueError, match="checkpoint.pth'"):
            load(save(tmp_path, {**whole, key: longer}))


def test_a_missing_tensor_raises(tmp_path):
    weights = weights_of(SMALL)
    del weights["hid.enc.2.reduction.bias"], weights["hid.enc.1.block.mlp.fc2.weight"]
    message = "lacks weights .*: 'hid.enc.1.block.mlp.fc2.weight', 'hid.enc.2.reduction.bias'"
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path, weights))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dec.readout.bias", torch.zeros(3), r"'dec.readout.bias' is torch.float32 of shape \(3,\); .*shape \(2,\)"),
        ("dec.readout.bias", torch.zeros(2, dtype=torch.int32), "is torch.int32 of shape"),
        ("dec.readout.bias", torch.tensor([1, torch.nan]), "'dec.readout.bias' must be finite"),
        ("dec.readout.bias", torch.full((2,), 1e300, dtype=torch.float64), "must be finite"),
        ("hid.enc.5.block.norm1.weight", torch.zeros(8), r"without a gap, not \[0, 1, 2, 5\]"),
        ("hid.enc.0.block.layer_scale_1", torch.zeros(13), "13 input channels must be a multiple of hidden_space=4"),
        ("hid.enc.0.block.mlp.fc1.weight", torch.zeros(13, 12, 1, 1), "no mlp_ratio turns"),
        ("enc.enc.2.conv.norm.bias", torch.zeros(4), "spatial_layers=3 must be an even"),
    ],
)
def test_weights_that_do_not_fit_together_raise(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path, {**weights_of(SMALL), key: value}))
