"""Forecasters as programs that run without this package: torch's own (.pt2), and ONNX.

Shape suffixes: B batch, T time, C channel, F forcing, H latitude, W longitude.
"""

import copy
import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from simvp_climate.data.files import write_atomically
from simvp_climate.networks.simvp_v2 import rollout
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.processing.tensors import Scale, channel_roles

_ABOUT = "forecaster.json"
_MADE_BY = "exported by simvp_climate"


class _Program(nn.Module):
    """States in physical units to forecasts in physical units."""

    def __init__(self, network: nn.Module, seen: Normalizer, told: Normalizer, horizon: int):
        super().__init__()
        self.network, self.horizon = network, horizon
        self.scale, self.scale_told = Scale(seen, torch.device("cpu")), Scale(told, torch.device("cpu"))
        for scale in (self.scale, self.scale_told):
            for name, value in vars(scale).items():
                if isinstance(value, Tensor):  # a transposed one would be saved with a warning
                    setattr(scale, name, value.clone(memory_format=torch.contiguous_format))

    def forward(self, states_BTCHW: Tensor, forcings_BTFHW: Tensor | None = None) -> Tensor:
        x_BTCHW = self.scale.normalize(states_BTCHW)
        y_BTCHW = rollout(self.network, x_BTCHW, self.horizon, forcings_BTFHW, self.scale.constrain)
        return self.scale_told.denormalize(y_BTCHW.float())


def export(
    path: Path,
    task: Task,
    network: nn.Module,
    normalizer: Normalizer,
    latitude: np.ndarray,
    longitude: np.ndarray,
    forcings: list[str],
) -> None:
    """Write a program: see `simvp_climate.forecasting.forecaster.Forecaster.export`."""
    write = {".pt2": _write_pt2, ".onnx": _write_onnx}.get(path.suffix)
    if write is None:
        raise ValueError(f"{str(path)!r}: the end of the name says what is written, '.pt2' (torch) or '.onnx'")
    if path.exists() and (path.is_dir() or _MADE_BY.encode() not in path.read_bytes()):
        raise FileExistsError(f"{str(path)!r} exists and is no program that we exported: choose another path")
    if write is _write_onnx:
        _need_onnx()
    roles = channel_roles(task, normalizer.channels)
    seen, told = normalizer.select(roles.input_channels), normalizer.select(roles.output_channels)
    calls = -(-task.horizon // task.history)
    about = {
        "made_by": f"{_MADE_BY} {version('simvp-climate')}",
        "channels": [str(channel) for channel in seen.channels],
        "units": list(seen.units),
        "output_channels": [str(channel) for channel in told.channels],
        "output_units": list(told.units),
        "forcings": forcings,
        "latitude": latitude.astype(np.float64).tolist(),
        "longitude": longitude.astype(np.float64).tolist(),
        "step": task.step,
        "history": task.history,
        "horizon": task.horizon,
        "input": f"states (batch, {task.history}, channel, latitude, longitude), float32, in units, in order of time",
        "output": f"forecasts (batch, {task.horizon}, channel, latitude, longitude), float32, in units",
    }
    grid = latitude.size, longitude.size
    mean_C11 = torch.as_tensor(seen.mean, dtype=torch.float32)[:, None, None]
    arguments = [mean_C11.expand(2, task.history, -1, *grid).contiguous()]
    if forcings:
        about["second_input"] = f"forcings (batch, {calls * task.history}, forcing, latitude, longitude), float32"
        arguments.append(torch.zeros(2, calls * task.history, len(forcings), *grid))
    own = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        program = torch.export.export(
            _Program(own, seen, told, task.horizon).eval(),
            tuple(arguments),
            dynamic_shapes=[{0: batch}] * len(arguments),
        )
        for node in program.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
                node.meta.pop(key, None)  # where on this machine a step comes from: two thirds of the file
        content = write(program, json.dumps(about), len(arguments))
        write_atomically(path, lambda unfinished: unfinished.write_bytes(content))


def _write_pt2(program: torch.export.ExportedProgram, about: str, inputs: int) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={_ABOUT: about})
    return buffer.getvalue()


def _write_onnx(program: torch.export.ExportedProgram, about: str, inputs: int) -> bytes:
    exported = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=["states", "forcings"][:inputs],
        output_names=["forecasts"],
        optimize=False,  # takes most of the time, and every runtime does it when it loads a program
        verbose=False,
    )
    exported.model.metadata_props.update({"forecaster": about})
    for value in (exported.model.graph, *exported.model.graph):
        value.metadata_props.clear()
    return exported.model_proto.SerializeToString()


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"to export ONNX takes {error.name}: pip install 'simvp-climate[onnx]'") from error
