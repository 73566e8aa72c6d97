"""A training run for tests that stop or kill it: in a process of its own, or to its end in theirs.

    python training_script.py DIRECTORY EPOCHS [SECONDS]

Says "ready" when the first step is done, "writing" when a file lies half written on the disk (where it stays for
SECONDS), and "done" at the end.
"""

import os
import sys
import time
from pathlib import Path

import torch

import simvp_climate as sc
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training import loop


def train(directory: Path | None, epochs: int, **changes) -> Forecaster:
    ds = sc.open_sample(["z500", "t2m"])
    settings = dict(
        batch_size=4, accumulate_grad_batches=2, rollout=2, save_minutes=0, learning_rate=1e-3, progress=False
    )
    return sc.train(
        sc.Task(["z500", "t2m"], history=2, horizon=3, forcings=["insolation"]),
        ds.sel(time=slice("2003-01-01", "2003-01-12")),
        valid=ds.sel(time=slice("2003-02-01", "2003-02-05")),
        model=sc.SimVPv2Config(hidden_space=4, hidden_time=8, blocks=2, mlp_ratio=2, drop_path=0.3),
        config=sc.TrainConfig(epochs=epochs, **{**settings, **changes}),
        directory=directory,
        device="cpu",
    )


def say(word: str) -> None:
    print(word, flush=True)


def main(directory: str, epochs: str, seconds: str = "0") -> None:
    torch.set_num_threads(1)
    fsync, update, stay = os.fsync, loop._update_ema, float(seconds)

    def half_written(file: int) -> None:
        if stay and os.fstat(file).st_size > 10_000:  # not the folder
            os.ftruncate(file, os.fstat(file).st_size // 2)
            say("writing")
            time.sleep(stay)
            sys.exit("nobody killed the process")
        fsync(file)

    def first_step(*arguments) -> None:
        update(*arguments)
        say("ready")
        loop._update_ema = update

    os.fsync, loop._update_ema = half_written, first_step
    train(Path(directory), int(epochs))
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
