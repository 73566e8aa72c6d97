"""Small made-up climates whose future is known."""

import pyproj  # noqa: F401, before ecCodes, which xarray loads: the other way round the process crashes when it ends
import pytest
import torch
from factories import quick, tiny_model, waves

# one thread: the runs are small, and the order of sums must not depend on the machine
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    """The user's cache folder of a test: nothing is left in that of whoever runs it."""
    folder = tmp_path_factory.mktemp("user_cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def forecaster():
    """A forecaster of both variables on the global grid, hardly trained."""
    from simvp_climate.processing.task import Task
    from simvp_climate.training.train import train

    task = Task(["z500", "t2m"], history=3, horizon=3)
    ds = waves()
    return train(
        task,
        ds.isel(time=slice(0, 40)),
        valid=ds.isel(time=slice(40, None)),
        model=tiny_model(),
        config=quick(),
        device="cpu",
    )
