"""How an attack ended.

refused: with a clear error; right; needless: refused though harmless; silent: a wrong result without an error; raw: an
unclear error; broken: the attack itself failed.
"""

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import simvp_climate

PACKAGE = Path(simvp_climate.__file__).parent
OUTCOMES = ("refused", "right", "needless", "silent", "raw")
# errors that a user understands; KeyError, AttributeError, IndexError, BadZipFile and their like are not among them
CLEAR = (
    ValueError,
    TypeError,
    OSError,
    FileExistsError,
    FileNotFoundError,
    OverflowError,
    ImportError,
    MemoryError,
    FloatingPointError,
)


@dataclass(frozen=True)
class Attack:
    """One attack and how it ended."""

    area: str
    description: str
    outcome: str
    detail: str = ""
    is_known: bool = False  # needless, for a reason that docs/reliability.md gives

    def __str__(self) -> str:
        return f"{self.area}: {self.description}: {self.outcome}. {self.detail}"


class LibraryError(Exception):
    """An error of another library, through which a user reads without this package: noticed, in that one's words."""


def judge(
    area: str,
    description: str,
    call: Callable,
    is_right: Callable[[object], bool | None],
    *,
    is_harmless: bool = False,
    may_be_refused: bool = False,
    names: Iterable[str] = (),
) -> Attack:
    """Run a call and return its outcome.

    `is_right` compares what the call returns with an independent reference; None means that no right result exists,
    so that whatever is returned is silently wrong. Harmless changes must not be refused, unless they `may_be_refused`.
    A clear error has one of the `names`, or a number.
    """
    try:
        result = call()
    except Exception as error:
        outcome = ("needless" if is_harmless else "refused") if is_clear(error, names) else "raw"
        return Attack(area, description, outcome, f"{type(error).__name__}: {str(error)[:300]}", may_be_refused)
    return Attack(area, description, "right" if is_right(result) else "silent")


def is_clear(error: BaseException, names: Iterable[str] = ()) -> bool:
    """Return whether this package raised the error itself, as a class that users understand, with value and fix."""
    if isinstance(error, LibraryError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    is_ours = type(error).__module__.startswith("simvp_climate.")  # older xarray raises it again, with the variable
    raised_here = is_ours or PACKAGE in Path(frames[-1].filename).parents
    is_plain = type(error) in CLEAR or is_ours
    text = str(error)
    is_named = re.search(r"\d|'", text) if not names else re.search(r"\d", text) or any(name in text for name in names)
    has_fix = re.search(r"[.:;] +\S| must ", text)  # a second sentence, or a rule that says what to do
    return raised_here and is_plain and len(text) >= 25 and bool(is_named) and bool(has_fix)


def count(attacks: list[Attack]) -> dict[str, Counter]:
    """Return the number of attacks of each outcome, by area."""
    counts: dict[str, Counter] = {}
    for attack in attacks:
        counts.setdefault(attack.area, Counter())[attack.outcome] += 1
    return counts


def table(attacks: list[Attack]) -> str:
    """Return a Markdown table of the number of attacks by area and outcome."""
    names = ("attacked", "tried", "refused clearly", "right", "refused though harmless", "silent", "raw")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for area, counts in count(attacks).items():
        numbers = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {area} | {counts.total()} | {numbers} |")
    return "\n".join(lines)


def failures(attacks: list[Attack]) -> str:
    """Return the attacks that ended badly, one a line."""
    bad = [attack for attack in attacks if attack.outcome not in ("refused", "right") and not attack.is_known]
    return "\n".join(map(str, bad))
