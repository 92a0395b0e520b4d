"""From a rev to its node: cached as long as it can be true, asked for once however many ask."""

from datetime import UTC, datetime, timedelta

from archiver.concurrency import Coalesce
from archiver.errors import NotFound, UnknownRev
from archiver.memory import Memory
from archiver.model import Node, parse_node
from archiver.ports import Index, Resolved, Source

NAME_TTL = timedelta(seconds=60)
"""Branches and bookmarks move; a tag may. After this long the host is asked again."""

NEGATIVE_TTL = timedelta(seconds=10)
"""A fresh push reaches a host's mirrors late, so "unknown" is soon asked again."""

HEX_SPELLING_MIN = 12
"""From so many digits on, they mean their node for good. Fewer may come to be ambiguous."""


class Resolver:
    """Answers what a rev means, from the index or from its source."""

    def __init__(self, *, index: Index) -> None:
        self._index = index
        self._asking: Coalesce[tuple[str, str, str], Node] = Coalesce()
        self._absent: Memory[tuple[str, str, str], NotFound] = Memory(ttl=NEGATIVE_TTL)
        self._known: Memory[tuple[str, str, Node], None] = Memory()

    async def node(self, source: Source, repo: str, rev: str) -> Node:
        """Return the node of *rev*; a full node is returned as it is, known or not.

        Raises:
            InvalidRequest: The source refuses such a rev.
            UnknownRepo, UnknownRev: On the host's word, at most 10 s old.
            SourceError: The host did not answer.
        """
        if node := parse_node(rev):
            return node
        source.check_rev(rev)
        self._raise_if_absent(source, repo, rev)
        resolved = await self._index.node(source.name, repo, rev)
        if resolved and _still_true(rev, resolved):
            return resolved.node
        return await self._asking.run(
            (source.name, repo, rev), lambda: self._resolve(source, repo, rev)
        )

    async def require_known(self, source: Source, repo: str, node: Node) -> None:
        """Return if the host has *node*.

        Raises:
            UnknownRepo, UnknownRev: On the host's word, at most 10 s old.
            SourceError: The host did not answer.
        """
        if (source.name, repo, node) in self._known:
            return
        self._raise_if_absent(source, repo, node)
        await self._asking.run((source.name, repo, node), lambda: self._ask(source, repo, node))

    async def _resolve(self, source: Source, repo: str, rev: str) -> Node:
        asked_at = datetime.now(UTC)
        try:
            node = await source.resolve(repo, rev)
        except NotFound as exc:
            self._absent.put((source.name, repo, rev), exc)
            raise
        self._known.put((source.name, repo, node), None)
        await self._index.remember(source.name, repo, rev, Resolved(node=node, at=asked_at))
        return node

    async def _ask(self, source: Source, repo: str, node: Node) -> Node:
        try:
            if not await source.known(repo, node):
                raise UnknownRev(f"{source.name} has no changeset {node} in {repo}")
        except NotFound as exc:
            self._absent.put((source.name, repo, node), exc)
            raise
        self._known.put((source.name, repo, node), None)
        return node

    def _raise_if_absent(self, source: Source, repo: str, rev: str) -> None:
        if absent := self._absent.get((source.name, repo, rev)):
            raise type(absent)(absent.message)


def _still_true(rev: str, resolved: Resolved) -> bool:
    spells_node = len(rev) >= HEX_SPELLING_MIN and resolved.node.startswith(rev.lower())
    return spells_node or datetime.now(UTC) - resolved.at < NAME_TTL
