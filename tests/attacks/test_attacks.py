"""Mutated data, forecasts, stores, files and settings: each is refused clearly or gives the right result."""

import subprocess
import sys
from pathlib import Path

import pytest
import run
from dataset_attacks import MUTATIONS
from outcomes import PACKAGE, count, failures, judge

SEEDS = {
    "dataset_attacks": 75,
    "netcdf_attacks": 20,
    "score_attacks": 40,
    "store_attacks": 40,
    "file_attacks": 10,
    "setting_attacks": 10,
}


@pytest.mark.filterwarnings("ignore")  # a warning beside a wrong result is not enough
@pytest.mark.parametrize("module", SEEDS)
def test_nothing_is_silent_or_raw(module):
    attacks = [attack for seed in range(SEEDS[module]) for attack in run.run((module, seed))]
    assert not failures([each for each in attacks if each.area != run.UNKNOWABLE or each.outcome != "silent"])
    counts = count(attacks)
    # neither refusing everything nor accepting everything passes
    assert all(area["refused"] for area in counts.values())
    assert any(area["right"] for area in counts.values()) or module == "setting_attacks"


def test_every_mutation_alone_is_among_the_seeds():
    assert len(MUTATIONS) <= SEEDS["dataset_attacks"]
    assert {mutation.is_harmless for mutation in MUTATIONS} == {True, False}


def test_an_attack_that_fails_itself_is_counted(monkeypatch):
    monkeypatch.setattr("dataset_attacks.choose", lambda seed: 1 / 0)
    (broken,) = run.run(("dataset_attacks", 0))
    assert broken.outcome == "broken" and "ZeroDivisionError" in failures([broken])


@pytest.mark.parametrize(
    ("text", "is_enough"),
    [
        ("'t2m' is in K at time 3. Convert it", True),
        ("the values of t2m must be real", True),
        ("this variable must be a number. Convert it", False),  # which one?
        ("t2m is complex at 3 times", False),  # and now?
    ],
)
def test_a_clear_error_has_a_name_and_a_way_out(text, is_enough):
    def call():
        exec(compile(f"raise ValueError({text!r})", str(PACKAGE / "some.py"), "exec"))

    outcome = judge("area", "", call, lambda result: True, names=["t2m"], is_harmless=True).outcome
    assert outcome == ("needless" if is_enough else "raw")


@pytest.mark.slow
def test_thousands_of_attacks(tmp_path):
    script = Path(run.__file__)
    result = subprocess.run([sys.executable, script, "3000"], capture_output=True, text=True)
    (tmp_path / "table.md").write_text(result.stdout)
    assert result.returncode == 0, result.stdout[-4000:]
