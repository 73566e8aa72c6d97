"""Attack with many seeds and print the table of docs/reliability.md: python tests/attacks/run.py [SEEDS [MODULE]]."""

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


def jobs(seeds: int, only: str = "") -> list[tuple[str, int]]:
    """Return modules and seeds, the shares of all seeds; those of one module if it is named."""
    shares = {module: share for module, share in SHARES.items() if only in ("", module)}
    return [(module, seed) for module, share in shares.items() for seed in range(round(share * seeds))]


def run(job: tuple[str, int]) -> list:
    """Return the attacks of one module with one seed; if they cannot be made, one that is broken."""
    import importlib
    import traceback
    import warnings

    import torch
    from outcomes import Attack

    torch.set_num_threads(1)
    module, seed = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning beside a wrong result is not enough
        try:
            return importlib.import_module(module).attack(seed)
        except Exception:
            return [Attack(module, f"seed {seed}", "broken", traceback.format_exc(limit=-3))]


def main(seeds: int = 200, only: str = "", processes: int = 2) -> int:
    """Run all attacks, print progress, table and failures; return the number of failures."""
    from outcomes import failures, table

    todo, attacks = jobs(seeds, only), []
    with get_context("spawn").Pool(processes) as pool:
        for number, result in enumerate(pool.imap(run, todo, chunksize=4), 1):
            attacks += result
            if number % 100 == 0:
                print(f"{number} of {len(todo)} seeds", file=sys.stderr)
    print(table(sorted(attacks, key=lambda attack: attack.area)))
    bad = failures([attack for attack in attacks if attack.area != UNKNOWABLE or attack.outcome != "silent"])
    print(bad)
    return len(bad.splitlines())


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, *sys.argv[2:3])))
