"""On how many servers the fleet's streams and consumers are, and a way to change that."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.js.api import ClusterInfo, StreamInfo

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.connection_faults import TOO_FEW_SERVERS
from archiver.jetstream.fullness import fullness_of
from archiver.jetstream.translation import FAILURES, translated
from archiver.tasks import Priority

POLL_EVERY = timedelta(seconds=0.25)

CONSUMER_PREFIXES = tuple(f"{priority}_" for priority in Priority)


class TooFewServers(Exception):
    """The cluster has fewer servers than the number of replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """The replicas of a stream or a consumer.

    Without a server that answers for it, ``leader`` is ``None``. ``current`` counts the servers,
    including the leader, that have all of it.
    """

    name: str
    replicas: int
    leader: str | None
    current: int

    def is_on(self, replicas: int) -> bool:
        """Return whether it has *replicas*, all of them complete."""
        return self.leader is not None and self.replicas == self.current == replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """A stream and its durable consumers; ``stream`` has the replicas of the stream itself.

    A ``max_bytes`` of -1 is no limit. ``fullness`` is the used part of the stream's room.
    """

    stream: ReplicaStatus
    messages: int
    size_bytes: int
    max_bytes: int
    consumers: tuple[ReplicaStatus, ...]
    fullness: float = 0.0

    def is_on(self, replicas: int) -> bool:
        return all(one.is_on(replicas) for one in (self.stream, *self.consumers))

    @property
    def leaderless(self) -> tuple[str, ...]:
        """The names of the stream and of its consumers that no server answers for now."""
        return tuple(one.name for one in (self.stream, *self.consumers) if one.leader is None)


class Replication:
    """Reads and changes the replicas of the fleet's streams.

    ``configured_replicas`` is this process's setting. Every method raises EngineUnavailable.
    """

    def __init__(self, *, connection: Connection, configured_replicas: int) -> None:
        self.configured_replicas = configured_replicas
        self._connection = connection

    def differing(self, streams: Sequence[StreamStatus]) -> tuple[str, ...]:
        """Return the names of streams whose replicas differ from this process's setting."""
        led = [one.stream for one in streams if one.stream.leader]
        return tuple(stream.name for stream in led if stream.replicas != self.configured_replicas)

    async def status(self) -> Sequence[StreamStatus]:
        """Return the status of every stream of the fleet that exists."""
        _ = self._connection.link.js  # raises at once if the engine is away
        reads = [self._read_status(name) for name in self._connection.streams.names]
        return [stream for stream in await asyncio.gather(*reads) if stream]

    async def _read_status(self, name: str) -> StreamStatus | None:
        try:
            info = await self._connection.link.js.stream_info(name)
            is_queue = name == self._connection.tasks.name
            consumers = await self._consumers(info) if is_queue else ()
        except nats.js.errors.NotFoundError:
            return None
        except FAILURES:  # as if most of its servers are away
            unknown = _leaderless(name)
            return StreamStatus(
                stream=unknown, messages=0, size_bytes=0, max_bytes=-1, consumers=()
            )
        return StreamStatus(
            stream=_replica_status(name, info.cluster),
            messages=info.state.messages,
            size_bytes=info.state.bytes,
            max_bytes=info.config.max_bytes or -1,
            consumers=tuple(consumers),
            fullness=fullness_of(info),
        )

    async def _consumers(self, info: StreamInfo) -> Sequence[ReplicaStatus]:
        """Return the status of the durable consumers.

        The server waits for consumers without a leader, and then lists them as missing. Consumers
        that are not durable belong to a single process and end with their server.
        """
        found, missing = await self._connection.tasks.consumers(count=info.state.consumer_count)
        # A server outside of a cluster names the leader of its streams only.
        answered = [
            _replica_status(one.name, one.cluster or info.cluster)
            for one in found
            if one.config.durable_name
        ]
        return answered + [_leaderless(one) for one in missing if one.startswith(CONSUMER_PREFIXES)]

    async def set_replicas(self, replicas: int, *, within: timedelta) -> None:
        """Put every stream on so many servers; return when each of these has all of it.

        A bucket may be read directly only while it has no followers, whose answers may be old.

        Raises:
            TooFewServers: The cluster has fewer servers.
            EngineUnavailable: Some replicas may not be complete. A second call is safe.
        """
        await self.status()  # raises at once if the engine is away
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._change_until_on(replicas)
                if replicas == 1:
                    await self._allow_direct(allowed=True)
        except TimeoutError as exc:
            raise EngineUnavailable("some replicas are not complete yet") from exc

    async def _change_until_on(self, replicas: int) -> None:
        while True:
            with suppress(EngineUnavailable):  # a stream has no leader, or its answer is late
                if replicas > 1:
                    await self._allow_direct(allowed=False)
                await self._change(replicas)
                if all(stream.is_on(replicas) for stream in await self.status()):
                    return
            await asyncio.sleep(POLL_EVERY.total_seconds())

    async def _change(self, replicas: int) -> None:
        for stream in await self.status():
            await self._update(stream.stream.name, num_replicas=replicas)

    async def _allow_direct(self, *, allowed: bool) -> None:
        for stream in await self.status():
            if stream.stream.name in self._connection.streams.buckets:
                await self._update(stream.stream.name, allow_direct=allowed)

    async def _update(self, name: str, **changes: bool | int) -> None:
        with translated(f"change the stream {name}"):
            config = (await self._connection.link.js.stream_info(name)).config
            if config.evolve(**changes) == config:
                return
            try:
                await self._connection.link.js.update_stream(config.evolve(**changes))
            except nats.js.errors.APIError as exc:
                if exc.err_code in TOO_FEW_SERVERS:
                    raise TooFewServers("the cluster of the engine has fewer servers") from exc
                raise


def _leaderless(name: str) -> ReplicaStatus:
    return ReplicaStatus(name=name, replicas=0, leader=None, current=0)


def _replica_status(name: str, cluster: ClusterInfo | None) -> ReplicaStatus:
    """Return what a server reports about a stream; a single server names only itself."""
    peers = (cluster.replicas if cluster else None) or []
    leader = cluster.leader if cluster else None
    return ReplicaStatus(
        name=name,
        replicas=1 + len(peers),
        leader=leader or None,
        current=bool(leader) + sum(bool(peer.current) and not peer.offline for peer in peers),
    )
