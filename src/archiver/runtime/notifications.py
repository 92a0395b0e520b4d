"""Callbacks for events, and notifications of changes for waiters in this process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Subscribers(Generic[P]):
    """Callbacks for one kind of event, called in the order in which they were added."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[P, object]] = []

    def add(self, callback: Callable[P, object]) -> None:
        self._callbacks.append(callback)

    def notify(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for callback in self._callbacks:
            callback(*args, **kwargs)


class Listener:
    """Waits for notifications of one topic. They carry no content: read the current state again."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait(self, patience: timedelta) -> bool:
        """Return whether there was a notification since the last wait, or one within *patience*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed


class Notifications:
    """Delivers changes anywhere in the fleet by topic: the key hash of an archive, or of a rev.

    ``changes`` is called for every topic, before its listeners are notified; with None when any
    topic may have changed. Only topics with listeners are held.
    """

    def __init__(self) -> None:
        self.changes: Subscribers[[str | None]] = Subscribers()
        self._listeners: dict[str, set[Listener]] = {}

    @contextmanager
    def listen(self, topic: str) -> Iterator[Listener]:
        """Yield a listener for *topic*. Read the state after this call, to miss no change."""
        listener = Listener()
        self._listeners.setdefault(topic, set()).add(listener)
        try:
            yield listener
        finally:
            listeners = self._listeners[topic]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[topic]

    def publish(self, topic: str) -> None:
        self.changes.notify(topic)
        for listener in self._listeners.get(topic, ()):
            listener.notify()

    def publish_all(self) -> None:
        """Announce that any topic may have changed unnoticed."""
        self.changes.notify(None)
        for listener in chain.from_iterable(self._listeners.values()):
            listener.notify()
