"""From revs to nodes: this process, then NATS."""

from contextlib import suppress

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import MOVED
from archiver.jetstream.records import RevRecord, decode_rev, encode
from archiver.jetstream.streams import REVS
from archiver.model import Node, rev_hash
from archiver.ports.index import Resolved
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.telemetry import log

NODES_MAX_BYTES = 16 * MEGABYTE
"""About 25,000 revs."""


class RevIndex:
    """The part of ``ports.index.Index`` that is about revs."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._nodes: BoundedCache[str, Resolved] = BoundedCache(max_bytes=NODES_MAX_BYTES)
        connection.feed.subscribe(MOVED, lambda key, _payload: self._nodes.pop(key))
        connection.feed.gaps.add(self._nodes.clear)

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        with suppress(EngineUnavailable):
            return await self._node(rev_hash(source, repo, rev))
        return None

    async def _node(self, key: str) -> Resolved | None:
        if cached := self._nodes.get(key):
            return cached
        entry = await self._connection.kv.get(REVS, key)
        if entry is None:
            return None
        record = decode_rev(entry.value)
        if record is None:
            await self._connection.kv.remove_unreadable(REVS, key, entry)
            return None
        resolved = Resolved(node=Node(record.node), at=record.at)
        self._nodes.put(key, resolved)
        return resolved

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        key, before = rev_hash(source, repo, rev), None
        try:
            before = await self._node(key)
            if share:
                record = encode(RevRecord(node=resolved.node, at=resolved.at))
                await self._connection.kv.put(REVS, key, record)
        except EngineUnavailable as exc:
            log.warning("index.not_written", source=source, repo=repo, code=exc.code)
        if before and before.node != resolved.node:
            await self._connection.feed.publish(MOVED, key)
        self._nodes.put(key, resolved)
