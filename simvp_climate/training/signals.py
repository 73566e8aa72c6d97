"""Signals that ask a run to stop: it finishes its step, saves, and says how to go on."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# of the process that SIGTERM or SIGUSR1 stopped: "try again later", so that a batch script can put the job back
STATUS = os.EX_TEMPFAIL  # 75
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Whether a signal asked the run to stop.

    Attributes
    ----------
    asked
        The signal, or None.
    patient
        Whether somebody looks at `asked` every step; without, a signal stops the run where it is.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.patient = False

    def handle(self, number: int, frame: object) -> None:
        """Note a signal; a second Ctrl-C does not wait for the step to end."""
        again = self.asked is not None and number == signal.SIGINT
        self.asked = self.asked or signal.Signals(number)
        if again or not self.patient:
            self.leave("where it was; nothing new was saved. Run the same again to go on")

    def leave(self, words: str) -> NoReturn:
        """Say where the run stopped, and raise KeyboardInterrupt for Ctrl-C, SystemExit(75) for other signals."""
        by = self.asked.name if self.asked else "a signal that another process got,"
        print(f"training stopped by {by} {words}", file=sys.stderr, flush=True)
        if self.asked is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(STATUS)


@contextmanager
def watch() -> Iterator[Stop]:
    """Take SIGINT, SIGTERM and SIGUSR1 while the context lasts, if this is the main thread, where alone they arrive.

    The handlers from before are there again afterwards. A signal that nobody acted on stops the process at the end.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup and the like keep their word
            signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.asked is not None:
        stop.leave("when it was complete. Run the same again to go on from its result")
