"""Settings of Task, networks and TrainConfig replaced by strange values: refused when made or when used."""

import dataclasses
from functools import cache

import numpy as np
from factories import tiny_model, tiny_sphere, waves
from outcomes import Attack, judge

import simvp_climate as sc

STRANGE = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**9, 0.5, -0.5, 1.5, 1e308, float("nan"), float("inf"), "", "x", "6h"),
    *("1MS", "auto", (), [], ["t2m"], ("t2m", "t2m"), {}, {"t2m": "log"}, {"t2m": (5, 1)}, (0.1,), (1, 2, 3), b"x"),
    *(np.float32(0.3), np.int64(2), np.array([1.0, 2.0]), object),
)
TASK = {"variables": ["z500", "t2m"], "history": 2, "horizon": 2}
# settings whose strange but valid values take long, and are tested elsewhere
SLOW = {("TrainConfig", name) for name in ("epochs", "save_minutes", "compile")}


@cache
def data():
    return waves(times=16)


def _train(task: dict, base: sc.SimVPv2Config | sc.SimVPSphereConfig, model: dict, config: dict):
    task = sc.Task(**{**TASK, **task})
    model = dataclasses.replace(base, **model)
    settings = dict(epochs=1, batch_size=8, progress=False, seed=0, precision="32-true")
    config = sc.TrainConfig(**{**settings, **config})
    return sc.train(
        task, data(), valid=None if config.patience is None else data(), model=model, config=config, device="cpu"
    )


def attack(seed: int) -> list[Attack]:
    """Return how a training with one or two strange settings ended."""
    rng = np.random.default_rng(seed)
    base = tiny_sphere() if seed % 2 else tiny_model()
    network = type(base).__name__
    types = {"Task": sc.Task, network: type(base), "TrainConfig": sc.TrainConfig}
    fields = [(name, field.name) for name, kind in types.items() for field in dataclasses.fields(kind)]
    fields = [field for field in fields if field not in SLOW]
    changes: dict[str, dict] = {name: {} for name in types}
    described = []
    for index in rng.choice(len(fields), int(rng.integers(1, 3)), replace=False):
        name, field = fields[index]
        value = STRANGE[int(rng.integers(len(STRANGE)))]
        changes[name][field] = value
        described.append(f"{name}({field}={value!r})")

    def train():
        forecaster = _train(changes["Task"], base, changes[network], changes["TrainConfig"])
        return forecaster(data()) if not forecaster.task.inputs else None

    def is_right(result):
        # whatever is accepted gives finite forecasts
        return result is None or all(bool(np.isfinite(value).all()) for value in result.data_vars.values())

    names = [field for settings in changes.values() for field in settings]
    return [judge("settings", f"seed {seed}, {', '.join(described)}", train, is_right, names=names)]
