"""What has just happened anywhere in the fleet, for whoever in this process waits for it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

Seen = Callable[[str | None], None]
"""Told the topic of each piece of news, or None when there may have been any."""


class Listener:
    """Rung by news of one topic. Whoever waits looks again, since news says nothing but "look"."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, patience: timedelta) -> bool:
        """Return at the next ring, or at once if there was one since the last wait.

        Tells whether it was rung before *patience* was over.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung


class Notifications:
    """Rings the bells of a topic: the digest of an archive, or of a rev that may move.

    Holds nothing but what somebody waits for.
    """

    def __init__(self) -> None:
        self._bells: dict[str, set[Listener]] = {}
        self._readers: list[Seen] = []

    def subscribe(self, seen: Seen) -> None:
        """Call *seen* with every topic there is news of, before any bell is rung."""
        self._readers.append(seen)

    @contextmanager
    def bell(self, topic: str) -> Iterator[Listener]:
        """Yield a bell that news of *topic* rings. Hang it up before you look for yourself."""
        bell = Listener()
        self._bells.setdefault(topic, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._bells[topic]
            bells.discard(bell)
            if not bells:
                del self._bells[topic]

    def tell(self, topic: str) -> None:
        """Let everyone know that something has happened to what *topic* stands for."""
        for seen in self._readers:
            seen(topic)
        for bell in self._bells.get(topic, ()):
            bell.ring()

    def tell_all(self) -> None:
        """Let everyone know that anything may have happened, unseen."""
        for seen in self._readers:
            seen(None)
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
