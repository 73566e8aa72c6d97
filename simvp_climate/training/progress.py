"""What a run shows of its progress: a bar in a terminal and in Jupyter, elsewhere a line per epoch and per minute."""

import time
from pathlib import Path

from simvp_climate.data.progress import LINE_SECONDS, draws_bars, duration_text, print_line, progress_bar
from simvp_climate.training.loss import Loss


class TrainingProgress:
    """Show loss, validation errors, windows per second and the time left.

    `windows` is the number in an epoch, `trained` that of windows before this process started.
    """

    def __init__(
        self, epochs: int, windows: int, trained: int, loss_function: Loss, directory: Path | None, shown: bool
    ):
        self.epochs, self.windows, self.trained, self.loss_function = epochs, windows, trained, loss_function
        self.directory, self.initial = directory, trained
        self.lines = shown and not draws_bars()
        self.bar = progress_bar(epochs * windows, "windows", initial=trained, shown=shown and not self.lines)
        self.loss = ""  # the last one, as text
        self.started = self.printed = time.monotonic()

    def update(self, windows: int) -> None:
        """Count trained windows, and print a line if none was printed for a minute."""
        self.trained += windows
        if not self.lines:
            self.bar.update(windows)
        elif self.loss and time.monotonic() - self.printed >= LINE_SECONDS:
            epoch, rest = divmod(self.trained, self.windows)
            if rest:  # else the line of the epoch follows
                share = 100 * rest // self.windows
                self._print(f"epoch {epoch + 1} of {self.epochs}, {share} %: {self.loss}")

    def set_loss(self, loss: float, records: list[dict]) -> None:
        """Take over the last loss; a bar also shows the validation errors of the last epoch."""
        self.loss = f"loss {loss:.4g}"
        if not self.lines:
            errors = self._errors(records[-1]) if records else []
            self.bar.set_postfix_str(", ".join([self.loss, *errors]))

    def finish_epoch(self, record: dict) -> None:
        """Show the validation errors of an epoch and, in lines, its mean loss and where the state was saved."""
        texts = [f"loss {record['loss']:.4g}"]
        if not self.lines:
            self.bar.set_postfix_str(", ".join([*texts, *self._errors(record)]))
            return
        if "valid_loss" in record:
            texts.append(f"validation loss {record['valid_loss']:.4g}")
        saved = "" if self.directory is None else f", saved in {str(self.directory)!r}"
        self._print(f"epoch {record['epoch']} of {self.epochs}: {', '.join([*texts, *self._errors(record)])}", saved)

    def _print(self, text: str, end: str = "") -> None:
        self.printed = time.monotonic()
        speed = (self.trained - self.initial) / max(self.printed - self.started, 1e-9)
        remaining = self.epochs * self.windows - self.trained
        left = f", {duration_text(remaining / max(speed, 1e-9))} left" if remaining > 0 else ""
        print_line(f"{text}; {speed:.3g} windows/s{left}{end}")

    def _errors(self, record: dict) -> list[str]:
        """Return the validation errors of up to three channels at the last lead, as texts."""
        if "valid_loss" not in record:
            return []
        texts, columns = [], self.loss_function.columns
        last = max(lead for lead, _ in columns)
        for channel, units in enumerate(self.loss_function.units[:3]):
            name = columns[last, channel]
            label = name.removeprefix("valid_rmse_").replace("_", " ")
            texts.append(f"{label} {record[name]:.4g} {units}".strip())
        return texts

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *error: object) -> None:
        if not self.lines:
            self.bar.close()
