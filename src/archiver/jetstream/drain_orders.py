"""Orders to one worker to drain, and its answers, which name what it still runs.

Each worker has a subject of its own, with a hash of its name: a name may have any characters. The
server says at once if no process listens there.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta

import msgspec
import nats.errors
from nats.aio.msg import Msg

from archiver.jetstream.link import Link
from archiver.jetstream.translation import translated
from archiver.jetstream.worker_reports import parse_report
from archiver.ports.queue import WorkerReport

DRAIN = b"drain"
"""An order. Any other payload only asks."""

ANSWER_TIMEOUT = timedelta(seconds=2)

NAME_DIGITS = 32

Obey = Callable[[bool], WorkerReport]
"""Begins to drain if the argument is true, and returns the report of this worker, without
regions."""


class DrainOrders:
    """Sends orders to workers. In a worker, *obey* is called for each that *name* receives."""

    def __init__(
        self, *, link: Link, namespace: str, name: str = "", obey: Obey | None = None
    ) -> None:
        self._link = link
        self._namespace = namespace
        if obey:

            async def respond(message: Msg) -> None:
                await message.respond(msgspec.json.encode(obey(message.data == DRAIN)))

            link.subscriptions.add(self._subject(name), respond)

    async def drain(self, name: str) -> WorkerReport | None:
        return await self._request(name, DRAIN)

    async def look_up(self, name: str) -> WorkerReport | None:
        return await self._request(name, b"")

    async def _request(self, name: str, order: bytes) -> WorkerReport | None:
        """Implements ``ports.queue.Fleet``, for both."""
        with translated("ask a worker"):
            try:
                answer = await self._link.client.request(
                    self._subject(name), order, timeout=ANSWER_TIMEOUT.total_seconds()
                )
            except nats.errors.NoRespondersError:
                return None
            except nats.errors.TimeoutError:
                if not self._link.is_up:
                    raise
                return WorkerReport(name=name, regions={})
        return parse_report(answer.data)

    def _subject(self, name: str) -> str:
        token = hashlib.sha256(name.encode()).hexdigest()[:NAME_DIGITS]
        return f"{self._namespace}.ask.worker.{token}"
