"""Compares two archives member by member."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from archiver.errors import ArchiveTooLarge

HELD_MAX_BYTES = 128 << 20
"""Memory for members of one archive without a counterpart so far: some 200,000 members."""

HELD_PER_MEMBER_BYTES = 500
"""Size of a member in Python, besides its name and its link."""

DIFFERENCES_MAX = 1000
"""Differences that are reported in detail. Further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One member in any archive format. ``sha256`` is that of a file's bytes.

    ``kind`` is file, link or folder; ``mtime`` is in seconds since 1970.
    """

    name: bytes
    kind: str
    mode: int
    mtime: int
    link: bytes = b""
    size_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A member in both archives; None in an archive that lacks it."""

    name: bytes
    stored: Content | None
    fetched: Content | None

    @property
    def aspects(self) -> tuple[str, ...]:
        """The aspects in which the two differ; empty if one archive lacks the member."""
        if self.stored is None or self.fetched is None:
            return ()
        a, b = self.stored, self.fetched
        equal = {
            "kind": a.kind == b.kind,
            "mode": a.mode == b.mode,
            "time": a.mtime == b.mtime,
            "link": a.link == b.link,
            "content": (a.size_bytes, a.sha256) == (b.size_bytes, b.sha256),
        }
        return tuple(aspect for aspect, agrees in equal.items() if not agrees)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The number of ``members`` that differ, and the first of these ``differences``.

    ``reordered`` is true if the common members are in different orders.
    """

    members: int
    differences: tuple[Difference, ...]
    reordered: bool

    def __bool__(self) -> bool:
        return bool(self.members) or self.reordered


Listing = AsyncGenerator[Sequence[Content], None]
"""The members of an archive in order, several at a time."""


async def compare(stored: Listing, fetched: Listing) -> Drift:
    """Return the differences of two archives. Only members without a counterpart are held.

    When one archive has ended, further members of the other are only counted. Raises
    ArchiveTooLarge if the held members exceed HELD_MAX_BYTES.
    """
    comparison = _Comparison()
    async with aclosing(_each(stored)) as ours, aclosing(_each(fetched)) as theirs:
        while (pair := (await anext(ours, None), await anext(theirs, None))) != (None, None):
            comparison.add(*pair)
    return comparison.result()


async def _each(listing: Listing) -> AsyncGenerator[Content, None]:
    async with aclosing(listing):
        async for contents in listing:
            for content in contents:
                yield content


class _Side:
    """Members of one archive without a counterpart so far, with their positions.

    A name may occur more than once.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[int, Content]]] = {}
        self._seen = 0
        self._held_bytes = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._waiting

    def add(self, content: Content) -> None:
        self._held_bytes += _held_bytes(content)
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the two archives have too little in common to compare them")
        self._waiting.setdefault(content.name, deque()).append((self._seen, content))
        self._seen += 1

    def pop(self, name: bytes) -> tuple[int, Content]:
        waiting = self._waiting[name]
        first = waiting.popleft()
        if not waiting:
            del self._waiting[name]
        self._held_bytes -= _held_bytes(first[1])
        return first

    def remaining(self) -> list[Content]:
        return [content for waiting in self._waiting.values() for _, content in waiting]


def _held_bytes(content: Content) -> int:
    return HELD_PER_MEMBER_BYTES + len(content.name) + len(content.link)


class _Comparison:
    def __init__(self) -> None:
        self._stored = _Side()
        self._fetched = _Side()
        self._last = (-1, -1)
        self._members = 0
        self._differences: list[Difference] = []
        self._reordered = False

    def add(self, stored: Content | None, fetched: Content | None) -> None:
        """Add the next member of each archive; None if it has ended.

        After one archive has ended, a member of the other is held only if a counterpart waits.
        """
        if stored and (fetched or stored.name in self._fetched):
            self._stored.add(stored)
        elif stored:
            self._differ(stored.name, stored, None)
        if fetched and (stored or fetched.name in self._stored):
            self._fetched.add(fetched)
        elif fetched:
            self._differ(fetched.name, None, fetched)
        for content in filter(None, (stored, fetched)):
            self._match(content.name)

    def _match(self, name: bytes) -> None:
        """Compare the members called *name*.

        One of the two was just added, so it is the last of its archive so far. The order is the
        same while the other is also the last matched member of its own archive.
        """
        while name in self._stored and name in self._fetched:
            (ours, stored), (theirs, fetched) = self._stored.pop(name), self._fetched.pop(name)
            self._reordered |= ours < self._last[0] or theirs < self._last[1]
            self._last = max(ours, self._last[0]), max(theirs, self._last[1])
            if stored != fetched:
                self._differ(name, stored, fetched)

    def _differ(self, name: bytes, stored: Content | None, fetched: Content | None) -> None:
        self._members += 1
        if len(self._differences) < DIFFERENCES_MAX:
            self._differences.append(Difference(name=name, stored=stored, fetched=fetched))

    def result(self) -> Drift:
        for content in self._stored.remaining():
            self._differ(content.name, content, None)
        for content in self._fetched.remaining():
            self._differ(content.name, None, content)
        return Drift(
            members=self._members,
            differences=tuple(self._differences),
            reordered=self._reordered,
        )
