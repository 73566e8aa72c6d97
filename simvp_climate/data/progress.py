"""Progress: bars from tqdm in a terminal and in Jupyter, elsewhere lines of text, at most one a minute."""

import sys
import time
import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # without ipywidgets tqdm falls back to text in Jupyter, and warns when it is imported
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

LINE_SECONDS = 60.0  # between two lines


def progress_bar(
    total: int, unit: str, description: str = "", *, initial: int = 0, shown: bool = True
) -> "tqdm | ProgressLines":
    """Return a bar, or lines where a bar would leave carriage returns in a log; both have `update` and `n`.

    `unit` is the plural of what is counted, `initial` the number done before.
    """
    if shown and not draws_bars():
        return ProgressLines(total, unit, description, initial)
    return tqdm(total=total, unit=f" {unit}", desc=description or None, initial=initial, disable=not shown)


def draws_bars() -> bool:
    """Return whether standard error is a terminal or a Jupyter notebook."""
    if sys.stderr.isatty():
        return True
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class ProgressLines:
    """Print at most once a minute how much is done, and that all is, if that took longer than a minute."""

    def __init__(self, total: int, unit: str, description: str = "", initial: int = 0):
        self.total, self.unit, self.initial, self.n = total, unit, initial, initial
        self.prefix = f"{description}: " if description else ""
        self.started = self.printed = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count what was done, and print a line if one is due."""
        self.n += count
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS and not (self.n == self.total and self.printed > self.started):
            return
        self.printed = now
        speed = (self.n - self.initial) / max(now - self.started, 1e-9)
        left = "" if self.n >= self.total else f", {duration_text((self.total - self.n) / max(speed, 1e-9))} left"
        print_line(f"{self.prefix}{self.n} of {self.total} {self.unit}, {speed:.3g} {self.unit}/s{left}")

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def print_line(text: str) -> None:
    """Print a line to standard error at once, also into a file."""
    print(text, file=sys.stderr, flush=True)


def duration_text(seconds: float) -> str:
    """Return a duration as text to read: "42 s", "12 min", "3 h 20 min" or "2 d 5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
