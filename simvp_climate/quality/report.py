"""The report of `check`: findings and facts as plain values, as text for a terminal and as HTML for Jupyter."""

import html
import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from simvp_climate.data.html_table import html_table
from simvp_climate.data.windows import count_text

SEVERITIES = ("error", "warning", "note")
IN_MEMORY = "a Dataset"  # the source in the summary where no path was given
_WIDTH = 100
_COLORS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#3b6ea5"}


@dataclass(frozen=True)
class Finding:
    """One broken rule, or one fact worth knowing.

    Attributes
    ----------
    severity
        "error": training would refuse the data, or be wrong. "warning": training works, but is slow or less accurate.
        "note": handled by the package.
    code, subject
        The name of the rule for scripts, such as "time-gaps", and the variable or coordinate.
    message
        The rule and the values that break it.
    fix
        Python or a command to paste, or what to do; `ds` is the Dataset checked, `sc` this package.
    """

    severity: str
    code: str
    subject: str
    message: str
    fix: str


@dataclass(frozen=True, repr=False)
class Report:
    """The findings of `check`: readable when printed, and as a table in Jupyter.

    Attributes
    ----------
    findings
        Errors first, then warnings, then notes.
    summary
        Facts as plain values (text, numbers, lists, dicts): source, variables, grid, time, missing, layout,
        memory, windows. Facts that could not be determined are absent.
    """

    findings: tuple[Finding, ...]
    summary: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"check: {_headline(self)}", ""]
        for topic, texts in _properties(self.summary):
            for index, text in enumerate(texts):
                lines += _wrap(text, f"{'' if index else topic:<10}", " " * 12)
        for finding in self.findings:
            title = f"{finding.code}: {finding.subject}"
            lines += ["", *_wrap(title, f"{finding.severity.upper():<10}", " " * 12)]
            lines += _wrap(finding.message, " " * 10, " " * 12)
            for index, line in enumerate(finding.fix.splitlines()):
                indent = f"{'' if index else 'fix':>8}  "
                # code to paste is never broken
                lines += [indent + line] if is_code(line) else _wrap(line, indent, " " * 10)
        if any("ds" in finding.fix for finding in self.findings):
            lines += ["", f"In the fixes ds is {_meaning_of_ds(self)}, sc is simvp_climate."]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        findings = "".join(
            f"<tr><td style='vertical-align:top;color:{_COLORS[finding.severity]}'><b>{finding.severity}</b></td>"
            f"<td style='text-align:left'><b>{html.escape(finding.code)}</b>: {html.escape(finding.subject)}<br>"
            f"{html.escape(finding.message)}<pre style='margin:0.3em 0'>{html.escape(finding.fix)}</pre></td></tr>"
            for finding in self.findings
        )
        facts = html_table(f"check: {_headline(self)}", dict(_properties(self.summary)))
        if not findings:
            return facts
        meaning = f"<code>ds</code> is {html.escape(_meaning_of_ds(self))}, <code>sc</code> is simvp_climate."
        end = f"<p>In the fixes {meaning}</p>" if any("ds" in finding.fix for finding in self.findings) else ""
        return f"{facts}<div><table>{findings}</table>{end}</div>"


@dataclass
class Draft:
    """A report that is being written."""

    findings: list[Finding] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)

    def add(self, severity: str, code: str, subject: object, message: str, fix: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, code, str(subject), message, fix))

    def add_all(self, findings: Iterable[Finding | None]) -> None:
        """Add findings; None stands for a rule that holds."""
        self.findings += [finding for finding in findings if finding is not None]

    def report(self) -> Report:
        """Return the report, errors first; the same finding for several variables becomes one."""
        merged: dict[tuple, list[str]] = {}
        for each in self.findings:
            merged.setdefault((each.severity, each.code, each.message, each.fix), []).append(each.subject)
        findings = [
            Finding(severity, code, list_names(dict.fromkeys(subjects)), message, fix)
            for (severity, code, message, fix), subjects in merged.items()
        ]
        return Report(tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))), self.summary)


def axis_properties(name: str, values: np.ndarray, ascending: np.ndarray) -> dict[str, object]:
    """Return the properties of an axis; the spacing is None where it is uneven."""
    steps = np.diff(ascending)
    even = len(steps) and np.ptp(steps) < 1e-2 * np.median(steps)
    spacing = round(float(np.median(steps)), 6) if even else None
    ends = {"first": float(values[0]), "last": float(values[-1])}
    return {"name": name, "size": len(values), **ends, "spacing": spacing}


def fix_for_forecasts(dataset: xr.Dataset, time: str | None) -> str:
    """Return the fix that turns forecasts into a time series: one lead, at its valid times."""
    init = next((name for name in ("init_time", time, "time") if name in dataset.coords), None)
    leads = [str(name) for name, coord in dataset.coords.items() if name == "lead_time" or coord.dtype.kind == "m"]
    lead = max(leads, key=lambda name: name in dataset.dims, default="lead_time")
    axis, lines = (init if init in dataset.dims else lead), []
    if axis == init and lead in dataset.dims:
        dataset, lines = dataset.isel({lead: 0}), [f"ds = ds.isel({lead}=0)"]
    extra = [name for name in dict.fromkeys((init, lead, "valid_time")) if name in dataset.coords and name != axis]
    valid = f'(ds["{init}"] + ds["{lead}"])'  # only durations can be added
    is_known = init is not None and lead in dataset.coords and dataset[lead].dtype.kind == "m"
    if "valid_time" in extra and dataset["valid_time"].dims == (axis,):
        valid, is_known = 'ds["valid_time"]', True
    lines += [f"ds = ds.assign_coords({axis}={valid}.values)"] if is_known else []
    lines += [f"ds = ds.drop_vars({json.dumps(extra)})"] if extra else []
    lines += [f'ds = ds.rename({axis}="time")'] if axis != "time" else []
    return "\n".join(lines if is_known else [*lines, "Then add the lead to the times: the data do not contain it"])


def is_code(line: str) -> bool:
    """Return whether a line is a command or Python, to be pasted as it is."""
    try:
        return line.startswith("cdo ") or bool(compile(line, "fix", "exec"))
    except SyntaxError:
        return False


def list_names(names: Iterable) -> str:
    """Return the first eight names as text, and how many follow."""
    names = [str(name) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def format_sizes(sizes: Mapping[str, int]) -> str:
    """Return the sizes of dimensions as text."""
    return " x ".join(f"{size} {dim}" for dim, size in sizes.items())


def format_bytes(count: float) -> str:
    """Return a number of bytes with a suitable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def format_time(time: object) -> str:
    """Return a time without seconds where these are zero, and without midnight."""
    return str(time)[:19].removesuffix(":00").removesuffix(" 00:00")


def format_error(error: Exception) -> str:
    """Return an error on one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 600, placeholder="...")


def split_error(error: Exception, default_fix: str = "Correct it as described above") -> tuple[str, str]:
    """Return the message of an error of this package and its fix, which is its last sentence."""
    message, dot, fix = str(error).rpartition(". ")
    return (message, fix) if dot else (str(error), default_fix)


def _headline(report: Report) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    texts = [f"{n} {severity}{'s' * (n > 1)}" for severity in SEVERITIES if (n := counts[severity])]
    sampled, count = report.summary.get("sampled"), report.summary.get("time", {}).get("count")
    partial = f" in {sampled} of {count} states; the others were not examined" if sampled and sampled < count else ""
    return (", ".join(texts) or "nothing found") + partial


def _meaning_of_ds(report: Report) -> str:
    if report.summary.get("source") == IN_MEMORY:
        return "the Dataset that was checked"
    if not report.summary.get("joined"):
        return "the Dataset that xarray opens at the path"
    names = [variable["name"] for variable in report.summary.get("variables", ())]
    return f"sc.open_dataset(path, {json.dumps(names) if names else '[...]'})"


def _wrap(text: str, first: str, other: str) -> list[str]:
    indents = {"initial_indent": first, "subsequent_indent": other}
    return textwrap.wrap(text, _WIDTH, **indents, break_long_words=False, break_on_hyphens=False)


def _properties(summary: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the headings of the summary, each with its lines."""
    if source := summary.get("source"):
        yield "data", [source]
    if variables := summary.get("variables"):
        yield "variables", [_variable_line(variable) for variable in variables]
    if names := summary.get("left_out"):
        yield "left out", [f"{list_names(names)} (no time, or not on the grid)"]
    if grid := summary.get("grid"):
        yield "grid", _grid_lines(**grid)
    if time := summary.get("time"):
        calendar = f"{time['calendar']} calendar" + (" (cftime)" if time["cftime"] else "")
        gaps = {0: "no gaps", 1: "1 gap"}.get(time["gaps"], f"{time['gaps']} gaps")
        line = f"{time['name']}: {count_text(time['count'], 'times')} from {time['first']} to {time['last']}, "
        line += f"step {time['step']}"
        yield "time", [f"{line}; {calendar}; {gaps}"]
    if shares := summary.get("missing"):
        incomplete = [f"{name} {100 * share:.3g} %" for name, share in shares.items() if share]
        yield "missing", [f"{', '.join(incomplete) or 'no value'} (of the sample)"]
    if layout := summary.get("layout"):
        yield "layout", _layout_lines(layout)
    if memory := summary.get("memory"):
        free = "" if memory["free_bytes"] is None else f"; {format_bytes(memory['free_bytes'])} are free"
        yield "memory", [f"all states take {format_bytes(memory['states_bytes'])} as float32{free}"]
    if windows := summary.get("windows"):
        lengths = f"{count_text(windows['history'], 'states')} in and {windows['horizon']} out, {windows['step']} apart"
        splits = ", ".join(f"{name} {count}" for name, count in windows["count"].items() if name != "all")
        yield "windows", [f"{windows['count']['all']} of {lengths}" + (f"; by split: {splits}" if splits else "")]


def _variable_line(entry: Mapping[str, Any]) -> str:
    is_renamed, stored = entry["asked_as"] != entry["name"], entry["stored_dtype"]
    name = f"{entry['asked_as']} (in the file: {entry['name']})" if is_renamed else entry["name"]
    dtype = entry["dtype"] + (f" stored as {stored}" if stored not in (None, entry["dtype"]) else "")
    units = "no units" if entry["units"] is None else entry["units"]
    known = entry["vocabulary"] or "not in the vocabulary"
    if entry.get("levels"):
        known += " at " + ", ".join(f"{level:g}" for level in entry["levels"]) + " hPa"
    return f"{name}: {format_sizes(entry['dims'])}; {dtype}; {units}; {known}"


def _grid_lines(latitude: Mapping[str, Any], longitude: Mapping[str, Any]) -> list[str]:
    poles = " and ".join(latitude["rows_at_poles"])
    direction, lines = " (descending)" if latitude["descending"] else " (ascending)", []
    for axis, kind, order in ((latitude, "rows", direction), (longitude, "columns", "")):
        spacing = f"every {axis['spacing']:g} degrees" if axis["spacing"] else "unevenly spaced"
        ends = f"from {axis['first']:g} to {axis['last']:g}{order}"
        lines.append(f"{axis['name']}: {axis['size']} {kind} {ends}, {spacing}")
    extent = "global" if longitude["global"] else "regional"
    extent += ", across Greenwich" if longitude["across_greenwich"] else ""
    return [f"{lines[0]}; {f'rows at the {poles} pole' if poles else 'no row at a pole'}", f"{lines[1]}; {extent}"]


def _layout_lines(layout: Mapping[str, Mapping]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for name, entry in layout.items():
        line = f"chunks {format_sizes(entry['stored'])}" if entry["stored"] else "no chunks known"
        if "checksums" in entry:
            line += ", with checksums" if entry["checksums"] else ", without checksums"
        if "dask" in entry:
            line += f"; dask chunks {format_sizes(entry['dask'])}"
        if "chunk_bytes" in entry:
            line += f" ({format_bytes(entry['chunk_bytes'])}); one window decodes {entry['window_amplification']:.3g} x"
            line += f" its size, an epoch in order {entry['epoch_amplification']:.3g} x the data"
            line += f" ({format_bytes(entry['epoch_bytes'])})"
        lines.setdefault(line, []).append(name)
    return [f"{list_names(names)}: {line}" for line, names in lines.items()]
