"""A training run for tests that stop or kill it; they start it as a subprocess or call `train`.

    python training_script.py DIRECTORY EPOCHS [SECONDS [DEVICE]]

Prints "ready" after the first step and "done" at the end. With SECONDS, prints "writing" when a file is half written
and waits that long.
"""

import os
import sys
import time
from pathlib import Path

import torch

import simvp_climate as sc
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import loop


def train(directory: Path | None, epochs: int, device: str = "cpu", **changes) -> Forecaster:
    ds = sc.open_sample(["z500", "t2m"])
    settings = dict(
        batch_size=4, accumulate_grad_batches=2, rollout=2, save_minutes=0, learning_rate=1e-3, progress=False,
        precision="32-true", compile=False,
    )  # fmt: skip
    return sc.train(
        sc.Task(["z500", "t2m"], history=2, horizon=3, forcings=["insolation"]),
        ds.sel(time=slice("2003-01-01", "2003-01-12")),
        valid=ds.sel(time=slice("2003-02-01", "2003-02-05")),
        model=sc.SimVPv2Config(hidden_space=4, hidden_time=8, blocks=2, mlp_ratio=2, drop_path=0.3),
        config=sc.TrainConfig(epochs=epochs, **{**settings, **changes}),
        directory=directory,
        device=device,
    )


def main(directory: str, epochs: str, seconds: str = "0", device: str = "cpu") -> None:
    torch.set_num_threads(1)
    if device != "cpu":  # as far as there are deterministic operations
        torch.use_deterministic_algorithms(True, warn_only=True)
    fsync, update_ema, pause = os.fsync, loop._update_ema, float(seconds)

    def pause_half_written(file: int) -> None:
        if pause and os.fstat(file).st_size > 10_000:  # a file, not the folder
            os.ftruncate(file, os.fstat(file).st_size // 2)
            print("writing", flush=True)
            time.sleep(pause)
            sys.exit("nobody killed the process")
        fsync(file)

    def report_first_step(*arguments) -> None:
        update_ema(*arguments)
        print("ready", flush=True)
        loop._update_ema = update_ema

    os.fsync, loop._update_ema = pause_half_written, report_first_step
    train(Path(directory), int(epochs), device)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
