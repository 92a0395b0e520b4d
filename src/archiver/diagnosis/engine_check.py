"""Whether NATS does all that Archiver needs of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from archiver.diagnosis.finding import Finding, failure, warning, well
from archiver.diagnosis.worker_check import examine_workers
from archiver.ports.diagnosis import (
    EngineFault,
    InspectedEngine,
    ServerFacts,
    StorageFacts,
    StreamFacts,
)

COUNTS_SINCE = (2, 12)
"""The first version of NATS with message counters, for the limits of clients."""

NEARLY_FULL = 0.95
"""A full bucket drops its oldest entry for each new one, so it is never quite full."""

ASK_AGAIN_AFTER = timedelta(seconds=1)
ASK_AGAIN_TIMES = 3
"""A replica may lag for a moment while the fleet works. One that lags in every answer is reported.
"""

_REPLICAS = "engine.replicas"

NATS_PAGE = "docs/how-to/set-up-nats.md"

_FAULTS = {
    "unknown_host": "the host name is unknown",
    "refused": "the connection is refused",
    "timed_out": "no server answers",
    "unreachable": "there is no route to the server",
    "broken_off": "the connection breaks off",
    "untrusted_certificate": "the server's certificate is not trusted",
    "wrong_host_name": "the server's certificate is of another host",
    "demands_certificate": "the server requires a client certificate",
    "tls_failed": "TLS fails",
    "tls_not_offered": "the server does not offer TLS",
    "not_authorized": "the server refuses the login",
    "not_permitted": "the user lacks permissions",
    "unreadable_file": "a file that the settings name cannot be used",
    "no_jetstream": "JetStream is not enabled",
    "too_few_servers": "the cluster has too few servers",
    "no_room": "JetStream has no room",
    "no_quorum": "the cluster has no quorum",
    "silent": "JetStream does not answer",
}


class EngineCheck:
    """Examines the engine that *open_engine* connects, and the workers behind it.

    Streams should be on so many *replicas*. *version* is that of this program.
    """

    def __init__(
        self,
        *,
        open_engine: Callable[[], AbstractAsyncContextManager[InspectedEngine]],
        replicas: int,
        version: str,
    ) -> None:
        self._open_engine = open_engine
        self._replicas = replicas
        self._version = version

    async def run(self) -> AsyncGenerator[Finding, None]:
        async with self._open_engine() as engine:
            server = engine.server()
            if isinstance(server, EngineFault):
                yield _explain("engine", server)
                return
            yield _describe_server(server)
            storage = await _settled(engine)
            if isinstance(storage, EngineFault):
                yield _explain("engine.jetstream", storage)
                return
            for finding in self._examine(server, storage):
                yield finding
            for finding in examine_workers(await engine.workers(), version=self._version):
                yield finding

    def _examine(self, server: ServerFacts, storage: StorageFacts) -> Iterator[Finding]:
        yield _account(storage)
        yield _streams(storage)
        yield self._replication(server, storage)
        if storage.streams:
            yield _leaders(storage.streams)
            yield _limits(storage.streams)
            yield _fullness(storage.streams)

    def _replication(self, server: ServerFacts, storage: StorageFacts) -> Finding:
        """Return whether the cluster, and each stream in it, has as many servers as it should."""
        wanted = self._replicas
        led = [stream for stream in storage.streams if stream.replicas]
        known = wanted if server.cluster_size is None else server.cluster_size
        servers = max([known, *(stream.replicas for stream in led)])
        if servers < wanted:
            return self._too_few(servers, can_work=not storage.missing)
        fewer = [stream for stream in led if stream.replicas != wanted]
        if fewer:
            numbers = ", ".join(sorted({str(stream.replicas) for stream in fewer}))
            found = f"engine.replicas is {wanted}, but {_streams_have(fewer)} {numbers}"
            return warning(_REPLICAS, found, f"run `archiver engine set-replicas {wanted}`")
        if behind := _behind(storage.streams):
            names = _names([stream.name for stream in behind])
            found = f"some replicas are away or behind: {names}"
            return warning(_REPLICAS, found, "start the missing servers of the cluster, or wait")
        if wanted == 1 and servers > 1:
            found = "NATS is a cluster, and each stream is on one of its servers only"
            action = "run `archiver engine set-replicas 3`, and set engine.replicas = 3"
            return warning(_REPLICAS, found, action)
        complete = ", and all of them are complete" if led else ""
        return well(_REPLICAS, f"{wanted}, as engine.replicas says{complete}")

    def _too_few(self, servers: int, *, can_work: bool) -> Finding:
        count = "one server" if servers == 1 else f"{servers} servers"
        found = f"engine.replicas is {self._replicas}, and the cluster has {count}"
        action = f"start {self._replicas} servers as one cluster: see docs/how-to/grow-nats.md"
        if can_work:
            return warning(_REPLICAS, found, action)
        return failure(_REPLICAS, f"{found}, so streams cannot be created", action)


async def _settled(engine: InspectedEngine) -> StorageFacts | EngineFault:
    """Return what JetStream holds, once no replica lags any more or one lags for seconds."""
    storage = await engine.storage()
    for _ in range(ASK_AGAIN_TIMES):
        if isinstance(storage, EngineFault) or not _behind(storage.streams):
            break
        if any(stream.leaderless for stream in storage.streams):  # each answer takes seconds
            break
        await asyncio.sleep(ASK_AGAIN_AFTER.total_seconds())
        storage = await engine.storage()
    return storage


def _behind(streams: Sequence[StreamFacts]) -> Sequence[StreamFacts]:
    return [stream for stream in streams if stream.replicas and stream.current < stream.replicas]


def _explain(check: str, fault: EngineFault) -> Finding:
    found = _FAULTS.get(fault.reason, "NATS cannot be used")
    return failure(check, f"{found} ({fault.reason})", f"check {fault.check}")


def _describe_server(server: ServerFacts) -> Finding:
    version = ".".join(map(str, server.version))
    if server.version < COUNTS_SINCE:
        found = f"NATS {version} cannot count, so each process limits clients by itself"
        return warning("engine", found, "upgrade NATS to 2.12 or later")
    alone = server.cluster_size == 1
    return well("engine", f"NATS {version}, {'one server' if alone else 'a cluster'}")


def _account(storage: StorageFacts) -> Finding:
    check, used = "engine.jetstream", f"{storage.used_bytes:,} bytes are in use"
    if storage.max_bytes <= 0:
        return well(check, f"enabled; {used}")
    found = f"{used} of the {storage.max_bytes:,} that the account may have"
    if storage.used_bytes + storage.missing_bytes > storage.max_bytes:
        found = f"{found}, and the missing streams reserve {storage.missing_bytes:,}"
        return warning(check, found, _LESS)
    return well(check, f"enabled; {found}")


def _streams(storage: StorageFacts) -> Finding:
    existing, missing = len(storage.streams), len(storage.missing)
    if not missing:
        return well("engine.streams", f"all {existing} exist")
    creation = "the next web process or worker that starts creates them"
    if existing:
        found = f"{_names(storage.missing)} of {existing + missing} are missing"
        return warning("engine.streams", found, f"wait: {creation}")
    return well("engine.streams", f"none yet: {creation}")


def _leaders(streams: Sequence[StreamFacts]) -> Finding:
    leaderless = [name for stream in streams for name in stream.leaderless]
    if leaderless:
        found = f"no server leads {_names(leaderless)}"
        return failure("engine.leaders", found, "start the missing servers: most must be there")
    return well("engine.leaders", "each stream and consumer has a leader")


def _limits(streams: Sequence[StreamFacts]) -> Finding:
    led = [stream for stream in streams if stream.replicas]
    other = [stream for stream in led if stream.max_bytes != stream.wanted_max_bytes]
    if not other:
        return well("engine.limits", "each stream has the limit that engine.archives asks for")
    found = f"{_streams_have(other)} another limit in bytes than engine.archives asks for"
    action = f"give every process of the fleet the same sources and engine.archives, or {_LESS}"
    return warning("engine.limits", found, action)


def _fullness(streams: Sequence[StreamFacts]) -> Finding:
    fullest = max(streams, key=lambda stream: stream.fullness)
    full = [stream.name for stream in streams if stream.fullness >= NEARLY_FULL]
    if full:
        found = f"nearly full: {_names(full)}"
        action = "raise engine.archives, or sources.NAME.queue_max for the work queue"
        return warning("engine.fullness", found, action)
    return well("engine.fullness", f"the fullest stream is {fullest.fullness:.0%} full")


_LESS = (
    "lower engine.archives, or raise max_file_store of NATS or the limit of the account: "
    f"see {NATS_PAGE}"
)


def _streams_have(streams: Sequence[StreamFacts]) -> str:
    return f"{streams[0].name} has" if len(streams) == 1 else f"{len(streams)} streams have"


def _names(names: Sequence[str]) -> str:
    """Return some of *names*, and how many more there are."""
    first, *others = names
    shown = ", ".join((first, *others[:2]))
    return f"{shown} and {len(others) - 2} more" if len(others) > 2 else shown  # noqa: PLR2004
