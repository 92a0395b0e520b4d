"""What SIGINT, SIGTERM and the end of its time do to a command that has something to tidy up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from archiver.cli.failures import TookTooLong

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

SHORTEST_S, LONGEST_S = 0.001, 1e8
"""A timer of no seconds never ends, and the system refuses one of too many: this is three years."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end the block with the exit code that shells use for it: 130 or 143.

    The handler raises at once, so it also interrupts a write to a pipe whose reader has stopped,
    which asyncio's own handling of Ctrl-C does not.
    """
    heeded = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(each, _exit) for each in heeded]
    try:
        yield
    finally:
        for number, handler in zip(heeded, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def ending_after(seconds: float, why: str) -> Iterator[None]:
    """Let the block end after so many *seconds* with *why* and the exit code of TookTooLong.

    The end comes from a signal, so it also interrupts what no deadline of asyncio's does: a write
    to a pipe, or the opening of a FIFO, that waits for a reader.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        click.echo(f"Error: {why}", err=True)
        raise SystemExit(TookTooLong.exit_code)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, min(LONGEST_S, max(SHORTEST_S, seconds)))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
