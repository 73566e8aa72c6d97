import dataclasses

import numpy as np
import pytest
from factories import quick

from simvp_climate.processing.task import Task
from simvp_climate.training.config import TrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be a positive integer"),
        ({"engine": np.ones(2)}, "engine=array.* must be one of"),
        ({"compile": np.ones(2)}, "compile=array.* must be 'auto', True or False"),
        ({"epochs": True}, "epochs=True"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches=0"),
        ({"rollout": 0}, "rollout=0"),
        ({"learning_rate": 10**400}, "learning_rate=1000"),
        ({"rollout": 10**6}, "rollout=1000000 must be .* 1000"),
        ({"patience": 0}, "patience=0"),
        ({"epochs": 3, "patience": 3}, "patience=3 would be ignored with epochs=3"),
        ({"seed": 2**60}, r"seed=\d+ must be .*2\*\*32"),
        ({"schedule": []}, r"schedule=\[\] must be one of"),
        ({"variable_weights": None}, "variable_weights=None must be a mapping"),
        (
            {"variable_weights": 5},
            "variable_weights=5 must be a mapping from different names to numbers from 1e-6 to 1e6",
        ),
        ({"lead_weights": (1, 1e300)}, r"lead_weights=\(1, 1e.300\) must be one number from 1e-6 to 1e6"),
        ({"validation_windows": 0}, "validation_windows=0"),
        ({"seed": -1}, "seed=-1 must be an integer from 0"),
        ({"learning_rate": -1}, "learning_rate=-1"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3' must be a number"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"gradient_clip": 0}, "gradient_clip=0 must be a number greater than 0, or None"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"ema_decay": None}, "ema_decay=None"),
        ({"rollout": 2, "rollout_share": 0}, "rollout_share=0"),
        ({"rollout_share": 0.5}, "rollout_share=0.5 would be ignored with rollout=1"),
        ({"optimizer": "sgd"}, r"optimizer='sgd' must be one of \('muon', 'adamw', 'adam'\)"),
        ({"optimizer": "adam", "weight_decay": 0.01}, "weight_decay=0.01: leave it out"),
        ({"schedule": "onecycle"}, "schedule='onecycle' must be one of"),
        ({"loss_normalization": "none"}, "loss_normalization='none'"),
        ({"precision": "64-true"}, "precision='64-true'"),
        ({"strategy": "deepspeed"}, r"strategy='deepspeed' must be one of \('ddp', 'fsdp'\)"),
        ({"strategy": "fsdp", "compile": True}, "strategy='fsdp' does not support compile=True"),
        ({"strategy": "fsdp", "precision": "16-mixed"}, "strategy='fsdp' does not support precision='16-mixed'"),
        ({"compile": "yes"}, "compile='yes' must be 'auto', True or False"),
        ({"engine": "dask"}, "engine='dask'"),
        ({"area_weighted": 1}, "area_weighted=1 must be True or False"),
        ({"activation_checkpointing": "yes"}, "activation_checkpointing='yes'"),
        ({"memory": 0}, "memory=0"),
        ({"memory": "8GB"}, "memory='8GB'"),
        ({"lead_weights": ()}, r"lead_weights=\(\)"),
        ({"lead_weights": 1.0}, "lead_weights=1.0 must be one number .* for each lead"),
        ({"lead_weights": (1, -1)}, r"lead_weights=\(1, -1\)"),
        ({"variable_weights": {"z500": 0}}, "variable_weights={'z500': 0} must be"),
        ({"variable_weights": ["z500"]}, r"variable_weights=\['z500'\] must be .* {'z500': 1.0"),
        ({"variable_weights": (("z500", 1), ("z500", 2))}, "must be a mapping from different names"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        quick(**changes)


def test_settings_are_kept_as_plain_values():
    config = TrainConfig(
        learning_rate=np.float32(0.5), lead_weights=[1, 2], variable_weights={"t2m": 2}, epochs=np.int64(3)
    )
    assert (config.lead_weights, config.variable_weights) == ((1.0, 2.0), (("t2m", 2.0),))
    assert type(config.learning_rate) is float and type(config.epochs) is int
    assert dataclasses.replace(config) == config and hash(config) == hash(dataclasses.replace(config))
    assert (TrainConfig().warmup, TrainConfig(schedule="one-cycle").warmup) == (0.1, 0.3)
    assert TrainConfig(schedule="one-cycle", warmup=0.1).warmup == 0.1


def test_a_rollout_of_what_is_only_seen():
    task = Task(["t2m"], inputs=["z500"], history=4, horizon=4)
    with pytest.raises(ValueError, match=r"rollout=2 .*inputs=\['z500'\] are not forecast"):
        quick(rollout=2).leads(task)


def test_windows_reach_as_far_as_the_longest_rollout():
    task = Task(["z500", "t2m"], history=4, horizon=6)
    assert TrainConfig().leads(task) == 6
    assert TrainConfig(rollout=2).leads(task) == 8
    assert TrainConfig(rollout=5).leads(task) == 20
    with pytest.raises(ValueError, match="rollout=2 .*horizon=8: .* at least 3"):
        TrainConfig(rollout=2).leads(Task(["t2m"], history=4, horizon=8))
    with pytest.raises(ValueError, match="lead_weights has 4 numbers and the task horizon=6"):
        TrainConfig(lead_weights=(1, 1, 1, 1)).leads(task)
    with pytest.raises(ValueError, match=r"variable_weights names \['u10'\].*\['z500', 't2m'\]"):
        TrainConfig(variable_weights={"u10": 1}).leads(task)


def test_weights_of_a_level_that_is_not_in_the_task_are_an_error():
    task = Task(["geopotential", "t2m"], levels=[500, 850], history=2, horizon=2)
    assert TrainConfig(variable_weights={"geopotential_500": 2}).leads(task) == 2
    with pytest.raises(ValueError, match=r"\['geopotential_700'\], .* of their levels, such as 'geopotential_500'"):
        TrainConfig(variable_weights={"geopotential_700": 2}).leads(task)
