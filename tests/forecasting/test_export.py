"""Exported programs run in a process that can import only NumPy and torch or ONNX Runtime."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from factories import quick, tiny_sphere, waves

from simvp_climate.forecasting import export
from simvp_climate.processing.task import Task
from simvp_climate.training.train import train

# hide the package and its dependencies, also from an editable install
HIDE = """
import sys
class HidePackages:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ImportError(name + " is hidden")
sys.meta_path.insert(0, HidePackages())
import json
import numpy as np
inputs = dict(np.load({inputs!r}))
"""
PT2 = """
import torch
about = {{"forecaster.json": ""}}
program = torch.export.load({path!r}, extra_files=about).module()
about = json.loads(about["forecaster.json"])
run = lambda parts: program(*map(torch.from_numpy, parts.values())).numpy()
"""
ONNX = """
import onnxruntime
program = onnxruntime.InferenceSession({path!r})
about = json.loads(program.get_modelmeta().custom_metadata_map["forecaster"])
run = lambda parts: program.run(None, parts)[0]
"""
FORECAST = """
try:
    import simvp_climate
    raise SystemExit("the package can be imported")
except ImportError:
    pass
first = run({{name: values[:1] for name, values in inputs.items()}})
assert not {{"simvp_climate", "xarray", "pandas", "lightning_fabric", "safetensors"}} & set(sys.modules)
np.savez({out!r}, all=run(inputs), first=first, about=json.dumps(about))
"""


def run_alone(path: Path, inputs: dict[str, np.ndarray], folder: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the forecasts of all inputs and of the first alone, and the description in the file."""
    np.savez(folder / "inputs.npz", **inputs)
    onnx = path.suffix == ".onnx"
    code = (HIDE + (ONNX if onnx else PT2) + FORECAST).format(
        path=str(path),
        inputs=str(folder / "inputs.npz"),
        out=str(folder / "out.npz"),
        hidden=("simvp_climate", *("torch",) * onnx),
    )
    subprocess.run([sys.executable, "-I", "-W", "error::DeprecationWarning", "-c", code], check=True, cwd=folder)
    with np.load(folder / "out.npz") as forecasts:
        return forecasts["all"], forecasts["first"], json.loads(str(forecasts["about"]))


def stack_histories(ds: xr.Dataset, variables: list[str], history: int, count: int) -> np.ndarray:
    """Return the histories of the first `count` initializations, (init, history, channel, latitude, longitude)."""
    values = np.stack([ds[name].values for name in variables], axis=1)
    return np.stack([values[start : start + history] for start in range(count)]).astype(np.float32)


def check_same(result: np.ndarray, forecast: xr.Dataset, ds: xr.Dataset) -> None:
    for channel, name in enumerate(forecast.data_vars):
        tolerance = 1e-5 * float(ds[name].std())
        np.testing.assert_allclose(result[:, :, channel], forecast[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def full_forecaster():
    """Data and forecaster with a mask, a logarithm, active bounds, forcings, and two calls of the network."""
    ds = waves(times=50)
    land = (ds["latitude"] > 40) & (ds["longitude"] < 100)
    wet = (ds["t2m"] - 280).clip(min=0) / 1e4
    ds = ds.assign(tp=wet.assign_attrs(units="m"), tcc=(ds["t2m"] / 320).clip(0, 1).assign_attrs(units="1"))
    ds["t2m"] = ds["t2m"].where(~land)
    ds["orography"] = (("latitude", "longitude"), np.random.default_rng(0).random((8, 16)) * 1000, {"units": "m"})
    transforms = {"tp": "log", "tcc": (float(ds["tcc"].min()), float(ds["tcc"].max()))}
    task = Task(["t2m", "tp", "tcc"], history=2, horizon=3, forcings=["insolation", "orography"], transforms=transforms)
    trained = train(task, ds.isel(time=slice(0, 40)), valid=None, model=tiny_sphere(), config=quick(), device="cpu")
    return ds, trained


needs_newer_torch = pytest.mark.skipif(torch.__version__ < "2.13", reason="export to ONNX needs torch 2.13")


def test_onnx_with_an_older_torch_is_refused_with_the_version_that_it_needs(forecaster, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ONNX_TORCH", "99.1")
    with pytest.raises(ImportError, match=rf"needs torch 99.1 or newer, and this is {torch.__version__.split('+')[0]}"):
        forecaster.export(tmp_path / "f.onnx")


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_newer_torch)])
def test_programs_forecast_the_same_without_the_package(full_forecaster, suffix, tmp_path):
    ds, trained = full_forecaster
    trained.export(tmp_path / f"program{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"program{suffix}"]
    forecast = trained(ds, every="6h").isel(init_time=slice(0, 5))
    forcings = trained.forcings(forecast.indexes["init_time"])
    assert forcings.dims == ("init_time", "state", "forcing", "latitude", "longitude")
    assert forcings.shape == (5, 4, 3, 8, 16)  # two calls of two states
    names = ["insolation", "insolation_at_output", "orography"]
    assert forcings["forcing"].values.tolist() == names
    inputs = {"states": stack_histories(ds, ["t2m", "tp", "tcc"], 2, 5), "forcings": forcings.values}
    forecasts, first, about = run_alone(tmp_path / f"program{suffix}", inputs, tmp_path)
    assert forecasts.shape == (5, 3, 3, 8, 16) and forecasts.dtype == np.float32
    check_same(forecasts, forecast, ds)
    check_same(first, forecast.isel(init_time=slice(0, 1)), ds)
    assert np.isnan(forecasts[:, :, 0]).sum() == 5 * 3 * 10  # the mask
    assert forecasts[:, :, 2].min() == ds["tcc"].min() and (forecasts[:, :, 1] >= 0).all()  # the bound is reached
    assert about["channels"] == ["t2m", "tp", "tcc"] and about["units"] == ["K", "m", "1"]
    assert about["latitude"] == ds["latitude"].values.tolist() and about["longitude"] == ds["longitude"].values.tolist()
    assert (about["step"], about["history"], about["horizon"], about["forcings"]) == ("6h", 2, 3, names)
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / f"program{suffix}").read_bytes()


def test_without_forcings_a_program_has_one_input(forecaster, tmp_path):
    before = {name: value.clone() for name, value in forecaster.network.state_dict().items()}
    forecaster.export(tmp_path / "f.pt2")
    forecasts, _, about = run_alone(
        tmp_path / "f.pt2", {"states": stack_histories(waves(), ["z500", "t2m"], 3, 4)}, tmp_path
    )
    check_same(forecasts, forecaster(waves(), every="6h").isel(init_time=slice(0, 4)), waves())
    assert about["forcings"] == [] and "second_input" not in about
    assert forecaster.forcings(["2001-01-01", "2001-01-02T06"], horizon=7).shape == (2, 9, 0, 8, 16)
    for name, value in forecaster.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(value.requires_grad for value in forecaster.network.parameters())


def test_paths_that_cannot_be_written_are_errors(forecaster, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"f.pt' must end in '.pt2' .* or '.onnx'"):
        forecaster.export(tmp_path / "f.pt")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere'"):
        forecaster.export(tmp_path / "nowhere" / "f.pt2")
    (tmp_path / "f.onnx").write_text("do not lose me")
    with pytest.raises(FileExistsError, match="f.onnx' exists and is not an exported program"):
        forecaster.export(tmp_path / "f.onnx")
    assert (tmp_path / "f.onnx").read_text() == "do not lose me"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="onnxscript.* pip install"):
        forecaster.export(tmp_path / "g.onnx")


def test_a_failed_export_keeps_the_previous_program(forecaster, tmp_path, monkeypatch):
    path = tmp_path / "f.pt2"
    path.write_bytes(b"exported by simvp_climate once")

    def fail(program, about):
        raise OSError(28, "No space left on device")

    # skip the tracing, so that only the writing fails
    monkeypatch.setattr(
        torch.export, "export", lambda *args, **options: SimpleNamespace(graph=SimpleNamespace(nodes=()))
    )
    monkeypatch.setattr(export, "_encode_pt2", fail)
    with pytest.raises(OSError, match="No space left"):
        forecaster.export(path)
    assert path.read_bytes() == b"exported by simvp_climate once" and [p.name for p in tmp_path.iterdir()] == ["f.pt2"]
