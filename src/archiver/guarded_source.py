"""A source whose host is used only as its breaker admits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from archiver.guard import Guard
from archiver.model import Archive, Node
from archiver.ports.seats import Seats
from archiver.ports.source import OnReceived, Source, Stream


class GuardedSource:
    """Implements ``Source`` with another one. A lookup and the block of ``open`` are one use each.

    ``last_file`` and ``explain_unpackable`` belong to that of ``open``, during which they are
    called.
    """

    def __init__(self, source: Source, guard: Guard) -> None:
        self._source = source
        self._guard = guard
        self.name = source.name
        self.served = source.served
        self.node_digits = source.node_digits
        self.abbreviates = source.abbreviates
        self.completes = source.completes
        self.lookup_concurrency = source.lookup_concurrency
        self.url = source.url
        self.download_url = source.download_url
        self.identity_check = source.identity_check
        self.check_rev = source.check_rev
        self.last_file = source.last_file
        self.explain_unpackable = source.explain_unpackable

    async def resolve(self, repo: str, rev: str) -> Node:
        async with self._guard.use(self.name, repo):
            return await self._source.resolve(repo, rev)

    async def has_node(self, repo: str, node: Node) -> bool:
        async with self._guard.use(self.name, repo):
            return await self._source.has_node(repo, node)

    @asynccontextmanager
    async def open(
        self, archive: Archive, *, on_received: OnReceived | None = None
    ) -> AsyncIterator[Stream]:
        received_bytes = 0

        def note(size_bytes: int) -> None:
            nonlocal received_bytes
            received_bytes = max(received_bytes, size_bytes)
            if on_received:
                on_received(size_bytes)

        async with (
            self._guard.use(self.name, archive.repo) as use,
            self._source.open(archive, on_received=note) as stream,
        ):
            if stream.tree_check is None or received_bytes:
                await use.answered()
            else:  # made from a mirror alone
                use.proves_nothing()
            yield stream


class GuardedSeats:
    """Implements ``ports.seats.Seats`` with others. A fetch under a seat is a use of the host.

    So fetches beside a task, such as those of submodules, need no other guard.
    """

    def __init__(self, seats: Seats, guard: Guard) -> None:
        self._seats = seats
        self._guard = guard

    @asynccontextmanager
    async def take(self, source: str) -> AsyncIterator[None]:
        async with self._guard.use(source), self._seats.take(source):
            yield
