"""The feed: changes that processes of the fleet publish to each other, and do not store."""

from collections import defaultdict
from collections.abc import Callable

from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.jetstream.link import Link
from archiver.jetstream.translation import translated
from archiver.runtime.notifications import Notifications, Subscribers
from archiver.telemetry import log

FEED = "feed"

COPIES = "copies"
"""An archive has other copies than before. The payload is the SHA-256 of its bytes."""

FAILED = "failed"
"""A task failed for good. The payload has the reason."""

MOVED = "moved"
"""A rev names another node than before."""

FINISHED = "finished"
"""An archive was built for which a client may have waited. The payload has the duration."""

WAITING = "waiting"
"""A task was given back to the queue. The payload has its source, priority and delay."""

BREAKER = "breaker"
"""A circuit breaker was changed. The payload has the breaker."""

PROGRESS = "progress"
"""A task's state was written."""

Receive = Callable[[str, bytes], object]
"""Called with the key hash, or the hash of the rev, and the payload of an event."""


class Feed:
    """Publishes and receives events. ``gaps`` notifies when events may have been missed."""

    def __init__(self, *, link: Link, namespace: str) -> None:
        self.gaps = link.gaps
        self._link = link
        self._namespace = namespace
        self._events: defaultdict[str, Subscribers[[str, bytes]]] = defaultdict(Subscribers)
        self._broken: set[str] = set()
        link.subscriptions.add(self._subject("*", "*"), self._receive)

    async def publish(self, event: str, key_hash: str, payload: bytes = b"") -> None:
        """Publish a change that has been stored. At least this process receives it."""
        try:
            with translated("publish to the feed"):
                await self._link.client.publish(self._subject(event, key_hash), payload)
        except EngineUnavailable:
            self._events[event].notify(key_hash, payload)

    def subscribe(self, event: str, receive: Receive) -> None:
        """Call *receive* for each *event* from now on, after earlier subscribers."""

        def receive_safely(key_hash: str, payload: bytes) -> None:
            try:
                receive(key_hash, payload)
            except Exception:  # noqa: BLE001 - the other subscribers must receive it, too
                if event not in self._broken:  # the feed may bring many
                    self._broken.add(event)
                    log.exception("feed.broken", feed_event=event)

        self._events[event].add(receive_safely)

    async def _receive(self, message: Msg) -> None:
        event, key_hash = message.subject.split(".")[-2:]
        self._events[event].notify(key_hash, message.data)

    def _subject(self, event: str, key_hash: str) -> str:
        return f"{self._namespace}.feed.{event}.{key_hash}"


def relay(feed: Feed, notifications: Notifications) -> None:
    """Turn events of the feed into *notifications*.

    Call this after everything that caches has subscribed to the feed. A waiter that is notified
    reads again, and must not find what was cached before.
    """
    for event in (COPIES, FAILED, MOVED, PROGRESS):
        feed.subscribe(event, lambda key_hash, _payload: notifications.publish(key_hash))
    feed.gaps.add(notifications.publish_all)
