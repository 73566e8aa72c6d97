"""Compare SimVPv2 with its predecessor SimVP: sizes, training step and inference, in one table.

    python benchmarks/simvp.py                          both shapes, a few minutes on two cores
    python benchmarks/simvp.py --batch 16 --repeats 20  on a GPU, the batch size of the published configurations

Shapes: Moving MNIST with the widths of the paper (10 frames of 64 x 64), and OpenSTL's t2m (12 hours on 32 x 64
cells), on the CPU and on a GPU if there is one. Both networks compute in float32, each in contiguous and channels-last
memory; all four take turns, and the faster memory format of each network counts, by medians. A training step is
forward pass, mean squared error, backward pass and Adam; inference is without gradients. Nothing is compiled.

Multiply-adds are those of the convolutions in one forecast. "claimed" is what the paper (arXiv:2211.12509) says of
SimVPv2 over SimVP.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from simvp_climate.networks.simvp_v1 import SimVPv1, SimVPv1Config
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@dataclass(frozen=True)
class Case:
    """A shape of data, and the settings of both networks for it."""

    history: int
    channels: int
    latitudes: int
    longitudes: int
    hidden_space: int
    hidden_time: int
    spatial_layers: int
    blocks: int

    @property
    def state(self) -> tuple[int, ...]:
        return self.history, self.channels, self.latitudes, self.longitudes

    def build(self, version: str) -> nn.Module:
        torch.manual_seed(0)
        sizes = (self.hidden_space, self.hidden_time, self.spatial_layers, self.blocks)
        if version == "v1":
            return SimVPv1(SimVPv1Config(*sizes), history=self.history, channels=self.channels)
        config = SimVPv2Config(*sizes, drop_path=0.0, padding="zeros", predict="state")
        return SimVPv2(config, history=self.history, channels=self.channels)


CASES = {
    "Moving MNIST": Case(10, 1, 64, 64, 64, 512, 4, 8),
    "t2m": Case(12, 1, 32, 64, 32, 256, 2, 8),
}


def count_multiply_adds(network: nn.Module, case: Case) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *case.state))
    return counter.get_total_flops() // 2


def time_call(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def build_training_step(network: nn.Module, x_BTCHW: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        (network(x_BTCHW) - x_BTCHW).square().mean().backward()
        optimizer.step()

    return step


def build_inference(network: nn.Module, x_BTCHW: torch.Tensor) -> Callable[[], None]:
    def forecast() -> None:
        network.eval()
        with torch.inference_mode():
            network(x_BTCHW)

    return forecast


def measure(case: Case, device: str, batch: int, repeats: int) -> dict[str, dict[str, tuple[float, str]]]:
    """Return {phase: {version: (median seconds, memory format)}} with the faster memory format of each version."""
    x_BTCHW = torch.randn(batch, *case.state, device=device)
    works = {"training": {}, "inference": {}}
    for version in ("v1", "v2"):
        for name, layout in FORMATS.items():
            network = case.build(version).to(device, memory_format=layout)
            works["training"][version, name] = build_training_step(network, x_BTCHW)
            works["inference"][version, name] = build_inference(network, x_BTCHW)
    fastest = {}
    for phase, rows in works.items():
        times = {row: [] for row in rows}
        for turn in range(repeats + 1):
            print(f"{phase} on {device}, turn {turn} of {repeats}", file=sys.stderr, flush=True)
            for row, work in rows.items():
                elapsed = time_call(work, device)
                if turn:  # the first turn warms up
                    times[row].append(elapsed)
        medians = {row: statistics.median(values) for row, values in times.items()}
        fastest[phase] = {version: min((medians[version, name], name) for name in FORMATS) for version in ("v1", "v2")}
    return fastest


def print_case(name: str, case: Case, device: str, batch: int, repeats: int) -> None:
    fastest = measure(case, device, batch, repeats)
    networks = {version: case.build(version) for version in ("v1", "v2")}
    size = {version: sum(value.numel() for value in network.parameters()) for version, network in networks.items()}
    work = {version: count_multiply_adds(network, case) for version, network in networks.items()}
    train, infer = fastest["training"], fastest["inference"]
    rate = {version: batch / elapsed for version, (elapsed, _) in infer.items()}
    print(f"\n{name} on {device}, batch {batch}")
    print(f"{'':28}{'v1':>12}{'v2':>12}{'v2 / v1':>10}   claimed")
    for label, v1, v2, digits, claim in (
        ("parameters, M", size["v1"] / 1e6, size["v2"] / 1e6, 2, ""),
        ("multiply-adds, G", work["v1"] / 1e9, work["v2"] / 1e9, 2, "fewer"),
        ("training step, s", train["v1"][0], train["v2"][0], 3, "about 0.5"),
        ("forecasts per s", rate["v1"], rate["v2"], 2, "1.6"),
    ):
        print(f"{label:28}{v1:12.{digits}f}{v2:12.{digits}f}{v2 / v1:10.2f}   {claim}")
    formats = [f"{phase} {version} {fastest[phase][version][1]}" for phase in fastest for version in ("v1", "v2")]
    print(f"faster format: {', '.join(formats)}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="shapes, separated by commas")
    parser.add_argument("--batch", type=int, default=2, help="samples per step")
    parser.add_argument("--repeats", type=int, default=5, help="turns of all variants, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="threads of PyTorch; 0 for its default")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases.split(",")) - CASES.keys()):
        parser.error(f"--cases {unknown[0]} must be one of {list(CASES)}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name in arguments.cases.split(","):
            print_case(name, CASES[name], device, arguments.batch, arguments.repeats)
    print(
        f"\n{torch.get_num_threads()} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, torch "
        f"{torch.__version__}; medians of {arguments.repeats}"
    )


if __name__ == "__main__":
    main()
