"""Resolves revs to nodes: from the index while an entry is valid, otherwise from the host."""

import re
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from archiver.errors import LimitReached, NotFound, TooManyWaiters, UnknownRev
from archiver.lookup_line import (
    AdmitLookup,
    Lookup,
    LookupCause,
    LookupLimits,
    LookupLine,
    admit_freely,
)
from archiver.model import Node, parse_node
from archiver.ports.index import Index, Resolved
from archiver.ports.source import Source
from archiver.ports.storage import Storage
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.single_flight import SingleFlight
from archiver.telemetry.tracing import Kind, SpanName, span

NAME_TTL = timedelta(seconds=60)
"""How long a name is cached. Branches and bookmarks move; a tag may."""

NEGATIVE_TTL = timedelta(seconds=10)
"""How long "unknown" is cached. A fresh push reaches the mirrors of a host late."""

HEX_SPELLING_MIN = 12
"""From this many digits on, a prefix is taken as permanent. Shorter ones may become ambiguous."""

_DIGITS = re.compile(r"[0-9A-Fa-f]{4,63}")
"""Git abbreviates nodes to at least 4 digits."""

_HEX = re.compile(rf"[0-9A-Fa-f]{{{HEX_SPELLING_MIN},64}}")

ABSENT_MAX_BYTES = 8 * MEGABYTE
KNOWN_MAX_BYTES = 16 * MEGABYTE
"""Room for some 10,000 unknown revs and some 25,000 known nodes."""

_LIMITS = LookupLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The node of a rev: valid until ``good_until``; without it, for good."""

    node: Node
    good_until: datetime | None = None


class Resolver:
    """Resolves revs, with one request to the host for all concurrent callers."""

    def __init__(self, *, index: Index, storage: Storage, limits: LookupLimits = _LIMITS) -> None:
        self._index = index
        self._storage = storage
        self._limits = limits
        self._lines: dict[str, LookupLine] = {}
        self._lookups: SingleFlight[tuple[str, ...], Resolved] = SingleFlight()
        # The class and the message of an error; unlike the error, they hold no frames.
        self._absent: BoundedCache[tuple[str, str, str], tuple[type[NotFound], str]] = BoundedCache(
            ttl=NEGATIVE_TTL, max_bytes=ABSENT_MAX_BYTES
        )
        self._known: BoundedCache[tuple[str, str, Node], None] = BoundedCache(
            max_bytes=KNOWN_MAX_BYTES
        )

    async def resolve(
        self,
        source: Source,
        repo: str,
        rev: str,
        *,
        client: str = "",
        admit: AdmitLookup = admit_freely,
        share: bool = True,
    ) -> Resolution:
        """Return the node of *rev*. A full node resolves to itself, known or not.

        A lookup counts against *client*, and *admit* is called before a lookup of a rev that was
        not known before. With *share*, other processes learn its result.

        Raises:
            InvalidRequest: The source refuses such a rev.
            UnknownRepo, UnknownRev: The host said so at most 10 s ago.
            SourceError: The host did not respond, or the lookup's turn did not come.
            TooManyWaiters: Too many lookups wait for the host.
            ArchiverError: *admit* raised it.
        """
        node = parse_node(rev)
        if node and len(node) in source.node_digits:
            return Resolution(node=node)
        source.check_rev(rev)
        self._raise_if_absent(source, repo, rev)
        resolved = await self._cached(source, repo, rev)
        if resolved is None or not _is_valid(rev, resolved):
            caused = LookupCause(client, admit_freely if resolved else admit)
            resolved = await self._look_up(source, repo, rev, caused, share=share)
        good_until = None if _begins_node(rev, resolved) else resolved.at + NAME_TTL
        return Resolution(node=resolved.node, good_until=good_until)

    async def _cached(self, source: Source, repo: str, rev: str) -> Resolved | None:
        """Return the entry of *rev* that is valid, else one that is not, else None."""
        outdated = None
        for spelling in _spellings(source, rev):
            resolved = await self._index.node(source.name, repo, spelling)
            if resolved and _applies(rev, spelling, resolved):
                if _is_valid(rev, resolved):
                    return resolved
                outdated = resolved
        return outdated

    async def _look_up(
        self, source: Source, repo: str, rev: str, caused: LookupCause, *, share: bool
    ) -> Resolved:
        """Return the host's answer for the first spelling of *rev* that it knows."""
        for spelling in _spellings(source, rev)[:-1]:
            with suppress(UnknownRev):
                self._raise_if_absent(source, repo, spelling)
                lookup = partial(self._resolve_at_host, source, repo, spelling, share=share)
                resolved = await self._run_once(source, (repo, spelling), caused, lookup)
                if _applies(rev, spelling, resolved):
                    return resolved
        lookup = partial(self._resolve_at_host, source, repo, rev, share=share)
        return await self._run_once(source, (repo, rev), caused, lookup)

    async def require_known(
        self,
        source: Source,
        repo: str,
        node: Node,
        *,
        client: str = "",
        admit: AdmitLookup = admit_freely,
    ) -> None:
        """Return if the host has *node*; otherwise raise as ``resolve``."""
        if (source.name, repo, node) in self._known:
            return
        self._raise_if_absent(source, repo, node)
        lookup = partial(self._find_node, source, repo, node)
        await self._run_once(source, (repo, node), LookupCause(client, admit), lookup)

    async def _run_once(
        self, source: Source, rev: tuple[str, ...], caused: LookupCause, lookup: Lookup
    ) -> Resolved:
        """Run *lookup*, or share the one that waits or runs. Sharing does not count.

        If the client of a shared one was refused, or lost its place, this client has a lookup of
        its own.
        """
        key = (source.name, *rev)
        line = self._line(source)
        leads = key not in self._lookups
        if leads:
            lookup = line.join(key, caused, lookup)
        else:
            line.share(key, caused.client)
        try:
            return await self._lookups.join_or_start(key, lookup)
        except (LimitReached, TooManyWaiters):
            own = (*rev[:2], caused.client)
            if leads or rev == own:
                raise
        return await self._run_once(source, own, caused, lookup)

    def _line(self, source: Source) -> LookupLine:
        if source.name not in self._lines:
            self._lines[source.name] = LookupLine(
                at_a_time=source.lookup_concurrency, limits=self._limits
            )
        return self._lines[source.name]

    async def _resolve_at_host(
        self, source: Source, repo: str, rev: str, *, share: bool
    ) -> Resolved:
        resolved = await self._ask(source, repo, rev, self._node(source, repo, rev))
        await self._index.remember(source.name, repo, rev, resolved, share=share)
        return resolved

    async def _node(self, source: Source, repo: str, rev: str) -> Node:
        """Return the host's node, or that of an archive if the host cannot complete digits."""
        try:
            return await source.resolve(repo, rev)
        except UnknownRev:
            if source.abbreviates or not _DIGITS.fullmatch(rev):
                raise
            nodes = await self._storage.find_nodes(source.name, repo, rev.lower(), at_most=2)
            if len(nodes) != 1:
                raise
            return next(iter(nodes))

    async def _find_node(self, source: Source, repo: str, node: Node) -> Resolved:
        async def find() -> Node:
            if not await source.has_node(repo, node):
                raise UnknownRev(f"{source.name} has no changeset {node} in {repo}")
            return node

        return await self._ask(source, repo, node, find())

    async def _ask(self, source: Source, repo: str, rev: str, answer: Awaitable[Node]) -> Resolved:
        started_at = datetime.now(UTC)
        with span(SpanName.LOOKUP, kind=Kind.CLIENT, source=source.name) as lookup:
            try:
                node = await answer
            except NotFound as exc:
                self._absent.put((source.name, repo, rev), (type(exc), exc.message))
                lookup.set(outcome=exc.code)
                lookup.end()  # an answer, not a failure
                raise
            lookup.set(outcome="ok")
        self._known.put((source.name, repo, node), None)
        return Resolved(node=node, at=started_at)

    def _raise_if_absent(self, source: Source, repo: str, rev: str) -> None:
        if absent := self._absent.get((source.name, repo, rev)):
            kind, message = absent
            raise kind(message)


def _is_valid(rev: str, resolved: Resolved) -> bool:
    return _begins_node(rev, resolved) or datetime.now(UTC) - resolved.at < NAME_TTL


def _begins_node(rev: str, resolved: Resolved) -> bool:
    return len(rev) >= HEX_SPELLING_MIN and resolved.node.startswith(rev.lower())


def _spellings(source: Source, rev: str) -> tuple[str, ...]:
    """Return the spellings under which *rev* is looked up, in order. The last is *rev* itself.

    All spellings of a node begin with the same 12 digits, whatever their length and letter case,
    so these digits are looked up and stored once. A name, such as a date, may consist of digits,
    too.
    """
    if _HEX.fullmatch(rev) and len(rev) <= max(source.node_digits):
        return tuple(dict.fromkeys((rev[:HEX_SPELLING_MIN].lower(), rev)))
    return (rev,)


def _applies(rev: str, spelling: str, resolved: Resolved) -> bool:
    """Return whether the node of *spelling* is that of *rev*."""
    return spelling == rev or resolved.node.startswith(rev.lower())
