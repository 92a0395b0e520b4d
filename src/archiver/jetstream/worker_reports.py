"""Reports of the running workers: one request to all of them, and each answers for itself.

A worker acknowledges a request at once and answers later. From the acknowledgements the sender
knows how many answers to wait for.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec
from nats.aio.msg import Msg

from archiver import __version__
from archiver.jetstream.link import Link
from archiver.jetstream.translation import translated
from archiver.model import Region
from archiver.ports.queue import WorkerReport
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.worker.activity import Activity

ACKNOWLEDGEMENT = b"here"

ACKNOWLEDGED_WITHIN = timedelta(seconds=0.2)
"""How long the other workers may take to acknowledge after the first one has."""

ANSWER_TIMEOUT = timedelta(seconds=5)
"""A worker that has to ask a silent region answers after 3 s."""

REPORT_TTL = timedelta(seconds=2)
"""Many web processes may ask. A silent region is not waited for once for each of them."""

Answer = Callable[[], Awaitable[bytes]]
"""Returns the encoded report of this worker within ANSWER_TIMEOUT."""

_decode = msgspec.json.Decoder(WorkerReport).decode


class Reporter:
    """Reports on this worker, and has it drain."""

    def __init__(self, *, storage: Storage, activity: Activity | None = None) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._storage = storage
        self._activity = activity or Activity()
        self._last: BoundedCache[None, bytes] = BoundedCache(ttl=REPORT_TTL, max_bytes=MEGABYTE)

    async def answer(self) -> bytes:
        regions = self._last.get(None)
        if regions is None:
            answers = await self._storage.check_writable()
            reasons = {region: error.reason if error else None for region, error in answers.items()}
            regions = msgspec.json.encode(reasons)
            self._last.put(None, regions)
        return msgspec.json.encode(self._report(msgspec.json.decode(regions)))

    def obey(self, drain: bool) -> WorkerReport:  # noqa: FBT001
        """Begin to drain, if *drain*; return the report without regions."""
        if drain:
            self._activity.drain()
        return self._report({})

    def _report(self, regions: Mapping[Region, str | None]) -> WorkerReport:
        return WorkerReport(
            name=self.name,
            regions=regions,
            draining=self._activity.draining.is_set(),
            running=self._activity.running,
            version=__version__,
        )


class WorkerReports:
    """Requests the reports of all workers, and answers with the *report* of this process, if any.

    Without a worker, the server itself reports that at once.
    """

    def __init__(self, *, link: Link, namespace: str, report: Answer | None) -> None:
        self._link = link
        self._subject = f"{namespace}.ask.workers"
        if report:

            async def acknowledge(message: Msg) -> None:
                await message.respond(ACKNOWLEDGEMENT)

            async def respond(message: Msg) -> None:
                await message.respond(await report())

            # Separate, so an answer cannot delay an acknowledgement.
            link.subscriptions.add(self._subject, acknowledge)
            link.subscriptions.add(self._subject, respond)

    async def request(self) -> Sequence[WorkerReport]:
        """Return the report of each worker that answers.

        Raises:
            EngineUnavailable: The workers cannot be asked.
        """
        answers = _Answers()
        with translated("ask the fleet"):
            client = self._link.client
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox, cb=answers.collect)
            try:
                await client.publish(self._subject, reply=inbox)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                        await answers.complete()
            finally:
                await subscription.unsubscribe()
        return [parse_report(answer) for answer in answers.received]


class _Answers:
    """The answers to one request, as they arrive."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._acknowledged = 0
        self._changed = asyncio.Event()

    async def collect(self, message: Msg) -> None:
        if message.data == ACKNOWLEDGEMENT:
            self._acknowledged += 1
        elif message.data:  # an empty one is the server's own: no process has subscribed
            self.received.append(message.data)
        self._changed.set()

    async def complete(self) -> None:
        """Return when each process that has acknowledged has answered."""
        await self._changed.wait()
        await asyncio.sleep(ACKNOWLEDGED_WITHIN.total_seconds())
        while len(self.received) < self._acknowledged:
            self._changed.clear()
            await self._changed.wait()


def parse_report(answer: bytes) -> WorkerReport:
    """Return the report in *answer*. An unreadable one still proves that a worker runs."""
    try:
        return _decode(answer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return WorkerReport(name="unreadable", regions={})
