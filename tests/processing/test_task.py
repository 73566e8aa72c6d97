import dataclasses

import numpy as np
import pytest

from simvp_climate.processing.task import Task


def test_lists_become_tuples_and_pseudo_names_expand():
    task = Task(["z500", "uv10"], levels=[500, 850])
    assert task.variables == ("z500", "u10", "v10")
    assert task.levels == (500, 850)
    assert Task(["z"], levels=np.array([850, 500]), history=np.int64(3)) == Task(["z"], [850.0, 500.0], 3)
    assert hash(task) == hash(dataclasses.replace(task))
    assert (task.history, task.horizon, task.step) == (12, 12, "6h")


def test_roles_of_variables():
    task = Task(["z500"], inputs=["uv10"], diagnostics=["tp"], transforms={"tp": "log"})
    assert task.all_variables == ("z500", "u10", "v10", "tp")
    assert task.forecast_variables == ("z500", "tp")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variables": "t2m"}, r"\['t2m'\]"),
        ({"variables": []}, "at least one|empty"),
        ({"variables": ["t2m", "t2m"]}, "more than once|twice|t2m"),
        ({"variables": ["z"], "levels": 500}, r"levels=500: give a list of pressures in hPa, \[500\]"),
        ({"variables": ["z"], "levels": [500, 500]}, "levels names .500.0. more than once"),
        ({"variables": ["t2m"], "history": 0}, "history=0 must be a whole number of steps, at least 1"),
        ({"variables": ["t2m"], "horizon": 2.5}, "horizon=2.5"),
        ({"variables": ["t2m"], "inputs": "z500"}, r"inputs='z500' is a string: give a list, \['z500'\]"),
        ({"variables": ["t2m"], "inputs": ["t2m"]}, "'t2m'. are in both variables and inputs"),
        ({"variables": ["t2m"], "inputs": ["u10"], "diagnostics": ["u10"]}, "both inputs and diagnostics"),
        ({"variables": ["t2m"], "inputs": ["u10"], "history": 4, "horizon": 5}, "horizon=5 takes more than one call"),
        ({"variables": ["t2m"], "diagnostics": ["tp"], "forcings": ["tp"]}, "both variables to forecast and forcings"),
        ({"variables": ["t2m"], "history": True}, "history=True"),
        ({"variables": ["t2m"], "horizon": 10**7}, "horizon=10000000 must be at most 10000 steps"),
        ({"variables": ["t2m"], "step": "1.5MS"}, "'1.5MS' is not a time step"),
        ({"variables": ["z"], "levels": [10**400]}, "levels has 1000"),
        ({"variables": ["tp"], "transforms": [3]}, "transforms=.3.: write"),
        ({"variables": ["tp"], "transforms": {"tp": ("log", 10**400)}}, "transforms="),
        ({"variables": [3]}, "variables has 3: give names"),
        ({"variables": None}, "variables"),
        ({"variables": ["t2m"], "forcings": [3]}, "forcings has 3: give names"),
        ({"variables": ["z"], "levels": []}, "levels is empty"),
        ({"variables": ["z"], "levels": [float("nan")]}, "levels has nan: give pressures in hPa"),
        ({"variables": ["z"], "levels": [-5]}, "levels has -5"),
        ({"variables": ["z"], "levels": [None]}, "levels has None"),
        ({"variables": ["tp"], "transforms": 5}, "transforms=5: write"),
        ({"variables": ["tp"], "transforms": (("tp", "log"), ("tp", "log"))}, "transforms names .'tp'. more than once"),
        ({"variables": ["tp"], "transforms": {"tp": ("log", float("inf"))}}, "transforms=.*'log', inf"),
        ({"variables": ["tp"], "transforms": {"tp": (float("nan"), 1)}}, "transforms=.*nan"),
        ({"variables": ["t2m"], "step": 6}, "6 is not a time step.* as text"),
        ({"variables": ["t2m"], "step": "6"}, "'6' is not a time step"),
        ({"variables": ["t2m"], "step": "six"}, "'six' is not a time step"),
        ({"variables": ["t2m"], "step": "-6h"}, "'-6h' is not a time step"),
    ],
)
def test_bad_tasks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(**arguments)


def test_jupyter_shows_all_that_was_said_and_nothing_else():
    task = Task(["t"], levels=[500, 850], forcings=["insolation"], transforms={"t": (200, None)}, inputs=["<b>"])
    page = task._repr_html_()
    for words in ("t at 500, 850 hPa", "12 states 6h apart", "insolation", "t: (200, None)", "&lt;b&gt;"):
        assert words in page
    assert "only forecast" not in page and "<b>Task</b>" in page
