"""Files of networks that are not of this package: saved, loaded with the function that builds them, and exported."""

import pytest
import torch
from factories import assert_same_weights, run, waves
from torch import nn
from typer.testing import CliRunner

import simvp_climate as sc
from simvp_climate.__main__ import app


class Mixing(nn.Module):
    """Mixes the channels of each cell; its batch norm has statistics, and it has a buffer that no file holds."""

    def __init__(self, shape: sc.NetworkShape, hidden: int = 4):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(shape.channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Conv2d(hidden, shape.output_channels, 1)
        )
        self.register_buffer("damping", torch.tensor(0.5), persistent=False)

    def forward(self, x, f=None):
        return x + self.damping * self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.fixture(scope="module")
def forecaster():
    return run(model=Mixing)


@pytest.fixture(scope="module")
def path(forecaster, tmp_path_factory):
    path = tmp_path_factory.mktemp("custom") / "mixing.safetensors"
    forecaster.save(path)
    return path


def test_round_trip(forecaster, path):
    loaded = sc.Forecaster.load(path, "cpu", network=Mixing)
    assert_same_weights(forecaster, loaded)
    assert loaded.digest == forecaster.digest
    assert loaded.provenance == forecaster.provenance
    assert loaded(waves(), horizon=5).equals(forecaster(waves(), horizon=5))


def test_the_digest_depends_on_weights_and_class(forecaster, path):
    class Other(Mixing):
        pass

    assert sc.Forecaster.load(path, "cpu", network=Other).digest != forecaster.digest


def test_errors_name_class_and_argument(path, tmp_path):
    with pytest.raises(ValueError, match=rf"is a {Mixing.__module__}\.Mixing, .*load\(path, network=\.\.\.\)"):
        sc.Forecaster.load(path, "cpu")
    with pytest.raises(ValueError, match=r"weight 'inner.0.bias' has the shape \(4,\), its model \(5,\)"):
        sc.Forecaster.load(path, "cpu", network=lambda shape: Mixing(shape, hidden=5))
    with pytest.raises(ValueError, match="must be a function that builds it"):
        sc.Forecaster.load(path, "cpu", network=nn.Linear(1, 1))
    run().save(tmp_path / "simvp")
    with pytest.raises(ValueError, match="network would be ignored: the network of .* is one of this package"):
        sc.Forecaster.load(tmp_path / "simvp", "cpu", network=Mixing)


def test_the_command_line_says_the_same(path, tmp_path):
    waves().to_netcdf(tmp_path / "w.nc")
    command = ["forecast", str(path), str(tmp_path / "w.nc"), "--out", str(tmp_path / "f.nc")]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "1000"})
    assert result.exit_code == 2
    assert "and the file has only its weights" in result.output


def test_export(forecaster, tmp_path):
    forecaster.export(tmp_path / "m.pt2")
    program, ds = torch.export.load(tmp_path / "m.pt2").module(), waves()
    states = torch.from_numpy(ds[["z500", "t2m"]].to_dataarray().values[:, -2:]).transpose(0, 1)[None]
    expected = forecaster(ds)[["z500", "t2m"]].to_dataarray().values[:, 0]
    torch.testing.assert_close(program(states)[0].transpose(0, 1), torch.from_numpy(expected), rtol=1e-5, atol=1e-2)
