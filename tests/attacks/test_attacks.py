"""Mutated data, forecasts, stores, files and settings: each is refused clearly or gives the right result."""

import subprocess
import sys
from pathlib import Path

import pytest
import run
from dataset_attacks import MUTATIONS
from outcomes import count, failures

SEEDS = {
    "dataset_attacks": 75,
    "netcdf_attacks": 34,
    "score_attacks": 45,
    "store_attacks": 50,
    "file_attacks": 15,
    "setting_attacks": 25,
}


@pytest.mark.filterwarnings("ignore")  # a warning beside a wrong result is not enough
@pytest.mark.parametrize("module", SEEDS)
def test_nothing_is_silent_or_raw(module):
    attacks = [attack for seed in range(SEEDS[module]) for attack in run.run((module, seed))]
    known = [attack for attack in attacks if attack.area != run.UNKNOWABLE or attack.outcome == "raw"]
    assert not failures(known)
    counts = count(attacks)
    # neither refusing everything nor accepting everything passes
    assert all(area["refused"] for area in counts.values())
    assert any(area["right"] for area in counts.values()) or module == "setting_attacks"


def test_every_mutation_alone_is_among_the_seeds():
    assert len(MUTATIONS) <= SEEDS["dataset_attacks"]
    assert {mutation.is_harmless for mutation in MUTATIONS} == {True, False}


@pytest.mark.slow
def test_thousands_of_attacks(tmp_path):
    script = Path(run.__file__)
    result = subprocess.run([sys.executable, script, "3000"], capture_output=True, text=True)
    (tmp_path / "table.md").write_text(result.stdout)
    assert result.returncode == 0, result.stdout[-4000:]
