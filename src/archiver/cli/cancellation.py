"""Cancels a command's task on SIGINT and SIGTERM."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from archiver.cli.signals import STOP_SIGNALS


@contextmanager
def cancelled_by_signals(*, second_kills: bool = False) -> Iterator[None]:
    """Have a signal cancel this task, so that it gives back what it holds before it ends.

    ``interruptible`` ends all tasks at once, connections included. A second signal does so here,
    too, and a task that is blocked in a write does not notice the first one. If the *second_kills*,
    it ends the process without any cleanup, which is for tasks that complete what they do.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    received: list[int] = []

    def stop(number: int) -> None:
        if received and second_kills:
            os._exit(128 + number)
        if received or task is None:
            raise SystemExit(128 + number)
        received.append(number)
        task.cancel()

    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    handled = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
    for each in handled:
        loop.add_signal_handler(each, stop, each)
    try:
        yield
    except asyncio.CancelledError:
        if not received:
            raise
        raise SystemExit(128 + received[0]) from None
    finally:
        for each in handled:
            loop.remove_signal_handler(each)  # and has the default one, not that of before
            signal.signal(each, before[each])
