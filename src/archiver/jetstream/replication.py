"""The streams of the fleet as an operator sees them: how they stand, and on how many servers."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ClusterInfo, ConsumerConfig, StreamInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.connection_faults import TOO_FEW_SERVERS
from archiver.jetstream.translation import WrongRevision, translated
from archiver.tasks import Priority

LOOK_EVERY = timedelta(seconds=0.25)

PROBE_LANE = "check"
"""A source's name begins with a letter or digit and a lane's with a priority: neither is this."""

_LANES = tuple(f"{priority}_" for priority in Priority)

PROBE_IDLE = timedelta(minutes=5)
"""The server removes the consumer of a process that has not asked for this long."""

PROBE_TIMEOUT_S = 2.0

PROBES_MAX = 8
"""Messages of one process that can wait if none is handed out. The server removes one a moment
after it was acknowledged, so the next one needs another subject."""


class TooFewServers(Exception):
    """The cluster has fewer servers than the number of replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a stream or one of its consumers stands.

    ``leader`` is the server that answers for it; None: no server does. ``current`` counts the
    servers, the leader among them, that have all of it.
    """

    name: str
    replicas: int
    leader: str | None
    current: int

    def is_on(self, replicas: int) -> bool:
        """Return whether it has *replicas*, all of them complete."""
        return self.leader is not None and self.replicas == self.current == replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream, and its durable consumers; ``stream`` says how it stands itself."""

    stream: Standing
    messages: int
    size_bytes: int
    consumers: tuple[Standing, ...]

    def is_on(self, replicas: int) -> bool:
        return all(one.is_on(replicas) for one in (self.stream, *self.consumers))

    @property
    def leaderless(self) -> tuple[str, ...]:
        """The stream and those of its consumers that no server answers for now."""
        return tuple(one.name for one in (self.stream, *self.consumers) if one.leader is None)


class Streams:
    """Asks JetStream about the fleet's streams, and changes on how many servers they are."""

    def __init__(self, *, connection: Connection, wanted: int) -> None:
        self.wanted = wanted
        self._connection = connection
        self._probe = secrets.token_hex(8)
        self._probes = 0
        self._consumer = f"{PROBE_LANE}_{self._probe}"

    def differing(self, streams: Sequence[Stream]) -> tuple[str, ...]:
        """Return the names of streams whose replicas differ from this process's setting."""
        led = [one.stream for one in streams if one.stream.leader]
        return tuple(stream.name for stream in led if stream.replicas != self.wanted)

    async def look(self) -> Sequence[Stream]:
        """Return every stream of the fleet that exists. Raises EngineUnavailable."""
        with _asked("describe its streams"):
            _ = self._connection.js
            looks = [self._look(name) for name in self._connection.provision.streams]
            return [stream for stream in await asyncio.gather(*looks) if stream]

    async def _look(self, name: str) -> Stream | None:
        try:
            info = await self._connection.js.stream_info(name)
            is_queue = name == self._connection.tasks_stream
            consumers = await self._consumers(info) if is_queue else ()
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError, OSError):  # as when most of its servers are away
            nobody = Standing(name=name, replicas=0, leader=None, current=0)
            return Stream(stream=nobody, messages=0, size_bytes=0, consumers=())
        return Stream(
            stream=_standing(name, info.cluster),
            messages=info.state.messages,
            size_bytes=info.state.bytes,
            consumers=tuple(consumers),
        )

    async def _consumers(self, info: StreamInfo) -> Sequence[Standing]:
        """Return how the durable consumers stand, a page at a time.

        The server waits for those without a leader, and then names them as missing. Others than
        durable ones are of a single process, and may well be missing: they end with their server.
        """
        found: list[Standing] = []
        seen = 0
        while seen < info.state.consumer_count:
            page = await self._connection.consumers(str(info.config.name), offset=seen)
            # A server that is no cluster's names the leader of its streams only.
            found += [
                _standing(one.name, one.cluster or info.cluster)
                for one in page.consumers
                if one.config.durable_name
            ]
            missing = [name for name in page.missing if name.startswith(_LANES)]
            found += [Standing(name=name, replicas=0, leader=None, current=0) for name in missing]
            seen += len(page.consumers) + len(page.missing)
            if not page.consumers:
                break
        return found

    async def prove(self) -> None:
        """Return if a message can be stored in the work queue, handed out and acknowledged.

        Raises:
            EngineUnavailable: It cannot.
        """
        try:
            with _asked("hand out a message"):
                await self._make_consumer()
                await self._store_probe()
                await self._take()
        except EngineUnavailable:
            with suppress(
                EngineUnavailable
            ):  # its server may be gone; the next probe makes another
                await self._connection.delete_consumer(self._consumer)
            raise

    async def _make_consumer(self) -> None:
        """Have the consumer there before the message, which nothing else would take out."""
        config = ConsumerConfig(
            name=self._consumer,
            filter_subject=self._connection.subject("tasks", PROBE_LANE, self._probe, "*"),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=PROBE_TIMEOUT_S,
            inactive_threshold=PROBE_IDLE.total_seconds(),
        )
        await self._connection.ensure_consumer(config)

    async def _store_probe(self) -> None:
        self._probes = (self._probes + 1) % PROBES_MAX
        subject = self._connection.subject("tasks", PROBE_LANE, self._probe, str(self._probes))
        only_one = {"Nats-Expected-Last-Subject-Sequence": "0"}
        with suppress(WrongRevision):  # one is there that was stored before, and not taken in time
            await self._connection.publish(subject, b"", only_one)

    async def _take(self) -> None:
        js, stream = self._connection.js, self._connection.tasks_stream
        queue = await js.pull_subscribe_bind(self._consumer, stream)
        try:
            message = (await queue.fetch(1, PROBE_TIMEOUT_S))[0]
            await message.ack_sync(timeout=PROBE_TIMEOUT_S)
        finally:
            await queue.unsubscribe()

    async def set_replicas(self, replicas: int, *, within: timedelta) -> None:
        """Put every stream on so many servers, and return when each of these has all of it.

        A bucket may be read directly only while it has no followers, whose answers may be old.

        Raises:
            TooFewServers: The cluster cannot have so many.
            EngineUnavailable: Some replicas may not be complete. A second call is safe.
        """
        await self.look()  # an engine that is away is not waited for
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._until_on(replicas)
                if replicas == 1:
                    await self._allow_direct(allowed=True)
        except TimeoutError as exc:
            raise EngineUnavailable("some replicas are not complete yet") from exc

    async def _until_on(self, replicas: int) -> None:
        """Ask for the change again as long as a stream has no leader or its answer is late."""
        while True:
            with suppress(EngineUnavailable):
                if replicas > 1:
                    await self._allow_direct(allowed=False)
                await self._change(replicas)
                if all(stream.is_on(replicas) for stream in await self.look()):
                    return
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _change(self, replicas: int) -> None:
        for stream in await self.look():
            await self._update(stream.stream.name, num_replicas=replicas)

    async def _allow_direct(self, *, allowed: bool) -> None:
        for stream in await self.look():
            if stream.stream.name in self._connection.provision.buckets:
                await self._update(stream.stream.name, allow_direct=allowed)

    async def _update(self, name: str, **changes: bool | int) -> None:
        with _asked(f"change the stream {name}"):
            config = (await self._connection.js.stream_info(name)).config
            if config.evolve(**changes) != config:
                await self._connection.js.update_stream(config.evolve(**changes))


def _standing(name: str, cluster: ClusterInfo | None) -> Standing:
    """Return what a server reports about a stream; a single server names only itself."""
    peers = (cluster.replicas if cluster else None) or []
    leader = cluster.leader if cluster else None
    return Standing(
        name=name,
        replicas=1 + len(peers),
        leader=leader or None,
        current=bool(leader) + sum(bool(peer.current) and not peer.offline for peer in peers),
    )


class _asked(translated):  # noqa: N801 - as the one that it is made of
    """Turns what nats-py raises into TooFewServers, too."""

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        try:
            super().__exit__(kind, exc, traceback)
        except EngineUnavailable:
            if isinstance(exc, nats.js.errors.APIError) and exc.err_code in TOO_FEW_SERVERS:
                raise TooFewServers("the engine has fewer servers than that") from exc
            raise
