"""Notifications of changes anywhere in the fleet, for waiters in this process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

OnChange = Callable[[str | None], None]
"""Called with the topic of a change; with None when any topic may have changed."""


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
    """Delivers notifications by topic: the key hash of an archive, or the hash of a rev.

    It holds only the topics that have listeners.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        self._subscribers: list[OnChange] = []

    def subscribe(self, on_change: OnChange) -> None:
        """Call *on_change* for every topic, before its listeners are notified."""
        self._subscribers.append(on_change)

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
        """Announce a change of *topic*."""
        for on_change in self._subscribers:
            on_change(topic)
        for listener in self._listeners.get(topic, ()):
            listener.notify()

    def publish_all(self) -> None:
        """Announce that any topic may have changed unnoticed."""
        for on_change in self._subscribers:
            on_change(None)
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.notify()
