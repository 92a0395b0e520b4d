"""From a rev to its node: cached as long as it can be true, asked for once however many ask."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from archiver.errors import NotFound, TooManyWaiters, UnknownRev
from archiver.model import Node, parse_node
from archiver.ports.index import Index, Resolved
from archiver.ports.source import Source
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight

NAME_TTL = timedelta(seconds=60)
"""Branches and bookmarks move; a tag may. After this long the host is asked again."""

NEGATIVE_TTL = timedelta(seconds=10)
"""A fresh push reaches a host's mirrors late, so "unknown" is soon asked again."""

HEX_SPELLING_MIN = 12
"""From so many digits on, they mean their node for good. Fewer may come to be ambiguous."""

_HEX = re.compile(rf"[0-9A-Fa-f]{{{HEX_SPELLING_MIN},64}}")

QUESTIONS_MAX = 500
"""Different ones that may wait for their turn with a host, which answers some 100 a second."""

QUESTIONS_PER_CLIENT_MAX = 100
"""Of those, so that one client leaves room for others. A host answers as many in a second."""

ABSENT_MAX_BYTES = 8 * MEGABYTE
KNOWN_MAX_BYTES = 16 * MEGABYTE
"""Some 10,000 revs that are unknown, and some 25,000 nodes that are known."""

QUESTIONS_RETRY = timedelta(seconds=5)


Ask: TypeAlias = Callable[[], Awaitable[Resolved]]
"""A question to a host."""


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


class _Questions:
    """Counts the questions that wait for a host, of each source and of each client.

    Any client can think of any number of revs: so many questions wait at a time, and no more.
    """

    def __init__(self, *, per_source: int, per_client: int) -> None:
        self._per_source = per_source
        self._per_client = per_client
        self._of_source: Counter[str] = Counter()
        self._of_client: Counter[tuple[str, str]] = Counter()

    def counted(self, source: str, client: str, ask: Ask) -> Ask:
        """Return *ask*, which counts as a question from now on until it has run.

        Raises:
            TooManyWaiters: There are as many as may be.
        """
        if (
            self._of_source[source] >= self._per_source
            or self._of_client[source, client] >= self._per_client
        ):
            raise TooManyWaiters("too many questions wait for a host", retry_after=QUESTIONS_RETRY)
        self._count(source, client, 1)

        async def counted() -> Resolved:
            try:
                return await ask()
            finally:
                self._count(source, client, -1)

        return counted

    def _count(self, source: str, client: str, change: int) -> None:
        self._of_source[source] += change
        self._of_client[source, client] += change
        if not self._of_client[source, client]:
            del self._of_client[source, client]


class Resolver:
    """Answers what a rev means, from the index or from its source."""

    def __init__(
        self,
        *,
        index: Index,
        questions_max: int = QUESTIONS_MAX,
        questions_per_client_max: int = QUESTIONS_PER_CLIENT_MAX,
    ) -> None:
        self._index = index
        self._questions = _Questions(per_source=questions_max, per_client=questions_per_client_max)
        self._asking: SingleFlight[tuple[str, str, str], Resolved] = SingleFlight()
        self._absent: BoundedCache[tuple[str, str, str], _Absence] = BoundedCache(
            ttl=NEGATIVE_TTL, max_bytes=ABSENT_MAX_BYTES
        )
        self._known: BoundedCache[tuple[str, str, Node], None] = BoundedCache(
            max_bytes=KNOWN_MAX_BYTES
        )

    async def meaning(
        self, source: Source, repo: str, rev: str, *, client: str = "", share: bool = True
    ) -> Meaning:
        """Return what *rev* means; a full node means itself, known or not.

        *client* is whom a question to the host is counted for. With *share*, the fleet gets to know
        the host's answer; without, this process alone.

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
        resolved = await self._remembered(source, repo, rev)
        if resolved is None:
            resolved = await self._resolved(source, repo, rev, client=client, share=share)
        good_until = None if _spells_node(rev, resolved) else resolved.at + NAME_TTL
        return Meaning(node=resolved.node, good_until=good_until)

    async def _remembered(self, source: Source, repo: str, rev: str) -> Resolved | None:
        """Return what the index says of *rev* if that is true still."""
        for spelling in _spellings(rev):
            resolved = await self._index.node(source.name, repo, spelling)
            if resolved and _is_of(rev, spelling, resolved) and _still_true(spelling, resolved):
                return resolved
        return None

    async def _resolved(
        self, source: Source, repo: str, rev: str, *, client: str, share: bool
    ) -> Resolved:
        """Return what the host says of *rev*, in whichever spelling it is asked about first."""
        for spelling in _spellings(rev)[:-1]:
            with suppress(UnknownRev):
                self._raise_if_absent(source, repo, spelling)
                ask = partial(self._resolve, source, repo, spelling, share=share)
                resolved = await self._ask_once(source, repo, spelling, client, ask)
                if _is_of(rev, spelling, resolved):
                    return resolved
        ask = partial(self._resolve, source, repo, rev, share=share)
        return await self._ask_once(source, repo, rev, client, ask)

    async def require_known(
        self, source: Source, repo: str, node: Node, *, client: str = ""
    ) -> None:
        """Return if the host has *node*.

        Raises:
            UnknownRepo, UnknownRev: On the host's word, at most 10 s old.
            SourceError: The host did not answer.
            TooManyWaiters: So many questions wait that this one may not.
        """
        if (source.name, repo, node) in self._known:
            return
        self._raise_if_absent(source, repo, node)
        ask = partial(self._ask, source, repo, node)
        await self._ask_once(source, repo, node, client, ask)

    async def _ask_once(
        self, source: Source, repo: str, rev: str, client: str, ask: Ask
    ) -> Resolved:
        """Return what *ask* does. Those who come meanwhile join in, and count for nothing."""
        key = (source.name, repo, rev)
        if key not in self._asking:
            ask = self._questions.counted(source.name, client, ask)
        return await self._asking.run(key, ask)

    async def _resolve(self, source: Source, repo: str, rev: str, *, share: bool) -> Resolved:
        asked_at = datetime.now(UTC)
        try:
            node = await source.resolve(repo, rev)
        except NotFound as exc:
            self._note_absent(source, repo, rev, exc)
            raise
        self._known.put((source.name, repo, node), None)
        resolved = Resolved(node=node, at=asked_at)
        await self._index.remember(source.name, repo, rev, resolved, share=share)
        return resolved

    async def _ask(self, source: Source, repo: str, node: Node) -> Resolved:
        asked_at = datetime.now(UTC)
        try:
            if not await source.has_node(repo, node):
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


def _still_true(rev: str, resolved: Resolved) -> bool:
    return _spells_node(rev, resolved) or datetime.now(UTC) - resolved.at < NAME_TTL


def _spells_node(rev: str, resolved: Resolved) -> bool:
    return len(rev) >= HEX_SPELLING_MIN and resolved.node.startswith(rev.lower())


def _spellings(rev: str) -> tuple[str, ...]:
    """Return as what to look for *rev*, the last one being itself.

    All spellings of a node begin with the same 12 digits, whatever their length and letter case.
    What these mean is asked and stored once. A name may consist of digits as well, such as a date.
    """
    if _HEX.fullmatch(rev):
        return tuple(dict.fromkeys((rev[:HEX_SPELLING_MIN].lower(), rev)))
    return (rev,)


def _is_of(rev: str, spelling: str, resolved: Resolved) -> bool:
    """Tell whether what *spelling* means is what *rev* does."""
    return spelling == rev or resolved.node.startswith(rev.lower())
