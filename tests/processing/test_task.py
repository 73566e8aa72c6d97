import dataclasses

import numpy as np
import pytest

from simvp_climate.processing.task import Task


def test_lists_become_tuples_and_pseudo_names_are_expanded():
    task = Task(["z500", "uv10"], levels=[500, 850])
    assert task.variables == ("z500", "u10", "v10")
    assert task.levels == (500, 850)
    assert Task(["z"], levels=np.array([850, 500]), history=np.int64(3)) == Task(["z"], [850.0, 500.0], 3)
    assert hash(task) == hash(dataclasses.replace(task))
    assert (task.history, task.horizon, task.step) == (4, 4, "6h")


def test_variables_are_ordered_by_their_role():
    task = Task(["z500"], inputs=["uv10"], diagnostics=["tp"], transforms={"tp": "log"})
    assert task.all_variables == ("z500", "u10", "v10", "tp")
    assert task.forecast_variables == ("z500", "tp")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variables": "t2m"}, r"variables='t2m' must be a list.*\['t2m'\]"),
        ({"variables": []}, "variables"),
        ({"variables": ["t2m", "t2m"]}, "variables must name .'t2m'. only once"),
        ({"variables": [3]}, "variables contains 3"),
        ({"variables": None}, "variables=None must be a list"),
        ({"variables": ["z"], "levels": 500}, r"levels=500 must be a list.*levels=\[500\]"),
        ({"variables": ["z"], "levels": [500, 500]}, "levels must name .500.0. only once"),
        ({"variables": ["z"], "levels": [10**400]}, "levels contains 1000"),
        ({"variables": ["z"], "levels": []}, r"levels=\[\] must .* pressures"),
        ({"variables": ["z"], "levels": [float("nan")]}, "levels contains nan, .* pressure"),
        ({"variables": ["z"], "levels": [-5]}, "levels contains -5"),
        ({"variables": ["z"], "levels": [None]}, "levels contains None"),
        ({"variables": ["t2m"], "history": 0}, "history=0 must be an integer from 1"),
        ({"variables": ["t2m"], "history": True}, "history=True"),
        ({"variables": ["t2m"], "horizon": 2.5}, "horizon=2.5"),
        ({"variables": ["t2m"], "horizon": 10**7}, "horizon=10000000 must be .* to 10000"),
        ({"variables": ["t2m"], "inputs": "z500"}, r"inputs='z500' must be a list.*\['z500'\]"),
        ({"variables": ["t2m"], "inputs": ["t2m"]}, "'t2m'. must not be in both variables and inputs"),
        ({"variables": ["t2m"], "inputs": ["u10"], "diagnostics": ["u10"]}, "both inputs and diagnostics"),
        ({"variables": ["t2m"], "inputs": ["u10"], "history": 4, "horizon": 5}, "horizon=5 must be at most history=4"),
        ({"variables": ["t2m"], "diagnostics": ["tp"], "forcings": ["tp"]}, "'tp'. .* both diagnostics and forcings"),
        ({"variables": ["t2m"], "forcings": [3]}, "forcings contains 3"),
        ({"variables": ["t2m"], "forcings": ["lsm", "lsm"]}, "forcings must name .'lsm'. only once"),
        ({"variables": ["tp"], "transforms": 5}, "transforms=5 must be a dict"),
        ({"variables": ["tp"], "transforms": [3]}, "transforms=.3. must be a dict"),
        ({"variables": ["tp"], "transforms": {"t2m": "log"}}, "transforms names 't2m'"),
        ({"variables": ["tp"], "transforms": {"tp": ("log", 10**400)}}, "transforms="),
        ({"variables": ["tp"], "transforms": (("tp", "log"), ("tp", "log"))}, "transforms must name .'tp'. only once"),
        ({"variables": ["tp"], "transforms": {"tp": ("log", float("inf"))}}, "transforms=.*'log', inf"),
        ({"variables": ["tp"], "transforms": {"tp": (float("nan"), 1)}}, "transforms=.*nan"),
        ({"variables": ["tp"], "transforms": {"tp": (1, 0)}}, "transforms=.*low < high"),
        ({"variables": ["t2m"], "step": "1.5MS"}, "'1.5MS'"),
        ({"variables": ["t2m"], "step": 6}, "6 "),
        ({"variables": ["t2m"], "step": "6"}, "'6'"),
        ({"variables": ["t2m"], "step": "six"}, "'six'"),
        ({"variables": ["t2m"], "step": "-6h"}, "'-6h'"),
    ],
)
def test_bad_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(**arguments)


def test_jupyter_shows_all_settings_that_are_set():
    task = Task(["t"], levels=[500, 850], forcings=["insolation"], transforms={"t": (200, None)}, inputs=["<b>"])
    page = task._repr_html_()
    for text in ("t at 500, 850 hPa", "4 states 6h apart", "insolation", "t: (200, None)", "&lt;b&gt;"):
        assert text in page
    assert "output only" not in page and "<b>Task</b>" in page
