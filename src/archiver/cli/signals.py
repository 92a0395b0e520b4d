"""How SIGINT, SIGTERM and a timeout end a command that must clean up."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from archiver.cli.failure_report import report_failure
from archiver.client.failures import TimedOut

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

REPEAT_S = 0.02
"""By then, the finalizer has ended."""

TIMER_MIN_S, TIMER_MAX_S = 0.001, 1e8
"""A timer of zero seconds never fires, and the system rejects very long ones: three years here."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end the block with the usual exit code: 130 or 143.

    The handler raises immediately, so it also interrupts a write to a pipe whose reader has
    stopped. asyncio's own handling of Ctrl-C does not. Python ignores what is raised while it runs
    a finalizer, so the signal is sent again then.
    """
    handled = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(each, _exit) for each in handled]
    hook = sys.unraisablehook

    def repeat(ignored: sys.UnraisableHookArgs) -> None:
        if isinstance(ignored.exc_value, _Stopped):
            threading.Timer(REPEAT_S, os.kill, (os.getpid(), ignored.exc_value.number)).start()
        else:
            hook(ignored)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in zip(handled, before):
            signal.signal(number, handler)


@contextmanager
def exit_after(seconds: float, message: str) -> Iterator[None]:
    """End the process with *message* and the exit code of TimedOut if the block takes longer.

    A signal ends it, because asyncio's deadlines cannot interrupt a write to a pipe, or the opening
    of a FIFO, that waits for a reader.
    """

    def exit_timed_out(_number: int, _frame: FrameType | None) -> None:
        report_failure(TimedOut(message))
        raise SystemExit(TimedOut.exit_code)

    before = signal.signal(signal.SIGALRM, exit_timed_out)
    signal.setitimer(signal.ITIMER_REAL, min(TIMER_MAX_S, max(TIMER_MIN_S, seconds)))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Stopped(SystemExit):
    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def _exit(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)
