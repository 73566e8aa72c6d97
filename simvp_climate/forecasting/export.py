"""Export forecasters as programs that run without this package: PyTorch programs (.pt2) and ONNX.

Shape suffixes: B batch, T time, C channel, F forcing, H latitude, W longitude.
"""

import copy
import io
import json
import math
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simvp_climate.data.files import write_atomically
from simvp_climate.networks.rollout import rollout
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.tensors import Scale, forcing_names

_ONNX_TORCH = "2.13"  # the oldest that was tried and can
_DESCRIPTION_FILE = "forecaster.json"
_MADE_BY = "exported by simvp_climate"


class _Program(nn.Module):
    """Maps states in physical units to forecasts in physical units."""

    def __init__(self, network: nn.Module, inputs: Normalizer, outputs: Normalizer, horizon: int):
        super().__init__()
        self.network, self.horizon = network, horizon
        self.input_scale, self.output_scale = (Scale(each, torch.device("cpu")) for each in (inputs, outputs))
        for scale in (self.input_scale, self.output_scale):
            for name, value in vars(scale).items():
                if isinstance(value, Tensor):  # torch warns when it saves a transposed tensor
                    setattr(scale, name, value.clone(memory_format=torch.contiguous_format))

    def forward(
        self, states_BTCHW: Tensor, forcings_BTFHW: Tensor | None = None, noise_BKNhw: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        x_BTCHW = self.input_scale.normalize(states_BTCHW)
        noise = None if noise_BKNhw is None else noise_BKNhw.unbind(1)
        y_BTCHW = rollout(self.network, x_BTCHW, self.horizon, forcings_BTFHW, self.input_scale.constrain, noise)
        return self.output_scale.denormalize(y_BTCHW.float())


def export(path: Path, forecaster: Any) -> None:
    """Write a program: see `simvp_climate.forecasting.forecaster.Forecaster.export`."""
    encode = {".pt2": _encode_pt2, ".onnx": _encode_onnx}.get(path.suffix)
    if encode is None:
        raise ValueError(f"{str(path)!r} must end in '.pt2' (PyTorch) or '.onnx' (ONNX).")
    if path.exists() and (path.is_dir() or _MADE_BY.encode() not in path.read_bytes()):
        raise FileExistsError(f"{str(path)!r} exists and is not an exported program. Choose another path.")
    if encode is _encode_onnx:
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(f"Export to ONNX needs {error.name}. pip install 'simvp-climate[onnx]'") from error
        if torch.__version__ < _ONNX_TORCH:
            message = f"Export to ONNX needs torch {_ONNX_TORCH} or newer, and this is {torch.__version__}"
            raise ImportError(f"{message}. pip install 'simvp-climate[onnx]', or export to .pt2")
    task, forcings = forecaster.task, forcing_names(forecaster.task)
    if task.prescribed:
        message = f"prescribed={list(task.prescribed)} are read from the data at every step"
        raise ValueError(f"{message}, which an exported program cannot: forecast with the forecaster itself.")
    inputs, outputs = forecaster.input_statistics, forecaster.output_statistics
    grid = forecaster.latitude.size, forecaster.longitude.size
    input_states = math.ceil(task.horizon / task.history) * task.history  # of all network calls
    # trace with the means as states, and with a batch of 2, because torch.export takes a size of 1 for a constant
    mean_C11 = torch.as_tensor(inputs.mean, dtype=torch.float32)[:, None, None]
    arguments = [mean_C11.expand(2, task.history, -1, *grid).contiguous()]
    if forcings:
        arguments.append(torch.zeros(2, input_states, len(forcings), *grid))
    noise_grid = getattr(forecaster.network, "noise_grid", None)
    if noise_grid is not None:
        arguments += [] if forcings else [None]
        arguments.append(torch.zeros(2, input_states // task.history, *noise_grid))
    description = _describe(forecaster, input_states)
    network = copy.deepcopy(forecaster.network)
    network = network.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
    batch = torch.export.Dim("batch", min=1, max=2**31 - 1)  # torch before 2.7 needs a maximum
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns about its own code
        module = _Program(network, inputs, outputs, task.horizon).eval()
        shapes = [None if argument is None else {0: batch} for argument in arguments]
        program = torch.export.export(module, tuple(arguments), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
                node.meta.pop(key, None)  # source paths: private, and two thirds of the file
        file_bytes = encode(program, json.dumps(description))
        write_atomically(path, lambda unfinished: unfinished.write_bytes(file_bytes))


def _describe(forecaster: Any, input_states: int) -> dict[str, Any]:
    """Return what a user of the program must know: channels, units, grid, and its inputs and output."""
    task, forcings = forecaster.task, forcing_names(forecaster.task)
    inputs, outputs = forecaster.input_statistics, forecaster.output_statistics
    description = {
        "made_by": f"{_MADE_BY} {version('simvp-climate')}",
        "channels": [str(channel) for channel in inputs.channels],
        "units": list(inputs.units),
        "output_channels": [str(channel) for channel in outputs.channels],
        "output_units": list(outputs.units),
        "forcings": forcings,
        "latitude": forecaster.latitude.astype(np.float64).tolist(),
        "longitude": forecaster.longitude.astype(np.float64).tolist(),
        **{name: getattr(task, name) for name in ("step", "history", "horizon")},
        "input": f"states (batch, {task.history}, channel, latitude, longitude), float32, in units, in order of time",
        "output": f"forecasts (batch, {task.horizon}, channel, latitude, longitude), float32, in units",
    }
    if forcings:
        description["second_input"] = f"forcings (batch, {input_states}, forcing, latitude, longitude), float32"
    noise_grid = getattr(forecaster.network, "noise_grid", None)
    if noise_grid is not None:
        sizes = input_states // task.history, *noise_grid
        position = "third input of a torch program (after None without forcings), `noise` of an ONNX program"
        description["noise"] = f"{position}: standard normal numbers (batch, {', '.join(map(str, sizes))}), float32"
    return description


def _encode_pt2(program: torch.export.ExportedProgram, description: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={_DESCRIPTION_FILE: description})
    return buffer.getvalue()


def _encode_onnx(program: torch.export.ExportedProgram, description: str) -> bytes:
    keys = json.loads(description)
    inputs = ["states", *(name for key, name in (("second_input", "forcings"), ("noise", "noise")) if key in keys)]
    names = {"input_names": inputs, "output_names": ["forecasts"]}
    # optimize: slow, and every runtime optimizes a program when it loads it
    exported = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False, **names)
    exported.model.metadata_props.update({"forecaster": description})
    for value in (exported.model.graph, *exported.model.graph):
        value.metadata_props.clear()
    return exported.model_proto.SerializeToString()
