"""Signals that ask a run to stop: it finishes its step, saves, and prints how to resume."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# exit status after SIGTERM or SIGUSR1: "try again later", so that a batch script can requeue the job
STATUS = os.EX_TEMPFAIL  # 75
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Whether a signal asked the run to stop."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.patient = False  # True while the run checks `asked` after every step; else a signal stops it at once

    def handle(self, signum: int, frame: object) -> None:
        """Record a signal; stop at once if it is a second Ctrl-C, or the run does not check `asked` now."""
        repeated = self.asked is not None and signum == signal.SIGINT
        self.asked = self.asked or signal.Signals(signum)
        if repeated or not self.patient:
            self.leave("at once; nothing new was saved. Run the same again to resume")

    def leave(self, message: str) -> NoReturn:
        """Print where the run stopped, and raise KeyboardInterrupt for Ctrl-C, SystemExit(75) for other signals."""
        cause = self.asked.name if self.asked else "a signal that another process received,"
        print(f"training stopped by {cause} {message}", file=sys.stderr, flush=True)
        if self.asked is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(STATUS)


def exit_on_signals() -> None:
    """End this process with exit status 75 at SIGTERM or SIGUSR1, also before and after training.

    Call it where a script begins, so that a batch script can requeue the job. Handlers of others stay.
    """

    def leave(signum: int, frame: object) -> NoReturn:
        print(f"stopped by {signal.Signals(signum).name}. Run the same again to resume", file=sys.stderr, flush=True)
        raise SystemExit(STATUS)

    if threading.current_thread() is not threading.main_thread():
        return
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, leave)


@contextmanager
def watch() -> Iterator[Stop]:
    """Handle SIGINT, SIGTERM and SIGUSR1; a signal that came too late to stop the run stops the process afterwards."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup ignores signals on purpose
            signal.signal(signum, stop.handle)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
    if stop.asked is not None:
        stop.leave("when it was complete. Run the same again to get its result")
