"""From a rev to its node: cached as long as it can be true, asked for once however many ask."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from archiver.concurrency import Coalesce
from archiver.errors import NotFound, TooManyWaiters, UnknownRev
from archiver.memory import MEGABYTE, Memory
from archiver.model import Node, parse_node
from archiver.ports import Index, Resolved, Source

NAME_TTL = timedelta(seconds=60)
"""Branches and bookmarks move; a tag may. After this long the host is asked again."""

NEGATIVE_TTL = timedelta(seconds=10)
"""A fresh push reaches a host's mirrors late, so "unknown" is soon asked again."""

HEX_SPELLING_MIN = 12
"""From so many digits on, they mean their node for good. Fewer may come to be ambiguous."""

QUESTIONS_MAX = 500
"""Different ones that may wait for their turn with a host, which answers some 100 a second."""

ABSENT_MAX_BYTES = 8 * MEGABYTE
KNOWN_MAX_BYTES = 16 * MEGABYTE
"""Some 10,000 revs that are unknown, and some 25,000 nodes that are known."""

QUESTIONS_RETRY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The node that a rev names: until ``good_until``, or for good if that is None."""

    node: Node
    good_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Absence:
    """What the host said that it does not have. An exception would hold all that led to it."""

    kind: type[NotFound]
    message: str


class Resolver:
    """Answers what a rev means, from the index or from its source.

    Any client can think of any number of revs: so many questions wait at a time, and no more.
    """

    def __init__(self, *, index: Index, questions_max: int = QUESTIONS_MAX) -> None:
        self._index = index
        self._questions_max = questions_max
        self._asking: Coalesce[tuple[str, str, str], Resolved] = Coalesce()
        self._absent: Memory[tuple[str, str, str], _Absence] = Memory(
            ttl=NEGATIVE_TTL, max_bytes=ABSENT_MAX_BYTES
        )
        self._known: Memory[tuple[str, str, Node], None] = Memory(max_bytes=KNOWN_MAX_BYTES)

    async def meaning(self, source: Source, repo: str, rev: str) -> Meaning:
        """Return what *rev* means; a full node means itself, known or not.

        Raises:
            InvalidRequest: The source refuses such a rev.
            UnknownRepo, UnknownRev: On the host's word, at most 10 s old.
            SourceError: The host did not answer.
            TooManyWaiters: So many questions wait that this one may not.
        """
        if node := parse_node(rev):
            return Meaning(node=node)
        source.check_rev(rev)
        self._raise_if_absent(source, repo, rev)
        resolved = await self._index.node(source.name, repo, rev)
        if resolved is None or not _still_true(rev, resolved):
            self._raise_if_crowded(source, repo, rev)
            resolved = await self._asking.run(
                (source.name, repo, rev), lambda: self._resolve(source, repo, rev)
            )
        good_until = None if _spells_node(rev, resolved) else resolved.at + NAME_TTL
        return Meaning(node=resolved.node, good_until=good_until)

    async def require_known(self, source: Source, repo: str, node: Node) -> None:
        """Return if the host has *node*.

        Raises:
            UnknownRepo, UnknownRev: On the host's word, at most 10 s old.
            SourceError: The host did not answer.
        """
        if (source.name, repo, node) in self._known:
            return
        self._raise_if_absent(source, repo, node)
        self._raise_if_crowded(source, repo, node)
        await self._asking.run((source.name, repo, node), lambda: self._ask(source, repo, node))

    async def _resolve(self, source: Source, repo: str, rev: str) -> Resolved:
        asked_at = datetime.now(UTC)
        try:
            node = await source.resolve(repo, rev)
        except NotFound as exc:
            self._note_absent(source, repo, rev, exc)
            raise
        self._known.put((source.name, repo, node), None)
        resolved = Resolved(node=node, at=asked_at)
        await self._index.remember(source.name, repo, rev, resolved)
        return resolved

    async def _ask(self, source: Source, repo: str, node: Node) -> Resolved:
        asked_at = datetime.now(UTC)
        try:
            if not await source.known(repo, node):
                raise UnknownRev(f"{source.name} has no changeset {node} in {repo}")
        except NotFound as exc:
            self._note_absent(source, repo, node, exc)
            raise
        self._known.put((source.name, repo, node), None)
        return Resolved(node=node, at=asked_at)

    def _note_absent(self, source: Source, repo: str, rev: str, exc: NotFound) -> None:
        absence = _Absence(kind=type(exc), message=exc.message)
        self._absent.put((source.name, repo, rev), absence)

    def _raise_if_absent(self, source: Source, repo: str, rev: str) -> None:
        if absent := self._absent.get((source.name, repo, rev)):
            raise absent.kind(absent.message)

    def _raise_if_crowded(self, source: Source, repo: str, rev: str) -> None:
        if len(self._asking) >= self._questions_max and (
            (source.name, repo, rev) not in self._asking
        ):
            raise TooManyWaiters("too many questions wait for a host", retry_after=QUESTIONS_RETRY)


def _still_true(rev: str, resolved: Resolved) -> bool:
    return _spells_node(rev, resolved) or datetime.now(UTC) - resolved.at < NAME_TTL


def _spells_node(rev: str, resolved: Resolved) -> bool:
    return len(rev) >= HEX_SPELLING_MIN and resolved.node.startswith(rev.lower())
