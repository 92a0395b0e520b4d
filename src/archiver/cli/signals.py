"""What SIGINT and SIGTERM do to a command that has something to tidy up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
