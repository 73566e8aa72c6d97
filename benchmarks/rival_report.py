"""The tables of `rivals.py`, sections of docs/rivals.md, and its figure, docs/rivals.png."""

import csv
import math
import statistics
from pathlib import Path

LEADS = (24, 72, 120, 168, 240)  # hours
PUBLISHED = "SimVPv2 as published, its own loss and training, tuned"
BEST_OF = 600.0  # the budget whose best rival is to be reached in less time
TITLES = {"run": "Validation year 2004", "test": "Test year 2005"}
COLUMNS = {"mae": "MAE", "acc": "ACC", "activity": "activity", "small_scale_variance": "small scales",
           "effective_resolution": "effective resolution"}  # fmt: skip
DRIFT = """Forecasts from 15 January, 1 April, 1 July and 1 October, and the truth, both in the last 30 of 90 days.
**Drift** is the largest difference of their global means over starts and seeds, in units of the variable; **variance**
is that along time and longitude, forecast divided by truth."""

Results = dict[tuple[str, float], list[dict]]


def group(results: list[dict]) -> Results:
    """Return the results that did not fail by network and budget, the first seed first."""
    groups: Results = {}
    for result in sorted(results, key=lambda result: result["seed"]):
        if "failed" not in result:
            groups.setdefault((result["name"], result["budget"]), []).append(result)
    return groups


def mean(runs: list[dict], variable: str, metric: str) -> list[float]:
    """Return the mean over runs by lead."""
    return [statistics.mean(values) for values in zip(*(x["scores"][variable][metric] for x in runs), strict=True)]


def budgets_of(groups: Results) -> list[float]:
    return sorted({budget for _, budget in groups})


def best_rivals(groups: Results, budget: float, variable: str, own: list[str]) -> list[str]:
    """Return, by lead, the network with the lowest RMSE among those that are not this package's own."""
    errors = {
        name: mean(runs, variable, "rmse")
        for (name, trained_for), runs in groups.items()
        if trained_for == budget and name not in own
    }
    return [min(errors, key=lambda name: errors[name][lead]) for lead in range(len(LEADS))] if errors else []


def as_table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def digits(variable: str) -> int:
    return 0 if variable.startswith("z") else 2


def slashes(values: list[float], places: int) -> str:
    """Return values by lead, "93 / 283 / 447"."""
    return " / ".join("-" if math.isnan(value) else f"{value:.{places}f}" for value in values)


def error_cell(runs: list[dict], variable: str, lead: int) -> str:
    places = digits(variable)
    values = [run["scores"][variable]["rmse"][lead] for run in runs]
    text = f"{statistics.mean(values):.{places}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{places + 1 if places == 0 else places}f}"
    low, high = (runs[0]["scores"][variable][f"rmse_{end}"][lead] for end in ("low", "high"))
    return text if math.isnan(low) else f"{text} ({low:.{places}f} to {high:.{places}f})"


def budget_tables(groups: Results, budget: float, names: list[str], variables: tuple[str, ...]) -> list[str]:
    """Return the tables of one budget: cost, errors by lead, and the other metrics."""
    present = [name for name in names if (name, budget) in groups]
    cost, other = [], []
    errors: dict[str, list[list[str]]] = {variable: [] for variable in variables}
    for name in present:
        runs = groups[name, budget]
        steps, seconds = (statistics.mean(run[key] for run in runs) for key in ("steps", "cpu_seconds"))
        ms = statistics.median(run["ms_a_step"] for run in runs)
        size = f"{runs[0]['parameters'] / 1e6:.2f}"
        cost.append(
            [
                name,
                str(len(runs)),
                size,
                f"{ms:.0f}",
                f"{steps:.0f}",
                f"{seconds:.0f}",
                f"{runs[0]['optimizer']}, {runs[0]['rate']:g}",
            ]
        )
        for variable in variables:
            errors[variable].append([name, *(error_cell(runs, variable, lead) for lead in range(len(LEADS)))])
            places = {"mae": digits(variable), "effective_resolution": 0, "acc": 3}
            cells = [slashes(mean(runs, variable, metric), places.get(metric, 2)) for metric in COLUMNS]
            other.append([name, variable, *cells])
    head = ["network", "seeds", "M parameters", "ms a step", "steps", "CPU s", "optimizer and learning rate"]
    leads = [f"{lead} h" for lead in LEADS]
    return [
        as_table(head, cost),
        *(as_table([f"{variable} RMSE", *leads], rows) for variable, rows in errors.items()),
        as_table([f"at {' / '.join(map(str, LEADS))} h", "variable", *COLUMNS.values()], other),
    ]


def ratio_table(
    comparisons: dict, groups: Results, own: list[str], variables: tuple[str, ...], rival: str | None = None
) -> str:  # fmt: skip
    """Return the ratios to one rival, or to the best at each lead.

    `comparisons` has those of (own network, budget) to each rival, by seed.
    """
    rows = []
    for (name, budget), by_seed in comparisons.items():
        for variable in variables:
            rivals = [rival] * len(LEADS) if rival else best_rivals(groups, budget, variable, own)
            cells = [ratio_cell(by_seed, other, variable, lead) for lead, other in enumerate(rivals)]
            if not rival:
                cells = [f"{cell}, {other}" if cell else "" for cell, other in zip(cells, rivals, strict=True)]
            if any(cells):
                rows.append([name, f"{budget:g}", variable, *cells])
    return as_table(["", "CPU s", "variable", *(f"{lead} h" for lead in LEADS)], rows) if rows else ""


def ratio_cell(by_seed: list[dict], rival: str, variable: str, lead: int) -> str:
    """Return the mean ratio to a rival over seeds and its interval; "" if no seed has both runs (some may diverge)."""
    ratios = [[ends[lead] for ends in x[rival][variable]] for x in by_seed if rival in x]
    if not ratios:
        return ""
    low, high = min(values[1] for values in ratios), max(values[2] for values in ratios)
    interval = "" if math.isnan(low) else f" ({low:.2f} to {high:.2f})"
    return f"{statistics.mean(values[0] for values in ratios):.3f}{interval}"


def time_table(groups: Results, own: list[str], variables: tuple[str, ...]) -> str:
    """Return the processor time in which this package's networks reach the error of the best rival after 600 s."""
    rows = []
    for name in own:
        budgets = [budget for budget in budgets_of(groups) if (name, budget) in groups]
        for variable in variables:
            rivals = best_rivals(groups, BEST_OF, variable, own)
            if not rivals or len(budgets) < 2:
                continue
            seconds = [statistics.mean(run["cpu_seconds"] for run in groups[name, budget]) for budget in budgets]
            cells = []
            for lead, rival in enumerate(rivals[:3]):
                goal = mean(groups[rival, BEST_OF], variable, "rmse")[lead]
                errors = [mean(groups[name, budget], variable, "rmse")[lead] for budget in budgets]
                cells.append(time_to_reach(goal, errors, seconds))
            rows.append([name, variable, *cells])
    return as_table(["", "variable", *(f"{lead} h" for lead in LEADS[:3])], rows) if rows else ""


def time_to_reach(goal: float, errors: list[float], seconds: list[float]) -> str:
    """Return when the error falls to a goal, interpolated between budgets on logarithmic axes."""
    if errors[0] <= goal:
        return f"less than {seconds[0]:.0f}"
    for index in range(1, len(errors)):
        before, after = errors[index - 1 : index + 1]
        if after <= goal:
            share = math.log(before / goal) / math.log(before / after)
            return f"{math.exp((1 - share) * math.log(seconds[index - 1]) + share * math.log(seconds[index])):.0f}"
    return f"more than {seconds[-1]:.0f}"


def drift_table(groups: Results, names: list[str], variables: tuple[str, ...]) -> str:
    """Return, from forecasts of 90 days, the largest drift of all seeds and the mean variance."""
    rows = []
    for name in names:
        for budget in budgets_of(groups):
            runs = [run["long_forecasts"] for run in groups.get((name, budget), []) if "long_forecasts" in run]
            if not runs:
                continue
            drifts = [f"{max(run[x]['drift'] for run in runs):.{digits(x)}f}" for x in variables]
            variances = [f"{statistics.mean(run[x]['variance'] for run in runs):.2f}" for x in variables]
            rows.append([name, f"{budget:g}", str(len(runs)), *drifts, *variances])
    head = ["", "CPU s", "seeds", *(f"drift of {x}" for x in variables), *(f"variance of {x}" for x in variables)]
    return as_table(head, rows) if rows else ""


def rate_table(results: list[dict], names: list[str], variables: tuple[str, ...]) -> str:
    """Return the errors at every learning rate that was tried."""
    rows = []
    for name in names:
        tried = [result for result in results if result["name"] == name]
        for result in sorted(tried, key=lambda result: (result["optimizer"], result["rate"])):
            cells = ["diverged"] * len(variables)
            if "failed" not in result:
                cells = [slashes(result["scores"][x]["rmse"][:3], digits(x)) for x in variables]
            rows.append([name, f"{result['optimizer']}, {result['rate']:g}", *cells])
    errors = [f"{name} RMSE at 24 / 72 / 120 h" for name in variables]
    return as_table(["", "optimizer and learning rate", *errors], rows)


def describe(
    stages: dict[str, Results], comparisons: dict[str, dict], rates: list[dict], names: list[str],
    own: list[str], variables: tuple[str, ...], variants: tuple[str, ...] = (), note: str = "",
) -> str:  # fmt: skip
    """Return, for each stage, ratios, times to reach the best rival and the tables of every budget, as Markdown.

    The validation year has only the ratios where the test year was scored. `variants` are not among the best rivals.
    """
    parts = [note] if note else []
    is_tested = bool(stages.get("test"))
    for stage in ("test", "run"):
        groups = stages.get(stage)
        if not groups:
            continue
        natural = {key: runs for key, runs in groups.items() if key[0] not in variants}
        parts.append(f"### {TITLES[stage]}")
        parts += ["RMSE divided by that of the best rival:", ratio_table(comparisons[stage], natural, own, variables)]
        if stage == "run" and is_tested:
            continue
        for name in (*variants, PUBLISHED):
            if ratios := ratio_table(comparisons[stage], groups, own, variables, name):
                parts += [f"Divided by that of {name}:", ratios]
        if times := time_table(natural, own, variables):
            parts += [f"Processor time in s to reach the best rival's error of {BEST_OF:g} CPU-s:", times]
        if drifts := drift_table(groups, names, variables):
            parts += [f"#### {TITLES[stage]}: forecasts of 90 days", DRIFT, drifts]
        for budget in budgets_of(groups):
            parts.append(f"#### {TITLES[stage]}: {budget:g} CPU-s")
            parts += budget_tables(groups, budget, names, variables)
    if rates:
        seconds = sorted({result["budget"] for result in rates})
        parts.append(f"### Learning rates (2004, {' and '.join(f'{x:g}' for x in seconds)} CPU-s, one seed)")
        parts.append(rate_table(rates, names, variables))
    return "\n\n".join(parts)


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between the two marks of a section of a page, or at its end; the rest of the page stays."""
    begin, end = (f"<!-- {edge} of the report {name} -->" for edge in ("begin", "end"))
    before, after = (page.read_text() if page.exists() else "") + f"\n{begin}\n", "\n"
    if page.exists() and begin in page.read_text():
        before, rest = page.read_text().split(begin)
        before, after = f"{before}{begin}\n", rest.split(end)[1]
    page.write_text(f"{before}\n{text}\n\n{end}{after}")


def write_csv(path: Path, stages: dict[str, Results]) -> None:
    """Write all scores of all runs with their intervals, one value a row."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        head = ["stage", "network", "budget", "seed", "precision", "variable", "metric", "lead_hours"]
        writer.writerow([*head, "value", "low", "high"])
        for stage, groups in stages.items():
            for (name, budget), runs in groups.items():
                for run in runs:
                    key = [stage, name, budget, run["seed"], run["precision"]]
                    for variable, metrics in run["scores"].items():
                        for metric in ("rmse", *COLUMNS):
                            none = [math.nan] * len(LEADS)
                            ends = [metrics.get(f"{metric}{end}", none) for end in ("", "_low", "_high")]
                            for lead, *values in zip(LEADS, *ends, strict=True):
                                writer.writerow([*key, variable, metric, lead, *values])


def draw(path: Path, groups: Results, names: list[str], own: list[str], variables: tuple[str, ...]) -> None:
    """Draw the error at 72 h against processor time, and against the small scales, for each variable."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(variables), figsize=(5.5 * len(variables), 8), layout="constrained", squeeze=False
    )
    lead = LEADS.index(72)
    styles = plt.get_cmap("tab10")
    for column, variable in enumerate(variables):
        for index, name in enumerate(names):
            budgets = [budget for budget in budgets_of(groups) if (name, budget) in groups]
            if not budgets:
                continue
            runs = [groups[name, budget] for budget in budgets]
            seconds = [statistics.mean(run["cpu_seconds"] for run in x) for x in runs]
            error = [mean(x, variable, "rmse")[lead] for x in runs]
            small = [mean(x, variable, "small_scale_variance")[lead] for x in runs]
            style = {"color": styles(index % 10), "marker": "o", "linewidth": 3 if name in own else 1.2}
            axes[0, column].plot(seconds, error, label=name, **style)
            axes[1, column].plot(small, error, **style)
        axes[0, column].set(xscale="log", xlabel="processor time (s)", title=f"{variable}, 72 h")
        axes[1, column].set(xlabel="variance in wavenumbers 10 to 19, forecast / truth")
        ticks = budgets_of(groups)
        axes[0, column].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[0, column].minorticks_off()
        for axis in axes[:, column]:
            axis.set_ylabel(f"RMSE ({'m2 s-2' if variable.startswith('z') else 'K'})")
            axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
