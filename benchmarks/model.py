"""SimVPv2 as it is here beside the same network written down plainly, in one run.

    python benchmarks/model.py                 about ten minutes on two cores
    python benchmarks/model.py --quick         two minutes: one repeat
    python benchmarks/model.py --memory        also the peak memory of a training step, with and without `recompute`

"plain" is the published architecture in eager float32 with PyTorch's own modules and memory layout. "three lines" is
the plain network with channels_last, bfloat16 autocast and torch.compile, which any user can write (on a CPU it needs a
C++ compiler). Shapes: t2m at 5.625 degrees (12 states in and out, 32 x 64, batches of 16) and at 1.40625 degrees (128 x
256, batches of 1 on a CPU), both of the published size (12.8 M parameters). A training step is forward, backward,
clipping and the update by AdamW; those in bfloat16 also gather their batch from the loader. The variants take turns;
the table has medians of the CPU time over the number of threads, which is the wall time of a quiet machine.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
import xarray as xr
from torch import Tensor, nn

from simvp_climate import loader
from simvp_climate.data import reader
from simvp_climate.data.windows import find_windows
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config

CONFIG = SimVPv2Config(drop_path=0.0, padding="zeros", predict="state")
SHAPES = {"t2m, 5.625 degrees": (16, 32, 64), "t2m, 1.40625 degrees": (1, 128, 256)}
HISTORY = 12


class PlainLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs * 4 if upsample else outputs, 3, stride, padding=1)
        self.norm, self.upsample = nn.GroupNorm(2, outputs), upsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.silu(self.norm(F.pixel_shuffle(x, 2) if self.upsample else x))


class PlainBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm_attention, self.norm_mix = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.enter, self.leave = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
        self.value_and_gate = nn.Conv2d(width, 2 * width, 1)
        wide = 8 * width
        self.expand, self.shrink = nn.Conv2d(width, wide, 1), nn.Conv2d(wide, width, 1)
        self.spread = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.scale_attention, self.scale_mix = (nn.Parameter(torch.full((width,), 0.01)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_attention(x)
        value, gate = self.value_and_gate(self.far(self.near(F.gelu(self.enter(normed))))).chunk(2, dim=1)
        x = x + self.scale_attention[:, None, None] * (self.leave(torch.sigmoid(gate) * value) + normed)
        mixed = self.shrink(F.gelu(self.spread(self.expand(self.norm_mix(x)))))
        return x + self.scale_mix[:, None, None] * mixed


class PlainTranslator(nn.Module):
    def __init__(self, stack: int, hidden: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(PlainBlock(stack if number == 0 else hidden) for number in range(blocks))
        self.narrow, self.widen = nn.Conv2d(stack, hidden, 1), nn.Conv2d(hidden, stack, 1)

    def forward(self, z: Tensor) -> Tensor:
        z = self.narrow(self.blocks[0](z))
        for block in self.blocks[1:]:
            z = block(z)
        return self.widen(z)


class Plain(nn.Module):
    """SimVPv2 for grids that its strides divide, zero padding, without drop path; the names of weights are ours."""

    def __init__(self, config: SimVPv2Config, history: int, channels: int):
        super().__init__()
        width, halves = config.hidden_space, [layer % 2 == 1 for layer in range(config.spatial_layers)]
        self.encoder = nn.ModuleList(
            PlainLayer(channels if layer == 0 else width, width, 2 if half else 1) for layer, half in enumerate(halves)
        )
        self.translator = PlainTranslator(history * width, config.hidden_time, config.blocks)
        self.decoder = nn.ModuleList(PlainLayer(width, width, upsample=half) for half in reversed(halves))
        self.readout = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C, H, W = x.shape
        skip = z = self.encoder[0](x.reshape(B * T, C, H, W))
        for layer in self.encoder[1:]:
            z = layer(z)
        shape = z.shape
        z = self.translator(z.reshape(B, -1, *shape[-2:])).reshape(shape)
        for layer in self.decoder[:-1]:
            z = layer(z)
        return self.readout(self.decoder[-1](z + skip)).reshape(B, T, C, H, W)


def networks(device: torch.device) -> dict[str, tuple[nn.Module, bool]]:
    """Return the variants, all with the same weights, and whether each computes in bfloat16."""
    torch.manual_seed(0)
    ours = SimVPv2(CONFIG, history=HISTORY, channels=1)
    for name, value in ours.named_parameters():
        if "scale" in name:
            nn.init.normal_(value, 0.5, 0.1)  # the initial 0.01 would hide the blocks
    weights = {name: value for name, value in ours.state_dict().items() if name != "change_scale_TC"}

    def plain() -> Plain:
        network = Plain(CONFIG, HISTORY, 1)
        network.load_state_dict(weights)
        return network.to(device)

    def here() -> SimVPv2:
        network = SimVPv2(CONFIG, history=HISTORY, channels=1)
        network.load_state_dict(ours.state_dict())
        return network.to(device, memory_format=torch.channels_last)

    return {
        "plain": (plain(), False),
        "plain, channels_last": (plain().to(memory_format=torch.channels_last), False),
        "three lines": (torch.compile(plain().to(memory_format=torch.channels_last)), True),
        "here, float32": (here(), False),
        "here, bfloat16": (here(), True),
    }


def batches(batch: int, latitudes: int, longitudes: int, device: torch.device):
    """Yield batches of windows without end from the loader, states in memory."""
    rng = np.random.default_rng(0)
    count = 2 * HISTORY + 4 * batch
    coords = {
        "time": pd.date_range("2001", periods=count, freq="h"),
        "latitude": (np.arange(latitudes) + 0.5) * 180 / latitudes - 90,
        "longitude": np.arange(longitudes) * 360 / longitudes,
    }
    values = rng.standard_normal((count, latitudes, longitudes), dtype=np.float32)
    source = reader.open_source(xr.Dataset({"t2m": (("time", "latitude", "longitude"), values)}, coords))
    windows = find_windows(pd.DatetimeIndex(coords["time"]), "1h", HISTORY, HISTORY, "made-up data")
    plan = loader.Plan("memory")
    stream = loader.WindowStream([source], [windows], batch_size=batch, plan=plan, device=device)
    epoch = 0
    while True:
        yield from (one for one in stream.epoch(epoch) if len(one.windows) == batch)
        epoch += 1


def timed(function: Callable[[], None], device: torch.device) -> float:
    """Return seconds: CPU time over the threads on a CPU, wall time on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = time.perf_counter()
        function()
        torch.cuda.synchronize()
        return time.perf_counter() - before
    before = time.process_time()
    function()
    return (time.process_time() - before) / torch.get_num_threads()


def step_of(network: nn.Module, lower: bool, source, device: torch.device) -> tuple[Callable, Callable]:
    """Return functions that do a training step and a forecast."""
    fused = isinstance(network, SimVPv2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fused)
    fixed = next(source).states.to(device).clone()
    loads = lower

    def train() -> None:
        network.train()
        states = next(source).states.to(device, non_blocking=True) if loads else fixed
        with torch.autocast(device.type, torch.bfloat16, enabled=lower):
            y = network(states[:, :HISTORY])
        optimizer.zero_grad()
        F.mse_loss(y.float(), states[:, HISTORY:]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    @torch.no_grad()
    def forecast() -> None:
        network.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=lower):
            network(fixed[:, :HISTORY])

    return train, forecast


def check_equal(variants: dict[str, tuple[nn.Module, bool]], source, device: torch.device) -> float:
    """Return the largest difference of our float32 outputs from the plain ones'; stop beyond 1e-4."""
    x = next(source).states.to(device)[:, :HISTORY]
    with torch.no_grad():
        difference = (variants["here, float32"][0].eval()(x) - variants["plain"][0].eval()(x)).abs().max().item()
    if not difference <= 1e-4:
        raise SystemExit(f"the outputs differ by {difference:.1e}: nothing to compare")
    return difference


def compare(name: str, repeats: int, device: torch.device) -> str:
    batch, latitudes, longitudes = SHAPES[name]
    if device.type == "cuda" and longitudes > 64:
        batch = 4
    source = batches(batch, latitudes, longitudes, device)
    variants = networks(device)
    difference = check_equal(variants, source, device)
    functions = {variant: step_of(*network, source, device) for variant, network in variants.items()}
    times = {variant: ([], []) for variant in variants}
    for repeat in range(repeats + 2):
        for variant, pair in functions.items():
            for function, found in zip(pair, times[variant], strict=True):
                seconds = timed(function, device)
                if repeat >= 2:  # the first calls compile, allocate and choose kernels
                    found.append(seconds)
    lines = [
        f"{name}, batches of {batch}; float32 outputs differ by {difference:.0e}\n",
        "| | training step, s | times plain | times three lines | forecast, s | times plain | times three lines |",
        "|---|---|---|---|---|---|---|",
    ]
    median = {variant: [statistics.median(found) for found in pair] for variant, pair in times.items()}
    for variant, pair in median.items():
        cells = []
        for at, seconds in enumerate(pair):
            cells += [f"{seconds:.3g}", f"{median['plain'][at] / seconds:.1f}"]
            cells += [f"{median['three lines'][at] / seconds:.2f}"]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def peak(latitudes: int, longitudes: int, recompute: bool, lower: bool) -> None:
    """Print the memory that a training step adds, of batches of 1, and the seconds it takes."""
    network = SimVPv2(CONFIG, history=HISTORY, channels=1).to(memory_format=torch.channels_last)
    network.recompute = recompute
    x = torch.randn(1, HISTORY, 1, latitudes, longitudes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        y = network(x)
    y.float().square().mean().backward()
    seconds = time.perf_counter() - began
    print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, seconds]))


def memory_table() -> str:
    sizes = ((128, 256), (181, 360), (256, 512))
    lines = ["| | " + " | ".join(f"{a} x {b}" for a, b in sizes) + " | 721 x 1440, from the last two |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for lower in (False, True):
        for recompute in (False, True):
            found = []
            for size in sizes:
                code = f"import model; model.peak({size[0]}, {size[1]}, {recompute}, {lower})"
                output = subprocess.run(
                    [sys.executable, "-c", code], cwd=sys.path[0], check=True, capture_output=True, text=True
                ).stdout
                found.append(json.loads(output)[0])
            cells = [a * b for a, b in sizes]
            slope = (found[-1] - found[-2]) / (cells[-1] - cells[-2])
            found.append(found[-1] + slope * (721 * 1440 - cells[-1]))
            label = f"{'bfloat16' if lower else 'float32'}{', recomputed' if recompute else ''}"
            lines.append(f"| {label}, GiB | " + " | ".join(f"{value:.2f}" for value in found) + " |")
    return "\n".join(lines)


def main(quick: bool = False, memory: bool = False, repeats: int = 5, threads: int = 2):
    """Print the tables."""
    torch.set_num_threads(threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for name in SHAPES:
            print(compare(name, 1 if quick else repeats, torch.device(device)), end="\n\n", flush=True)
    if memory:
        print(memory_table())


if __name__ == "__main__":
    typer.run(main)
