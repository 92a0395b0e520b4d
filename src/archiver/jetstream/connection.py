"""One connection to NATS, the streams that Archiver keeps there, and the feed of its changes."""

import asyncio
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
)

from archiver.errors import EngineUnavailable
from archiver.jetstream.direct_get import Entry, Lookups
from archiver.jetstream.link import Link, Servers
from archiver.jetstream.provision import Provision
from archiver.jetstream.roll_call import Say, answer, gather
from archiver.jetstream.scan import scan
from archiver.jetstream.stale_consumers import withheld_message
from archiver.jetstream.translation import FAILURES, WRONG_LAST_SEQUENCE, translated
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.tasks import cancel_and_wait
from archiver.telemetry import METRICS, log

REQUEST_TIMEOUT = timedelta(seconds=3)
"""A server that is well answers in milliseconds; one that elects a leader takes about this long."""

START_TIMEOUT = timedelta(seconds=2)
"""After this long, a process starts without its engine: hits need none."""

PATIENCE = timedelta(seconds=1)
"""A server that is restarted is back within that time: better a late answer than a 503."""

LIST_TIMEOUT = timedelta(seconds=6)
"""The server waits 4 s for consumers whose own server is gone."""

UNREADABLE_TTL = timedelta(days=1)
UNREADABLE_MAX_BYTES = 4 * MEGABYTE
"""Of the names of values that were logged. A value that is forgotten is logged once more."""


UNLISTEN_TIMEOUT = timedelta(seconds=1)

Listener = Callable[[Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPage:
    """Consumers of a stream, and the names of those that no server answers for."""

    consumers: Sequence[ConsumerInfo]
    missing: Sequence[str]


class Connection:
    """NATS, for one process. Every call ends soon, in its answer or in EngineUnavailable.

    Streams that are missing, as after a wipe of the server's folder, are made anew where one is
    written to. ``namespace`` keeps fleets apart on one cluster.
    """

    def __init__(
        self,
        *,
        servers: Servers,
        namespace: str,
        name: str,
        answers: Mapping[str, Say] | None = None,
    ) -> None:
        self._answers = answers or {}
        self._link = Link(servers=servers, name=name, on_dialled=self._listen, on_gap=self.gap)
        self.provision = Provision(namespace=namespace, replicas=servers.replicas)
        self._lookups = Lookups(timeout=REQUEST_TIMEOUT)
        self._watchers: dict[str, list[Callable[[str, bytes], None]]] = {}
        self._deaf: set[str] = set()
        self._on_gap: list[Callable[[], None]] = []
        self._dialled: Client | None = None
        self._listeners: dict[str, Listener] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._unreadable: BoundedCache[tuple[str, str, int], None] = BoundedCache(
            ttl=UNREADABLE_TTL, max_bytes=UNREADABLE_MAX_BYTES
        )
        self._returned = asyncio.Event()
        self.prepared = asyncio.Event()
        self.namespace = namespace
        self.tasks_stream = self.provision.tasks_stream

    @property
    def js(self) -> JetStreamContext:
        """JetStream, if the server can be reached now. Raises EngineUnavailable."""
        return self._link.client.jetstream(timeout=REQUEST_TIMEOUT.total_seconds())

    @property
    def is_up(self) -> bool:
        """Whether there is a server now."""
        return self._link.is_up

    async def wait(self, within: timedelta = PATIENCE) -> None:
        """Return as soon as the server can be reached, or when the time is over."""
        await self._link.wait(within)

    async def keep(self, *, prepares: bool = True) -> None:
        """Be connected until cancelled, and see that the streams are there after each return.

        The server may have lost its folder meanwhile.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._link.keep())
                while prepares:
                    await self._returned.wait()
                    self._returned.clear()
                    await self._prepare()
        finally:
            await self._lookups.close()

    async def _prepare(self) -> None:
        while True:
            await self._link.wait()
            try:
                await self.ensure_streams()
            except Exception as exc:  # noqa: BLE001 - whatever it is, trying again is the answer
                self._link.faults.report("engine.not_ready", exc.__cause__ or exc)
                await asyncio.sleep(1)
            else:
                self._link.faults.end()
                self.prepared.set()
                return

    def subject(self, *tokens: str) -> str:
        return ".".join((self.namespace, *tokens))

    async def ensure_streams(self) -> None:
        """Make what is missing: the work queue and the buckets. Raises EngineUnavailable."""
        with translated("make its streams"):
            await self.provision.ensure(self.js)

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Store a message in the stream of its subject; return the revision at which it stands.

        A task may be stored by a second try, so its headers have to expect what they replace.

        Raises:
            WrongRevision: The headers' expectation does not hold.
            EngineUnavailable: It is not stored, as far as can be told.
        """
        with translated("store a message"):
            try:
                return await self._publish(subject, payload, headers)
            except nats.js.errors.NoStreamResponseError:
                await self.ensure_streams()
            except nats.errors.TimeoutError:
                if not subject.startswith(self.subject("tasks", "")):
                    raise
                await self._ensure_queue()
            return await self._publish(subject, payload, headers)

    async def _ensure_queue(self) -> None:
        """See that a task that was not stored has a queue.

        The server does not say that there was none while workers listen to what is published, since
        they receive it. One of them may have made the queue by now.
        """
        try:
            await self.js.stream_info(self.tasks_stream)
        except nats.js.errors.NotFoundError:
            await self.ensure_streams()

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        try:
            return (await self.js.publish(subject, payload, headers=headers)).seq
        except nats.js.errors.APIError as exc:
            if exc.err_code not in WRONG_LAST_SEQUENCE:
                log.warning("jetstream.refused", subject=subject, err_code=exc.err_code)
            raise

    async def get(self, bucket: str, key: str) -> Entry | None:
        """Return what stands under *key*.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        entry = await self.trace(bucket, key)
        return entry if entry and entry.value else None

    async def trace(self, bucket: str, key: str) -> Entry | None:
        """Return what ``get`` does, or the mark of what was removed: who replaces it must know it.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        stream = self.provision.bucket_stream(bucket)
        subject = self.provision.key_subject(bucket, key)
        if not self.provision.reads_directly(stream):
            return await self.last_message(stream, subject)
        try:
            return await self._lookups.get(self._link.client, stream, subject)
        except nats.errors.NoRespondersError:  # no such stream, or it has followers by now
            self.provision.forget(stream)
            return await self.last_message(stream, subject)
        except FAILURES as exc:
            raise EngineUnavailable("the engine could not read a key") from exc

    async def last_message(self, stream: str, subject: str) -> Entry | None:
        """Return the newest message of a subject, which may have wildcards.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        with translated("read a message"):
            try:
                message = await self.js.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError:
                return None
        return Entry(value=message.data or b"", revision=message.seq or 0)

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Write, whatever stood there. Raises EngineUnavailable."""
        await self.publish(self.provision.key_subject(bucket, key), value, {})

    async def update(self, bucket: str, key: str, value: bytes, *, revision: int) -> int:
        """Write if *revision* still stands there (0: nothing does); return the new revision.

        Raises:
            WrongRevision: It does not.
            EngineUnavailable: It is not written, as far as can be told.
        """
        only_over = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        return await self.publish(self.provision.key_subject(bucket, key), value, only_over)

    async def delete(self, bucket: str, key: str) -> None:
        """Remove, as NATS's own clients do: with a marker. Raises EngineUnavailable."""
        await self.publish(
            self.provision.key_subject(bucket, key),
            b"",
            {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
        )

    async def matching(self, bucket: str, keys: str) -> Sequence[str]:
        """Return which keys there are that *keys*, with wildcards, stands for; removed ones too.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        prefix = self.provision.key_subject(bucket, "")
        with translated("list keys"):
            try:
                stream = self.provision.bucket_stream(bucket)
                info = await self.js.stream_info(stream, f"{prefix}{keys}")
            except nats.js.errors.NotFoundError:
                return ()
        return [subject.removeprefix(prefix) for subject in info.state.subjects or ()]

    async def count(self, stream: str) -> int:
        """Return how many messages a stream holds. Raises EngineUnavailable."""
        with translated("count messages"):
            try:
                return (await self.js.stream_info(stream)).state.messages
            except nats.js.errors.NotFoundError:
                return 0

    async def subjects(self, stream: str, *, most: int) -> Sequence[str] | None:
        """Return the subjects of a stream's messages, or None if there are more than *most*.

        Raises:
            EngineUnavailable: It cannot be told.
        """
        count = await self.count(stream)
        if not 0 < count <= most:
            return None if count else ()
        with translated("list subjects"):
            info = await self.js.stream_info(stream, ">")
        return tuple(info.state.subjects or ())

    async def ensure_consumer(self, config: ConsumerConfig) -> ConsumerInfo:
        """Make a consumer of the queue unless it exists; return how far it is.

        Raises:
            EngineUnavailable: It could not be made.
        """
        with translated("make a consumer"):
            try:
                return await self.js.add_consumer(self.tasks_stream, config)
            except nats.js.errors.NotFoundError:
                await self.ensure_streams()
                return await self.js.add_consumer(self.tasks_stream, config)

    async def delete_consumer(self, name: str) -> None:
        """Remove a consumer of the queue. Raises EngineUnavailable."""
        with translated("remove a consumer"):
            await self.js.delete_consumer(self.tasks_stream, name)

    async def withheld_message(self, consumer: ConsumerInfo) -> int | None:
        """Return what ``stale_consumers.withheld_message`` does. Raises EngineUnavailable."""
        with translated("look at a consumer"):
            return await withheld_message(self.js, consumer)

    async def consumers(self, stream: str, *, offset: int) -> ConsumerPage:
        """Return a page of a stream's consumers. Raises EngineUnavailable.

        nats-py leaves out the names of those whose server does not answer.
        """
        request = json.dumps({"offset": offset}).encode()
        with translated("list consumers"):
            client, subject = self._link.client, f"$JS.API.CONSUMER.LIST.{stream}"
            answer = await client.request(subject, request, timeout=LIST_TIMEOUT.total_seconds())
            page = json.loads(answer.data)
            if "error" in page:
                raise nats.js.errors.APIError.from_error(page["error"])
        found = [ConsumerInfo.from_response(one) for one in page.get("consumers") or ()]
        return ConsumerPage(consumers=found, missing=tuple(page.get("missing") or ()))

    async def consumer(self, stream: str, name: str) -> ConsumerInfo | None:
        """Return how far a consumer is, or None if there is none. Raises EngineUnavailable."""
        with translated("look at a consumer"):
            try:
                info: ConsumerInfo = await self.js.consumer_info(stream, name)
            except nats.js.errors.NotFoundError:
                return None
        return info

    async def entries(self, bucket: str) -> AsyncGenerator[tuple[str, Entry], None]:
        """Yield every key of a bucket that is there, removed ones too, and what stands under it.

        What is written meanwhile may come once more, or not at all.

        Raises:
            EngineUnavailable: These are not all.
        """
        prefix = self.provision.key_subject(bucket, "")
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            inactive_threshold=10 * REQUEST_TIMEOUT.total_seconds(),
        )
        with translated("list a bucket"):
            reading = await self.js.pull_subscribe(
                f"{prefix}>", stream=self.provision.bucket_stream(bucket), config=config
            )
            async with aclosing(scan(reading, timeout=REQUEST_TIMEOUT)) as messages:
                async for message in messages:
                    revision = message.metadata.sequence.stream
                    entry = Entry(value=message.data, revision=revision)
                    yield message.subject.removeprefix(prefix), entry

    async def purge(self, bucket: str, key: str, *, revision: int) -> None:
        """Remove what stands under *key* without a trace, unless it is newer than *revision*.

        Raises:
            EngineUnavailable: It is not removed, as far as can be told.
        """
        stream = self.provision.bucket_stream(bucket)
        subject = self.provision.key_subject(bucket, key)
        await self.remove(stream, subject, revision=revision)

    async def remove(self, stream: str, subject: str, *, revision: int) -> None:
        """Remove the messages of a subject up to *revision*.

        Raises:
            EngineUnavailable: They are not removed, as far as can be told.
        """
        with translated("remove a message"):
            await self.js.purge_stream(stream, seq=revision + 1, subject=subject)

    def note_unreadable(self, place: str, key: str, revision: int = 0) -> None:
        """Log and count a value that cannot be read, once per value."""
        if (place, key, revision) not in self._unreadable:
            self._unreadable.put((place, key, revision), None)
            METRICS.unreadable.labels(place=place).inc()
            log.warning("value.unreadable", place=place, key=key, revision=revision)

    async def set_aside(self, bucket: str, key: str, entry: Entry) -> None:
        """Remove a value that cannot be read, from a bucket whose values can be made again."""
        self.note_unreadable(bucket, key, entry.revision)
        with suppress(EngineUnavailable):  # the next reader passes over it, and tries to remove it
            await self.purge(bucket, key, revision=entry.revision)

    async def tell(self, event: str, digest: str, payload: bytes = b"") -> None:
        """Let every process know of a change, after it was stored; at the very least this one."""
        try:
            with translated("tell the feed"):
                await self._link.client.publish(self.subject("feed", event, digest), payload)
        except EngineUnavailable:
            self._deliver(event, digest, payload)

    def watch(self, event: str, seen: Callable[[str, bytes], None]) -> None:
        """Call *seen* with digest and payload of each *event* in the fleet from now on.

        Those who watch one event are called in the order in which they came.
        """
        self._watchers.setdefault(event, []).append(seen)

    async def _listen(self, client: Client) -> None:
        """Subscribe to the feed; nats-py subscribes again after each reconnection."""
        await self._lookups.listen(client)
        await client.subscribe(self.subject("feed", "*", "*"), cb=self._receive)
        for question, say in self._answers.items():
            await answer(client, self.subject("ask", question), say)
        self._dialled = client
        for subject, seen in self._listeners.items():
            self._subscriptions[subject] = await client.subscribe(subject, cb=seen)

    async def listen(self, subject: str, seen: Listener) -> None:
        """Call *seen* with every message on *subject* from now on, in order."""
        self._listeners[subject] = seen
        with suppress(EngineUnavailable), translated("listen"):
            if self._dialled:
                subscription = await self._dialled.subscribe(subject, cb=seen)
                self._subscriptions[subject] = subscription

    async def unlisten(self, subject: str) -> None:
        """Stop listening on *subject*, after the messages that were already sent were seen."""
        self._listeners.pop(subject, None)
        subscription = self._subscriptions.pop(subject, None)
        with suppress(EngineUnavailable), translated("stop listening"):
            async with asyncio.timeout(UNLISTEN_TIMEOUT.total_seconds()):
                if subscription:
                    await subscription.drain()  # type: ignore[no-untyped-call]

    async def send(self, subject: str, payload: bytes, reply: str) -> None:
        """Send a message whose answers go to *reply*. Raises EngineUnavailable: It is not sent."""
        with translated("take a message"):
            await self._link.client.publish(subject, payload, reply)

    async def _receive(self, message: Msg) -> None:
        event, digest = message.subject.split(".")[-2:]
        self._deliver(event, digest, message.data)

    def _deliver(self, event: str, digest: str, payload: bytes) -> None:
        for seen in self._watchers.get(event, ()):
            try:
                seen(digest, payload)
            except Exception:  # noqa: BLE001 - the other watchers have to hear of it, too
                self._note_deaf(event)

    def _note_deaf(self, event: str) -> None:
        """Log what a watcher raises, once for each kind of event: the feed may bring many."""
        if event not in self._deaf:
            self._deaf.add(event)
            log.exception("feed.broken", feed_event=event)

    def on_gap(self, forget: Callable[[], None]) -> None:
        """Call *forget* whenever parts of the feed may have been missed."""
        self._on_gap.append(forget)

    def gap(self) -> None:
        self._returned.set()
        for forget in self._on_gap:
            forget()

    async def gather(self, question: str) -> Sequence[bytes]:
        """Return the answers of all processes that answer *question*.

        Raises:
            EngineUnavailable: The processes cannot be asked.
        """
        with translated("ask the fleet"):
            return await gather(self._link.client, self.subject("ask", question))


@asynccontextmanager
async def connect(
    servers: Servers,
    *,
    namespace: str,
    name: str,
    prepares: bool = True,
    answers: Mapping[str, Say] | None = None,
) -> AsyncIterator[Connection]:
    """Yield a connection that is kept up for as long as the block runs.

    If no server answers within 2 s, it is yielded all the same, and connects as soon as one does.
    It *prepares* the streams, unless it is only to look at them. *answers* are what this process
    replies to the questions of others (``gather``).
    """
    connection = Connection(servers=servers, namespace=namespace, name=name, answers=answers)
    keeping = asyncio.create_task(connection.keep(prepares=prepares))
    await connection.wait(START_TIMEOUT)
    try:
        yield connection
    finally:
        await cancel_and_wait(keeping)
