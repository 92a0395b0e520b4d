"""Does the same with many items at a time, in threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from archiver.client.failures import CommandFailed

T = TypeVar("T")
R = TypeVar("R")

END_S = 3.0
"""How long threads may take to end after an interruption."""


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """An item with its ``result``, or with the ``failure``."""

    item: T
    result: R | None = None
    failure: CommandFailed | None = None


def do_together(
    items: Iterable[T], do: Callable[[T], R], *, jobs: int, cancel: Callable[[], None]
) -> Iterator[Done[T, R]]:
    """Yield each item as it ends. Any exception of *do* but CommandFailed is raised here.

    If the program is interrupted, *cancel* is called, after which the threads should end.
    """
    all_items = [*items]
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Done[T, R] | BaseException] = queue.SimpleQueue()
    for item in all_items:
        waiting.put(item)
    work = partial(_work, waiting, do, ended)
    threads = [threading.Thread(target=work, daemon=True) for _ in all_items[:jobs]]
    for thread in threads:
        thread.start()
    complete = False
    try:
        for _ in all_items:
            done = ended.get()
            if isinstance(done, BaseException):
                raise done
            yield done
        complete = True
    finally:
        if not complete:
            _end(threads, cancel)


def _work(
    waiting: queue.SimpleQueue[T],
    do: Callable[[T], R],
    ended: queue.SimpleQueue[Done[T, R] | BaseException],
) -> None:
    while True:
        try:
            item = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            ended.put(Done(item, result=do(item)))
        except CommandFailed as exc:
            ended.put(Done(item, failure=exc))
        except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
            ended.put(exc)


def _end(threads: Iterable[threading.Thread], cancel: Callable[[], None]) -> None:
    cancel()
    until = time.monotonic() + END_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
