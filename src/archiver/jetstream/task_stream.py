"""The stream of the work queue: its messages and its consumers."""

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, NamedTuple

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, ConsumerInfo, RawStreamMsg

from archiver.errors import EngineUnavailable
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.link import Link
from archiver.jetstream.streams import Streams
from archiver.jetstream.task_subject import TaskSubject
from archiver.jetstream.translation import WrongRevision, translated
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.notifications import Subscribers
from archiver.runtime.single_flight import SingleFlight
from archiver.telemetry.tracing import TRACEPARENT, traceparent_in

LIST_TIMEOUT = timedelta(seconds=6)
"""The server waits 4 s for consumers whose own server is gone."""


EARLIER_TTL = timedelta(seconds=1)
"""Processes of an earlier version may add messages for as long as they run."""


class StoredMessage(NamedTuple):
    """A message of the queue. ``revision`` is its number in the stream.

    ``traceparent`` names the span that created the task, if there was one.
    """

    subject: str
    value: bytes
    revision: int
    traceparent: str = ""


class TaskStream:
    """Messages by subject, and consumers by name.

    ``published`` notifies of tasks while it listens.

    Every method raises EngineUnavailable if its effect or its answer is not certain.
    """

    def __init__(self, *, link: Link, streams: Streams) -> None:
        self.name = streams.tasks_stream
        self.subject, self.parse = streams.task_subject, streams.parse_task_subject
        self.lane, self.all = streams.lane_subject, streams.all_tasks
        self.published: Subscribers[[TaskSubject]] = Subscribers()
        self._link = link
        self._listens = False
        self._streams = streams
        self._earlier: BoundedCache[None, bool] = BoundedCache(ttl=EARLIER_TTL, max_bytes=MEGABYTE)
        self._seeking: SingleFlight[None, bool] = SingleFlight()

    async def listen(self) -> None:
        """From now on, notify ``published`` of each task that any process publishes."""
        if not self._listens:
            self._listens = True
            await self._link.subscriptions.subscribe(self.all, self._hear)

    async def _hear(self, message: Msg) -> None:
        with suppress(ValueError):
            self.published.notify(self.parse(message.subject))

    async def publish_new(
        self, subject: str, payload: bytes, *, last: int = 0, traceparent: str = ""
    ) -> None:
        """Store a task on a subject with a client, unless the archive has another than *last*.

        Raises:
            WrongRevision: There may be one.
        """
        unique, _without_client = self._streams.task_subjects(self.parse(subject).key_hash)
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(last),
            "Nats-Expected-Last-Subject-Sequence-Subject": unique,
        }
        if traceparent:
            headers[TRACEPARENT] = traceparent
        await self._streams.publish(subject, payload, headers)

    async def move(
        self, message: StoredMessage, subject: str, payload: bytes | None = None
    ) -> None:
        """Store the task of *message* on *subject* instead, as *payload* if given.

        If only the removal fails, the next move of the first message completes it.
        """
        try:
            await self.publish_new(
                subject,
                payload or message.value,
                last=message.revision,
                traceparent=message.traceparent,
            )
        except WrongRevision:
            # It was moved before, or a cluster refuses it while it changes its leader.
            newest = await self._newest(self.subject("*", "*", "*", self.parse(subject).key_hash))
            if newest is None or newest.revision == message.revision:
                raise EngineUnavailable("the engine refused to move a task") from None
        await self.remove(message.subject, revision=message.revision)

    async def first(self, subject: str) -> StoredMessage | None:
        """Return the oldest message of a subject, which may have wildcards."""
        return await self.next(subject, after=0)

    async def clients(self, priority: str, source: str) -> frozenset[str]:
        """Return the tokens of the clients that have tasks there."""
        async with aclosing(self.iter_subjects(self.subject(priority, source, "*", "*"))) as found:
            return frozenset([self.parse(subject).client async for subject in found])

    async def count_in(self, priority: str, source: str) -> int:
        """Return how many tasks for *source* have this priority."""
        return await self._count_subjects(self.subject(priority, source, "*", "*"))

    async def last(self, subject: str) -> KvEntry | None:
        return await self._streams.last(self.name, subject)

    async def find(self, key_hash: str) -> StoredMessage | None:
        """Return the message of an archive's task."""
        with_client, without_client = self._streams.task_subjects(key_hash)
        subjects = (with_client, without_client) if await self._has_earlier() else (with_client,)
        for subject in subjects:
            if message := await self._newest(subject):
                return message
        return None

    async def _newest(self, subject: str) -> StoredMessage | None:
        with translated("read a message"):
            try:
                return _stored(await self._link.js.get_last_msg(self.name, subject))
            except nats.js.errors.NotFoundError:
                return None

    async def _has_earlier(self) -> bool:
        """Return whether there were messages of an earlier version, at most a second ago."""
        has_earlier = self._earlier.get(None)
        if has_earlier is None:
            has_earlier = await self._seeking.join_or_start(None, self._seek_earlier)
        return has_earlier

    async def _seek_earlier(self) -> bool:
        _, without_client = self._streams.task_subjects("*")
        has_earlier = bool(await self._count_subjects(without_client))
        self._earlier.put(None, has_earlier)
        return has_earlier

    async def open_tasks(self, client: str) -> int:
        """Return how many tasks *client*, a token, has in the queue."""
        return await self._count_subjects(self.subject("*", "*", client, "*"))

    async def _count_subjects(self, pattern: str) -> int:
        return len(await self._subjects(pattern))

    async def _subjects(self, pattern: str) -> Collection[str]:
        with translated("list subjects"):
            try:
                info = await self._link.js.stream_info(self.name, pattern)
            except nats.js.errors.NotFoundError:
                return ()
        return info.state.subjects or ()

    async def remove(self, subject: str, *, revision: int) -> None:
        await self._streams.remove(self.name, subject, revision=revision)

    async def count(self) -> int:
        with translated("count messages"):
            try:
                return (await self._link.js.stream_info(self.name)).state.messages
            except nats.js.errors.NotFoundError:
                return 0

    async def subjects(self, *, most: int) -> Sequence[str] | None:
        """Return the subjects of all messages, or None if there are more than *most*."""
        count = await self.count()
        if not 0 < count <= most:
            return None if count else ()
        return tuple(await self._subjects(">"))

    async def iter_subjects(self, pattern: str) -> AsyncGenerator[str, None]:
        """Yield the subjects of all messages that match *pattern*, in no certain order."""
        seen, total = 0, 1
        while seen < total:
            page = await self._subjects_from(seen, pattern)
            subjects = page.get("state", {}).get("subjects") or {}
            for subject in subjects:
                yield subject
            seen, total = seen + len(subjects), page.get("total", 0) if subjects else 0

    async def _subjects_from(self, offset: int, pattern: str) -> dict[str, Any]:
        """Return a page of the list. nats-py's own method returns only the first page."""
        request = {"subjects_filter": pattern, "offset": offset}
        return await self._request(f"STREAM.INFO.{self.name}", request, "list subjects")

    async def next(self, pattern: str, *, after: int) -> StoredMessage | None:
        """Return the first message behind the revision *after* that matches *pattern*."""
        with translated("read a message"):
            try:
                return _stored(
                    await self._link.js.get_msg(
                        self.name, seq=after + 1, subject=pattern, next=True
                    )
                )
            except nats.js.errors.NotFoundError:
                return None

    async def ensure_consumer(self, config: ConsumerConfig) -> ConsumerInfo:
        """Create a consumer unless it exists; return its state."""
        with translated("create a consumer"):
            try:
                return await self._link.js.add_consumer(self.name, config)
            except nats.js.errors.NotFoundError:
                await self._streams.ensure()
                return await self._link.js.add_consumer(self.name, config)

    async def delete_consumer(self, name: str) -> None:
        with translated("delete a consumer"):
            await self._link.js.delete_consumer(self.name, name)

    async def consumer(self, name: str) -> ConsumerInfo | None:
        with translated("read a consumer"):
            try:
                info: ConsumerInfo = await self._link.js.consumer_info(self.name, name)
            except nats.js.errors.NotFoundError:
                return None
        return info

    async def withheld_message(self, consumer: ConsumerInfo) -> int | None:
        """Return the number of a message that *consumer* would never deliver, or None.

        If a server joins a cluster with a store of an older fleet, a consumer created on it takes
        over what its namesake had delivered and acknowledged. Messages of the new stream with the
        same numbers are then never delivered, although nothing reports an error.

        A work queue removes acknowledged messages, so the first one left comes after them. The
        server removes them with a delay: only a second check with the same number is a proof. A
        consumer that has delivered more than its stream ever had needs no second check: the number
        is 0.
        """
        with translated("read a consumer"):
            last = (await self._link.js.stream_info(self.name)).state.last_seq
            if consumer.delivered and consumer.delivered.stream_seq > last:
                return 0
            acknowledged = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            subject = consumer.config.filter_subject
            try:
                first = await self._link.js.get_msg(self.name, seq=1, subject=subject, next=True)
            except nats.js.errors.NotFoundError:
                return None
            return first.seq if first.seq and first.seq <= acknowledged else None

    async def consumers(self, *, count: int) -> tuple[list[ConsumerInfo], list[str]]:
        """Return *count* consumers, and the names of those whose server does not answer."""
        found: list[ConsumerInfo] = []
        missing: list[str] = []
        while len(found) + len(missing) < count:
            page = await self._consumers_from(len(found) + len(missing))
            found += map(ConsumerInfo.from_response, page.get("consumers") or ())
            missing += page.get("missing") or ()
            if not page.get("consumers"):
                break
        return found, missing

    async def _consumers_from(self, offset: int) -> dict[str, Any]:
        """Return a page of the list. nats-py's own method drops the names in ``missing``."""
        request = {"offset": offset}
        return await self._request(f"CONSUMER.LIST.{self.name}", request, "list consumers")

    async def _request(
        self, api: str, request: Mapping[str, object], action: str
    ) -> dict[str, Any]:
        with translated(action):
            response = await self._link.client.request(
                f"$JS.API.{api}", json.dumps(request).encode(), timeout=LIST_TIMEOUT.total_seconds()
            )
            page: dict[str, Any] = json.loads(response.data)
            if "error" in page:
                raise nats.js.errors.APIError.from_error(page["error"])
        return page

    async def send_pull_request(self, consumer: str, request: bytes, reply: str) -> None:
        """Request messages of *consumer*, to be sent to *reply*."""
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.name}.{consumer}"
        with translated("take a request"):
            await self._link.client.publish(subject, request, reply)


def _stored(message: RawStreamMsg) -> StoredMessage:
    return StoredMessage(
        message.subject or "",
        message.data or b"",
        message.seq or 0,
        traceparent_in(message.headers),
    )
