"""What a check found: facts as plain values, fixes, and all of it as text for a terminal and as HTML for Jupyter."""

import html
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from simvp_climate.data.variables import Variable

SEVERITIES = ("error", "warning", "note")
GIVEN = "a Dataset"
_WIDTH = 100
_COLORS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#3b6ea5"}


@dataclass(frozen=True)
class Finding:
    """One thing found in the data.

    Attributes
    ----------
    severity
        "error": training would refuse or be wrong. "warning": it works, but costs or hurts. "note": worth
        knowing; it is handled.
    code
        One word for scripts, such as "time-gaps".
    where
        The variable or coordinate.
    what
        What was found, with the values.
    fix
        Python or a command to paste, or what to do; `ds` is the Dataset checked, `sc` this package.
    """

    severity: str
    code: str
    where: str
    what: str
    fix: str


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` found: readable when printed, and as a table in Jupyter.

    Attributes
    ----------
    findings
        Errors first, then warnings, then notes.
    summary
        Facts as plain values (text, numbers, lists, dicts): source, variables, grid, time, missing, layout,
        memory, windows. What could not be found out is absent.
    """

    findings: tuple[Finding, ...]
    summary: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"check: {_headline(self)}", ""]
        for topic, texts in _facts(self.summary):
            for number, text in enumerate(texts):
                lines += _wrapped(text, f"{topic if number == 0 else '':<10}", " " * 12)
        for one in self.findings:
            lines += ["", *_wrapped(f"{one.code}: {one.where}", f"{one.severity.upper():<10}", " " * 12)]
            lines += _wrapped(one.what, " " * 10, " " * 12)
            for number, line in enumerate(one.fix.splitlines()):
                lead = f"{'fix' if number == 0 else '':>8}  "
                # what can be pasted is never broken
                lines += [lead + line] if is_code(line) else _wrapped(line, lead, " " * 10)
        if any("ds" in one.fix for one in self.findings):
            lines += ["", f"In the fixes ds is {_what_ds_is(self)}, sc is simvp_climate."]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(topic)}</th>"
            f"<td style='text-align:left'>{'<br>'.join(html.escape(text) for text in texts)}</td></tr>"
            for topic, texts in _facts(self.summary)
        )
        found = "".join(
            f"<tr><td style='vertical-align:top;color:{_COLORS[one.severity]}'><b>{one.severity}</b></td>"
            f"<td style='text-align:left'><b>{html.escape(one.code)}</b>: {html.escape(one.where)}<br>"
            f"{html.escape(one.what)}<pre style='margin:0.3em 0'>{html.escape(one.fix)}</pre></td></tr>"
            for one in self.findings
        )
        return (
            f"<div><p><b>check</b>: {html.escape(_headline(self))}</p><table>{facts}</table><table>{found}</table>"
            f"<p>In the fixes <code>ds</code> is {html.escape(_what_ds_is(self))}, "
            "<code>sc</code> is simvp_climate.</p></div>"
        )


@dataclass
class Notes:
    """What was found so far."""

    findings: list[Finding] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)

    def add(self, severity: str, code: str, where: object, what: str, fix: str) -> None:
        self.findings.append(Finding(severity, code, str(where), what, fix))


def gathered(findings: Iterable[Finding], summary: Mapping[str, object]) -> Report:
    """Return the report, the gravest first; the same finding for several variables is one finding."""
    merged: dict[tuple, list[str]] = {}
    for one in findings:
        merged.setdefault((one.severity, one.code, one.what, one.fix), []).append(one.where)
    found = [Finding(key[0], key[1], listed(dict.fromkeys(places)), *key[2:]) for key, places in merged.items()]
    return Report(tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))), summary)


def described_axis(name: str, values: np.ndarray, ascending: np.ndarray) -> dict[str, object]:
    """Return the facts about an axis; the spacing is None where it is uneven."""
    steps = np.diff(ascending)
    even = len(steps) and np.ptp(steps) < 1e-2 * np.median(steps)
    spacing = round(float(np.median(steps)), 6) if even else None
    ends = {"first": float(values[0]), "last": float(values[-1])}
    return {"name": name, "size": len(values), **ends, "spacing": spacing}


def described_variable(
    source: str, name: str, data: xr.Variable, levels: tuple, meaning: Variable | None
) -> dict[str, object]:
    """Return the facts about a variable that is called `source` in the data and was asked for as `name`."""
    stored = data.encoding.get("dtype")
    dims = {str(dim): int(size) for dim, size in data.sizes.items()}
    facts = {"name": source, "asked_as": name, "dims": dims, "units": data.attrs.get("units")}
    facts |= {"dtype": str(data.dtype), "stored_dtype": None if stored is None else str(np.dtype(stored))}
    facts |= {"vocabulary": None if meaning is None else meaning.long_name}
    return facts if levels == (None,) else {**facts, "levels": list(levels)}


def series_of_forecasts(dataset: xr.Dataset, time: str | None) -> str:
    """Return the fix that makes a series of forecasts: one lead, at the times for which its values are valid."""
    init = next((name for name in ("init_time", time, "time") if name in dataset.coords), None)
    leads = [str(name) for name, coord in dataset.coords.items() if name == "lead_time" or coord.dtype.kind == "m"]
    lead = max(leads, key=lambda name: name in dataset.dims, default="lead_time")
    axis, lines = (init if init in dataset.dims else lead), []
    if axis == init and lead in dataset.dims:
        dataset, lines = dataset.isel({lead: 0}), [f"ds = ds.isel({lead}=0)"]
    extra = [name for name in dict.fromkeys((init, lead, "valid_time")) if name in dataset.coords and name != axis]
    valid = f'(ds["{init}"] + ds["{lead}"])'  # only durations can be added
    known = init is not None and lead in dataset.coords and dataset[lead].dtype.kind == "m"
    if "valid_time" in extra and dataset["valid_time"].dims == (axis,):
        valid, known = 'ds["valid_time"]', True
    lines += [f"ds = ds.assign_coords({axis}={valid}.values)"] if known else []
    lines += [f"ds = ds.drop_vars({json.dumps(extra)})"] if extra else []
    lines += [f'ds = ds.rename({axis}="time")'] if axis != "time" else []
    return "\n".join(lines if known else [*lines, "Then add the lead to the times: nothing in the data says it"])


def is_code(line: str) -> bool:
    """Return whether a line is a command or Python, to be pasted as it is."""
    if line.startswith("cdo "):
        return True
    try:
        compile(line, "fix", "exec")
    except SyntaxError:
        return False
    return True


def listed(names: Iterable) -> str:
    """Return the first eight of some names as words."""
    names = [str(name) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def sizes(chunks: Mapping[str, int]) -> str:
    """Return the sizes of dimensions as words."""
    return " x ".join(f"{size} {dim}" for dim, size in chunks.items())


def in_bytes(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def when(time: object) -> str:
    """Return a time to the minute, without midnight."""
    return str(time)[:16].removesuffix(" 00:00")


def short(error: Exception) -> str:
    """Return an error on one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 600, placeholder="...")


def split_error(error: Exception, otherwise: str = "Mend it as said above") -> tuple[str, str]:
    """Return an error of this package as what is wrong and the way out, which is its last sentence."""
    what, dot, way_out = str(error).rpartition(". ")
    return (what, way_out) if dot else (str(error), otherwise)


def _headline(report: Report) -> str:
    counts = [sum(one.severity == severity for one in report.findings) for severity in SEVERITIES]
    words = [f"{n} {severity}{'' if n == 1 else 's'}" for n, severity in zip(counts, SEVERITIES, strict=True) if n]
    looked, count = report.summary.get("sampled"), report.summary.get("time", {}).get("count")
    part = f" in {looked} of {count} states; the others were not looked at" if looked and looked < count else ""
    return (", ".join(words) or "nothing found") + part


def _what_ds_is(report: Report) -> str:
    if report.summary.get("source") == GIVEN:
        return "the Dataset that was checked"
    if not report.summary.get("joined"):
        return "what xarray opens at the path"
    names = [one["name"] for one in report.summary.get("variables", ())]
    return f"sc.open_dataset(path, {json.dumps(names) if names else '[...]'})"


def _wrapped(text: str, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


def _facts(summary: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """Return the facts as lines under headings."""
    writers = {
        "source": ("data", lambda source: [source]),
        "variables": ("variables", lambda variables: [_variable_words(one) for one in variables]),
        "left_out": ("left out", lambda names: [f"{listed(names)} (no time, or not on the grid)"]),
        "grid": ("grid", _grid_words),
        "time": ("time", _time_words),
        "missing": ("missing", _missing_words),
        "layout": ("layout", _layout_words),
        "memory": ("memory", _memory_words),
        "windows": ("windows", _window_words),
    }
    return [(topic, write(summary[key])) for key, (topic, write) in writers.items() if summary.get(key)]


def _variable_words(one: Mapping[str, object]) -> str:
    name = one["name"] if one["asked_as"] == one["name"] else f"{one['asked_as']} (in the file: {one['name']})"
    dtype = one["dtype"]
    if one["stored_dtype"] not in (None, dtype):
        dtype += f" stored as {one['stored_dtype']}"
    units = one["units"] if one["units"] is not None else "no units"
    known = one["vocabulary"] or "not in the vocabulary"
    if one.get("levels"):
        known += " at " + ", ".join(f"{level:g}" for level in one["levels"]) + " hPa"
    return f"{name}: {sizes(one['dims'])}; {dtype}; {units}; {known}"


def _grid_words(grid: Mapping[str, Mapping]) -> list[str]:
    latitude, longitude = grid["latitude"], grid["longitude"]
    order = "descending" if latitude["descending"] else "ascending"
    poles = " and ".join(latitude["rows_at_poles"])
    kind = "global" if longitude["global"] else "regional"
    kind += ", across Greenwich" if longitude["across_greenwich"] else ""
    return [
        f"{latitude['name']}: {latitude['size']} rows from {latitude['first']:g} to {latitude['last']:g} ({order}), "
        f"{_every(latitude['spacing'])}; {f'rows at the {poles} pole' if poles else 'no row at a pole'}",
        f"{longitude['name']}: {longitude['size']} columns from {longitude['first']:g} to {longitude['last']:g}, "
        f"{_every(longitude['spacing'])}; {kind}",
    ]


def _every(spacing: float | None) -> str:
    return f"every {spacing:g} degrees" if spacing else "unevenly spaced"


def _time_words(time: Mapping[str, object]) -> list[str]:
    calendar = f"{time['calendar']} calendar" + (" (cftime)" if time["cftime"] else "")
    gaps = {0: "no gaps", 1: "1 gap"}.get(time["gaps"], f"{time['gaps']} gaps")
    return [
        f"{time['name']}: {time['count']} times from {time['first']} to {time['last']}, step {time['step']}; "
        f"{calendar}; {gaps}"
    ]


def _missing_words(shares: Mapping[str, float]) -> list[str]:
    some = [f"{name} {100 * share:.3g} %" for name, share in shares.items() if share]
    return [f"{', '.join(some) or 'no value'} (of the sample)"]


def _layout_words(layout: Mapping[str, Mapping]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for name, one in layout.items():
        words = f"chunks {sizes(one['stored'])}" if one["stored"] else "no chunks known"
        if "dask" in one:
            words += f"; dask chunks {sizes(one['dask'])}"
        if "chunk_bytes" in one:
            words += (
                f" ({in_bytes(one['chunk_bytes'])}); one window decodes {one['window_amplification']:.3g} x its size, "
                f"an epoch in order {one['epoch_amplification']:.3g} x the data ({in_bytes(one['epoch_bytes'])})"
            )
        lines.setdefault(words, []).append(name)
    return [f"{listed(names)}: {words}" for words, names in lines.items()]


def _memory_words(memory: Mapping[str, int | None]) -> list[str]:
    free = "" if memory["free_bytes"] is None else f"; {in_bytes(memory['free_bytes'])} are free"
    return [f"all states take {in_bytes(memory['states_bytes'])} as float32{free}"]


def _window_words(windows: Mapping[str, object]) -> list[str]:
    lengths = f"{windows['history']} states in and {windows['horizon']} out, {windows['step']} apart"
    splits = [f"{name} {count}" for name, count in windows["count"].items() if name != "all"]
    return [f"{windows['count']['all']} of {lengths}" + (f"; by split: {', '.join(splits)}" if splits else "")]
