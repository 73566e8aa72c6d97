"""Compare the speed of SimVPv2 with the same network written plainly: a training step and a forecast, in one table.

    python benchmarks/model.py                       the shapes of t2m and of 1.40625 degrees, as many threads as cores
    python benchmarks/model.py --threads 1 --clock cpu     on a machine that others use too
    python benchmarks/model.py --quick               under a minute, a small network, to see that it runs
    python benchmarks/model.py --memory              gigabytes for training, extrapolated to 721 x 1440 (Linux)

The plain network is the published one in straightforward PyTorch: float32, contiguous memory, `torch.nn.Conv2d`,
`BatchNorm2d`, `GroupNorm` and Adam. Three one-line changes make it faster and are measured too: channels-last memory,
bfloat16 by autocast, `torch.compile` (left out without a compiler). "simvp_climate" is this package's network with the
fused AdamW. All have the same weights. Before the timing, the outputs and the loss of simvp_climate in float32 are
compared with those of the plain network.

A training step is a batch from `loader.WindowStream` in memory, forward pass, mean squared error in float32, backward
pass, optimizer. The variants take turns; the table shows medians and the speed relative to plain. Each measurement is
reported to stderr, and each row is printed after its last one.
"""

import argparse
import contextlib
import copy
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing.tensors import choose_compile
from simvp_climate.training.loader import Plan, WindowStream
from simvp_climate.training.memory import activation_bytes

PUBLISHED = SimVPv2Config(padding="zeros", predict="state")
SMALL = SimVPv2Config(hidden_space=8, hidden_time=32, blocks=2, mlp_ratio=4.0, padding="zeros", predict="state")


@dataclass(frozen=True)
class Case:
    """A shape of data, with its batch sizes on a CPU and a GPU, and the network."""

    name: str
    history: int
    channels: int
    latitudes: int
    longitudes: int
    batch: int
    batch_gpu: int
    model: SimVPv2Config = PUBLISHED


PHASES = ("step", "forecast", "loader")
ALL_THREE = "plain, all three changes"
DEFAULTS = "simvp_climate, defaults on a GPU"  # training in bfloat16, forecasts in float32, both compiled
CASES = (Case("t2m", 12, 1, 32, 64, 16, 16), Case("1.40625 deg", 12, 1, 128, 256, 1, 4))
QUICK = Case("small", 4, 1, 16, 32, 2, 2, SMALL)


# ---- the published network in plain PyTorch; its weights have the names of SimVPv2, so that they can be copied


class PlainLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, upsample: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs * 4 if upsample else outputs, 3, stride, padding=1)
        self.shuffle = nn.PixelShuffle(2) if upsample else nn.Identity()
        self.norm = nn.GroupNorm(2, outputs)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.shuffle(self.conv(x))))


class PlainBlock(nn.Module):
    def __init__(self, width: int, wide: int, drop: float):
        super().__init__()
        self.drop = drop
        self.norm_attention = nn.BatchNorm2d(width)
        self.enter = nn.Conv2d(width, width, 1)
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
        self.value_and_gate = nn.Conv2d(width, 2 * width, 1)
        self.leave = nn.Conv2d(width, width, 1)
        self.scale_attention = nn.Parameter(torch.full((width,), 0.01))
        self.norm_mix = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, wide, 1)
        self.spread = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.shrink = nn.Conv2d(wide, width, 1)
        self.scale_mix = nn.Parameter(torch.full((width,), 0.01))
        self.act = nn.GELU()

    def drop_path(self, x: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x
        mask = torch.empty(len(x), 1, 1, 1, device=x.device).bernoulli_(1 - self.drop)
        return x * mask.div_(1 - self.drop).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_attention(x)
        a = self.far(self.near(self.act(self.enter(normed))))
        value, gate = self.value_and_gate(a).chunk(2, dim=1)
        a = self.leave(torch.sigmoid(gate) * value) + normed
        x = x + self.drop_path(self.scale_attention[:, None, None] * a)
        m = self.shrink(self.act(self.spread(self.expand(self.norm_mix(x)))))
        return x + self.drop_path(self.scale_mix[:, None, None] * m)


class PlainTranslator(nn.Module):
    def __init__(self, stack: int, config: SimVPv2Config):
        super().__init__()
        hidden = config.hidden_time
        drops = np.linspace(min(0.01, config.drop_path), config.drop_path, config.blocks).tolist()
        widths = [stack] + [hidden] * (config.blocks - 1)
        self.blocks = nn.ModuleList(
            PlainBlock(width, int(width * config.mlp_ratio), drop) for width, drop in zip(widths, drops, strict=True)
        )
        self.narrow = nn.Conv2d(stack, hidden, 1) if stack != hidden else nn.Identity()
        self.widen = nn.Conv2d(hidden, stack, 1) if stack != hidden else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        z = self.narrow(self.blocks[0](z))
        for block in self.blocks[1:]:
            z = block(z)
        return self.widen(z)


class Plain(nn.Module):
    def __init__(self, config: SimVPv2Config, history: int, channels: int):
        super().__init__()
        width = config.hidden_space
        halves = [layer % 2 == 1 for layer in range(config.spatial_layers)]
        self.encoder = nn.ModuleList(
            PlainLayer(width if layer else channels, width, 2 if half else 1, False)
            for layer, half in enumerate(halves)
        )
        self.translator = PlainTranslator(history * width, config)
        self.decoder = nn.ModuleList(PlainLayer(width, width, 1, half) for half in reversed(halves))
        self.readout = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C, H, W = x.shape
        skip = z = self.encoder[0](x.reshape(B * T, C, H, W))
        for layer in self.encoder[1:]:
            z = layer(z)
        z = self.translator(z.reshape(B, -1, *z.shape[-2:])).reshape(z.shape)
        for layer in self.decoder[:-1]:
            z = layer(z)
        return self.readout(self.decoder[-1](z + skip)).reshape(B, T, C, H, W)


# ---- variants


@dataclass(frozen=True)
class Variant:
    """A way to run a network: a training step on a batch of windows, and a forecast."""

    name: str
    step: Callable[[Tensor], Tensor]
    forecast: Callable[[Tensor], Tensor]


def build_variant(
    name: str, network: nn.Module, case: Case, optimizer: torch.optim.Optimizer, bf16: bool, bf16_forecast: bool
) -> Variant:
    device = next(network.parameters()).device

    def precision(bf16: bool) -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def step(windows_BTCHW: Tensor) -> Tensor:
        windows_BTCHW = windows_BTCHW.to(device, non_blocking=True)
        network.train()
        optimizer.zero_grad()
        with precision(bf16):
            y_BTCHW = network(windows_BTCHW[:, : case.history])
        loss = F.mse_loss(y_BTCHW.float(), windows_BTCHW[:, case.history :])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def forecast(x_BTCHW: Tensor) -> Tensor:
        network.eval()
        with torch.inference_mode(), precision(bf16_forecast):
            return network(x_BTCHW.to(device)).float()

    return Variant(name, step, forecast)


def build_variants(case: Case, device: str, compiled: bool, backend: str = "inductor") -> list[Variant]:
    """Return all variants, with the same weights; `backend` is that of `torch.compile`."""
    torch.manual_seed(0)
    fast = SimVPv2(case.model, history=case.history, channels=case.channels)
    plain = Plain(case.model, case.history, case.channels)
    plain.load_state_dict({name: value for name, value in fast.state_dict().items() if name != "change_scale_TC"})

    def build_fast(name: str, *, bf16: bool, bf16_forecast: bool, compiled: bool = False) -> Variant:
        network = copy.deepcopy(fast).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0, fused=True)
        if compiled:
            network.compile(backend=backend)
        return build_variant(name, network, case, optimizer, bf16, bf16_forecast)

    def build_plain(name: str, *, channels_last: bool = False, bf16: bool = False, compiled: bool = False) -> Variant:
        network = copy.deepcopy(plain).to(device)
        network = network.to(memory_format=torch.channels_last) if channels_last else network
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        if compiled:
            network.compile(backend=backend)
        return build_variant(name, network, case, optimizer, bf16, bf16)

    variants = [
        build_plain("plain, float32"),
        build_plain("plain, channels last", channels_last=True),
        build_plain("plain, channels last, bfloat16", channels_last=True, bf16=True),
    ]
    if compiled:
        variants.append(build_plain(ALL_THREE, channels_last=True, bf16=True, compiled=True))
    variants.append(build_fast("simvp_climate, float32", bf16=False, bf16_forecast=False))
    variants.append(build_fast("simvp_climate, bfloat16", bf16=True, bf16_forecast=True))
    if device == "cuda" or backend != "inductor":
        variants.append(build_fast(DEFAULTS, bf16=True, bf16_forecast=False, compiled=compiled))
    return variants


# ---- speed


def stream_windows(case: Case, batch: int, device: str) -> Iterator[Tensor]:
    """Yield batches of windows without end, from the memory of the device if they fit."""
    length = 2 * case.history
    shape = (case.channels, case.latitudes, case.longitudes)
    states = np.random.default_rng(0).standard_normal((length + 4 * batch - 1, *shape), dtype=np.float32)
    windows = np.arange(4 * batch)[:, None] + np.arange(length)
    source = SimpleNamespace(shape=shape, state_bytes=4 * int(np.prod(shape)))
    settings = {"batch_size": batch, "plan": Plan("memory"), "states": states, "device": device}
    stream = WindowStream([source], [windows], **settings)
    for epoch in itertools.count():
        for loaded in stream.epoch(epoch):
            yield loaded.states


def compare(plain: Variant, fast: Variant, windows_BTCHW: Tensor, history: int) -> tuple[float, float]:
    """Return the largest difference of two forecasts, and the relative difference of two losses after two steps."""
    x_BTCHW = windows_BTCHW[:, :history]
    difference = (plain.forecast(x_BTCHW) - fast.forecast(x_BTCHW)).abs().max().item()
    losses = []
    for variant in (plain, fast):
        torch.manual_seed(1)
        variant.step(windows_BTCHW)
        losses.append(variant.step(windows_BTCHW).item())
    return difference, abs(losses[1] / losses[0] - 1)


def report(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def compile_obstacle(device: str) -> str | None:
    """Return why torch.compile cannot run on this machine, or None; it is tried."""
    try:
        choose_compile(True, device)
    except RuntimeError as error:
        return str(error)
    return None


def measure(case: Case, device: str, batch: int, repeats: int, clock: Callable[[], float], compiled: bool) -> None:
    """Print the table of a case."""
    report(f"{case.name}: builds the networks and compares their outputs")
    stream = stream_windows(case, batch, device)
    variants = build_variants(case, device, compiled)
    fast = next(variant for variant in variants if variant.name == "simvp_climate, float32")
    difference, drift = compare(variants[0], fast, next(stream), case.history)
    if difference > 1e-4:
        raise SystemExit(f"{case.name}: outputs differ from plain by up to {difference:.1e}, more than 1e-4")
    print(f"\n{case.name}: {case.history} x {case.channels} x {case.latitudes} x {case.longitudes}, batch {batch}")
    print(f"in float32, outputs differ from plain by up to {difference:.0e}, the loss by {drift:.0e} of its value\n")
    print("| | training step, s | loader in it, ms | times plain | forecast, s | times plain |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    medians = {}
    for name, median in time_variants(variants, stream, case, device, repeats, clock):
        medians[name] = median
        plain = medians[variants[0].name]
        print(
            f"| {name} | {median['step']:.3f} | {median['loader'] * 1e3:.2f} | {plain['step'] / median['step']:.1f} | "
            f"{median['forecast']:.3f} | {plain['forecast'] / median['forecast']:.1f} |",
            flush=True,
        )
    if ALL_THREE in medians:
        fastest = min(medians[name]["step"] for name in medians if name.startswith("simvp_climate"))
        ratio = medians[ALL_THREE]["step"] / fastest
        print(f"\nsimvp_climate trains {ratio:.2f} times as fast as plain with all three changes")


def time_variants(
    variants: list[Variant],
    stream: Iterator[Tensor],
    case: Case,
    device: str,
    repeats: int,
    clock: Callable[[], float],
    steps: int = 1,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the name of each variant and its median seconds by phase, once its last measurement is done.

    The variants take turns, in their order; those that fail are left out. Without `repeats` they are only warmed up. A
    measurement is the mean over `steps` training steps and as many forecasts; a GPU is waited for at its beginning and
    end only.
    """
    ready, seconds = list(variants), {variant.name: {phase: [] for phase in PHASES} for variant in variants}
    for turn in range(max(repeats, 1)):
        for variant in list(ready):
            if turn == 0 and not warm_up(variant, stream, case):
                if variant is variants[0]:
                    raise RuntimeError(f"{variant.name} does not run: the others cannot be compared with it")
                ready.remove(variant)
            if variant not in ready or not repeats:
                continue
            measured = time_steps(variant, stream, case.history, device, clock, steps)
            for phase, value in measured.items():
                seconds[variant.name][phase].append(value)
            report(
                f"{case.name}, turn {turn + 1} of {repeats}, {variant.name}: step {measured['step']:.3g} s, "
                f"forecast {measured['forecast']:.3g} s"
            )
            if turn + 1 == repeats:
                rows = seconds[variant.name]
                yield variant.name, {phase: statistics.median(values) for phase, values in rows.items()}


def warm_up(variant: Variant, stream: Iterator[Tensor], case: Case) -> bool:
    """Compile and fill caches; return whether the variant runs, and report why not."""
    compiles = ", compiles, which may take minutes" if variant.name in (ALL_THREE, DEFAULTS) else ""
    report(f"{case.name}: first step of {variant.name}{compiles}")
    try:
        variant.step(next(stream))
        variant.forecast(next(stream)[:, : case.history])
    except Exception as error:  # of many types, by the backend that compiles
        report(f"{case.name}: {variant.name} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
        return False
    return True


def time_steps(
    variant: Variant, stream: Iterator[Tensor], history: int, device: str, clock: Callable[[], float], steps: int
) -> dict[str, float]:
    """Return the mean seconds by phase of some training steps and forecasts; those of the loader are in the step."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start, loading = clock(), 0.0
    for _ in range(steps):
        before = clock()
        windows_BTCHW = next(stream)
        loading += clock() - before
        variant.step(windows_BTCHW)
    wait()
    stepped = clock()
    for _ in range(steps):
        variant.forecast(windows_BTCHW[:, :history])
    wait()
    return {
        "step": (stepped - start) / steps,
        "forecast": (clock() - stepped) / steps,
        "loader": loading / steps,
    }


# ---- memory


def peak_bytes(latitudes: int, longitudes: int, bf16: bool, checkpointing: bool) -> float:
    """Return the peak bytes that two training steps of one window add to a process with the network."""
    torch.set_num_threads(1)
    network = SimVPv2(SimVPv2Config(padding="sphere"), history=12, channels=1).to(memory_format=torch.channels_last)
    network.activation_checkpointing = checkpointing
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    case = Case("", 12, 1, latitudes, longitudes, 1, 1)
    variant = build_variant("", network, case, optimizer, bf16, bf16)
    before = _process_bytes("VmRSS")
    for _ in range(2):
        variant.step(torch.randn(1, 24, 1, latitudes, longitudes))
    return _process_bytes("VmHWM") - before


def _process_bytes(field: str) -> float:
    """Return a memory figure of this process from Linux's /proc, such as the resident bytes "VmRSS"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith(field)).split()[1])


def measure_memory() -> None:
    """Print the peak memory of training at growing grids, and a linear extrapolation to 721 x 1440."""
    sizes = ((32, 64), (64, 128), (96, 192))
    cells = np.array([latitudes * longitudes for latitudes, longitudes in sizes], dtype=float)
    print(
        "| precision | checkpointing |" + "".join(f" {a} x {b} |" for a, b in sizes) + " bytes per cell | 721 x 1440 |"
    )
    print("| --- | --- |" + " ---: |" * (len(sizes) + 2), flush=True)
    for bf16, checkpointing in itertools.product((False, True), (False, True)):
        peaks = []
        precision = "bfloat16" if bf16 else "float32"
        for size in sizes:  # a new process each, because the peak of a process never falls
            report(f"{precision}, {'with' if checkpointing else 'without'} checkpointing, {size[0]} x {size[1]}")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peaks.append(pool.submit(peak_bytes, *size, bf16, checkpointing).result())
        slope, offset = np.polyfit(cells, peaks, 1)
        columns = "".join(f" {value / 1e9:.2f} |" for value in peaks)
        total = (offset + slope * 722 * 1440) / 1e9
        print(f"| {precision} | {'yes' if checkpointing else 'no'} |{columns} {slope:,.0f} | {total:.0f} |", flush=True)
    with torch.device("meta"):
        network = SimVPv2(SimVPv2Config(padding="sphere"), history=12, channels=1)
    estimates = [activation_bytes(network, 12, size) / cells for size, cells in zip(sizes, cells, strict=True)]
    print(f"estimated before training, float32: {', '.join(f'{value:,.0f}' for value in estimates)} bytes per cell")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, default=0, help="threads of PyTorch; 0 for its default")
    add("--repeats", type=int, default=5, help="turns of all variants")
    add("--batch", type=int, default=0, help="windows per batch; 0 for the batch size of the case")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for a thread on a busy machine")
    add("--case", choices=[case.name for case in CASES], help="only this case")
    add("--no-compiled", action="store_true", help="leave torch.compile out")
    add("--quick", action="store_true", help="a small network, two turns, without torch.compile: under a minute")
    add("--memory", action="store_true", help="measure the peak memory of training at growing grids instead (Linux)")
    return parser.parse_args()


def main() -> None:
    """Print a table for each case."""
    arguments = parse_arguments()
    if arguments.memory:
        measure_memory()
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    repeats = 2 if arguments.quick else arguments.repeats
    print(
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {arguments.clock} time, "
        f"{repeats} repeats",
        flush=True,
    )
    obstacle = "--no-compiled or --quick was given" if arguments.no_compiled or arguments.quick else None
    if obstacle := obstacle or compile_obstacle(device):
        print(f"without the row {ALL_THREE!r}: {obstacle}", flush=True)
    for case in (QUICK,) if arguments.quick else CASES:
        if arguments.case in (None, case.name) or arguments.quick:
            batch = arguments.batch or (case.batch_gpu if device == "cuda" else case.batch)
            measure(case, device, batch, repeats, clock, compiled=obstacle is None)


if __name__ == "__main__":
    main()
