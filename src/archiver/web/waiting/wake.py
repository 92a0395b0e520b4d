"""Pauses of requests: until something changes, time is up, or the client leaves."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import TypeAlias

from starlette.types import Receive


class Wake(Enum):
    """Why a pause ended."""

    CHANGED = auto()
    TIMEOUT = auto()
    CLIENT_LEFT = auto()


Sleepers: TypeAlias = set[asyncio.Future[Wake]]
"""Pauses that one change ends. One future for each, because there may be thousands."""

Departure: TypeAlias = asyncio.Task[None]
"""Ends when the client has left."""


@contextmanager
def departure_of(receive: Receive) -> Iterator[Departure]:
    """Yield a task that ends when the client leaves. Nothing else may call *receive*.

    A request uses one for all of its pauses: after a cancelled ``receive``, granian reports an
    ``http.disconnect`` whether or not the client has left.
    """
    task = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        yield task
    finally:
        task.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def pause(sleepers: Sleepers, timeout_s: float, departure: Departure) -> Wake:
    """Return when *sleepers* are woken, when the time is up, or when the client has left."""
    loop = asyncio.get_running_loop()
    sleeper: asyncio.Future[Wake] = loop.create_future()
    timer = loop.call_later(timeout_s, _wake, sleeper, Wake.TIMEOUT)

    def leave(_: Departure) -> None:
        _wake(sleeper, Wake.CLIENT_LEFT)

    departure.add_done_callback(leave)
    sleepers.add(sleeper)
    try:
        return await sleeper
    finally:
        sleepers.discard(sleeper)
        timer.cancel()
        departure.remove_done_callback(leave)


def wake_all(sleepers: Sleepers, reason: Wake = Wake.CHANGED) -> None:
    for sleeper in sleepers:
        _wake(sleeper, reason)


def _wake(sleeper: asyncio.Future[Wake], reason: Wake) -> None:
    if not sleeper.done():
        sleeper.set_result(reason)
