"""How an attack ended: refused clearly, right, silent (a wrong result without an error), or raw (an unclear error)."""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import simvp_climate

PACKAGE = Path(simvp_climate.__file__).parent
OUTCOMES = ("refused", "right", "silent", "raw")
# errors that a user understands; KeyError, AttributeError, IndexError, BadZipFile and their like are not among them
CLEAR = (ValueError, TypeError, OSError, FileExistsError, FileNotFoundError, OverflowError, ImportError, MemoryError)


@dataclass(frozen=True)
class Attack:
    """One attack and how it ended."""

    area: str
    description: str
    outcome: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.area}: {self.description}: {self.outcome}. {self.detail}"


class LibraryError(Exception):
    """An error of another library, through which a user reads without this package: noticed, in that one's words."""


def judge(area: str, description: str, call: Callable, is_right: Callable[[object], bool | None]) -> Attack:
    """Run a call and return its outcome.

    `is_right` compares what the call returns with an independent reference; None means that no right result exists,
    so that whatever is returned is silently wrong.
    """
    try:
        result = call()
    except Exception as error:
        outcome = "refused" if is_clear(error) else "raw"
        return Attack(area, description, outcome, f"{type(error).__name__}: {str(error)[:300]}")
    return Attack(area, description, "right" if is_right(result) else "silent")


def is_clear(error: BaseException) -> bool:
    """Return whether this package raised the error itself, as a class that users understand, with a rule and a fix."""
    if isinstance(error, LibraryError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    raised_here = PACKAGE in Path(frames[-1].filename).parents
    # two sentences: the value with the rule, and the fix
    is_plain = type(error) in CLEAR or type(error).__module__.startswith("simvp_climate.")
    return raised_here and is_plain and len(str(error)) >= 25


def count(attacks: list[Attack]) -> dict[str, Counter]:
    """Return the number of attacks of each outcome, by area."""
    counts: dict[str, Counter] = {}
    for attack in attacks:
        counts.setdefault(attack.area, Counter())[attack.outcome] += 1
    return counts


def table(attacks: list[Attack]) -> str:
    """Return a Markdown table: tried, refused clearly, right, silent and raw, by area."""
    lines = ["| attacked | tried | refused clearly | right | silent | raw |", "|---|---|---|---|---|---|"]
    for area, counts in count(attacks).items():
        numbers = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {area} | {counts.total()} | {numbers} |")
    return "\n".join(lines)


def failures(attacks: list[Attack]) -> str:
    """Return the attacks that ended silent or raw, one a line."""
    return "\n".join(str(attack) for attack in attacks if attack.outcome in ("silent", "raw"))
