"""Attack with many seeds and print the table of docs/reliability.md: python tests/attacks/run.py [SEEDS]."""

import sys
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

# seeds of each module, in shares of all
SHARES = {
    "dataset_attacks": 0.3,
    "netcdf_attacks": 0.05,
    "score_attacks": 0.2,
    "store_attacks": 0.25,
    "file_attacks": 0.1,
    "setting_attacks": 0.1,
}

# silent where nothing can be known: bytes of a store without checksums that decode to other values
UNKNOWABLE = "store of others, bytes changed"


def jobs(seeds: int) -> list[tuple[str, int]]:
    """Return modules and seeds, the shares of all seeds."""
    return [(module, seed) for module, share in SHARES.items() for seed in range(round(share * seeds))]


def run(job: tuple[str, int]) -> list:
    """Return the attacks of one module with one seed."""
    import importlib
    import warnings

    import torch

    torch.set_num_threads(1)
    module, seed = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning beside a wrong result is not enough
        return importlib.import_module(module).attack(seed)


def main(seeds: int = 200, processes: int = 2) -> int:
    """Run all attacks, print progress, table and failures; return the number of failures."""
    from outcomes import failures, table

    todo, attacks = jobs(seeds), []
    with get_context("spawn").Pool(processes) as pool:
        for number, result in enumerate(pool.imap(run, todo, chunksize=4), 1):
            attacks += result
            if number % 100 == 0:
                print(f"{number} of {len(todo)} seeds", file=sys.stderr)
    print(table(sorted(attacks, key=lambda attack: attack.area)))
    known = [attack for attack in attacks if attack.area != UNKNOWABLE or attack.outcome == "raw"]
    print(failures(known))
    return len(failures(known).splitlines())


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
