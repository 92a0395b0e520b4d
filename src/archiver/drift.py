"""In what two archives differ that should be the same, member by member."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from archiver.errors import ArchiveTooLarge

HELD_MAX_BYTES = 128 << 20
"""Memory for the members of one archive that have not been met in the other one: some 200,000."""

HELD_PER_MEMBER_BYTES = 500
"""What Python needs for one, besides its name and its link."""

TOLD = 1000
"""How many differences are kept: who has more of them is helped by their number alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One member, whatever the format of its archive. ``sha256`` is that of a file's bytes.

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
    """A member as one archive has it and as the other has it; None: it has no such member."""

    name: bytes
    stored: Content | None
    fetched: Content | None

    @property
    def aspects(self) -> tuple[str, ...]:
        """In what the two differ; nothing if there is only one."""
        if self.stored is None or self.fetched is None:
            return ()
        a, b = self.stored, self.fetched
        same = {
            "kind": a.kind == b.kind,
            "mode": a.mode == b.mode,
            "time": a.mtime == b.mtime,
            "link": a.link == b.link,
            "content": (a.size_bytes, a.sha256) == (b.size_bytes, b.sha256),
        }
        return tuple(aspect for aspect, agrees in same.items() if not agrees)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """All in which two archives differ: ``members`` of them, of which the first are told.

    ``reordered`` says that the members that both have come in another order.
    """

    members: int
    differences: tuple[Difference, ...]
    reordered: bool

    def __bool__(self) -> bool:
        return bool(self.members) or self.reordered


Listing = AsyncGenerator[Sequence[Content], None]
"""The members of an archive in their order, some at a time."""


async def compare(stored: Listing, fetched: Listing) -> Drift:
    """Return in what two archives differ. Holds no more of them than is out of step.

    When one has ended, the rest of the other is counted and not held.

    Raises:
        ArchiveTooLarge: That is more than HELD_MAX_BYTES.
    """
    comparison = _Comparison()
    async with aclosing(_each(stored)) as ours, aclosing(_each(fetched)) as theirs:
        while (pair := (await anext(ours, None), await anext(theirs, None))) != (None, None):
            comparison.see(*pair)
    return comparison.result()


async def _each(listing: Listing) -> AsyncGenerator[Content, None]:
    async with aclosing(listing):
        async for contents in listing:
            for content in contents:
                yield content


class _Side:
    """Members of one archive that have not been met in the other one, and where they stand.

    A name may come more than once.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[int, Content]]] = {}
        self._seen = 0
        self._held_bytes = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._waiting

    def put(self, content: Content) -> None:
        self._held_bytes += _held_bytes(content)
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the two archives have too little in common to compare them")
        self._waiting.setdefault(content.name, deque()).append((self._seen, content))
        self._seen += 1

    def take(self, name: bytes) -> tuple[int, Content]:
        waiting = self._waiting[name]
        first = waiting.popleft()
        if not waiting:
            del self._waiting[name]
        self._held_bytes -= _held_bytes(first[1])
        return first

    def left(self) -> list[Content]:
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

    def see(self, stored: Content | None, fetched: Content | None) -> None:
        """Go on to the next member of each archive; None: it has ended.

        Then a member of the other one is held only if its like still waits here.
        """
        if stored and (fetched or stored.name in self._fetched):
            self._stored.put(stored)
        elif stored:
            self._differ(stored.name, stored, None)
        if fetched and (stored or fetched.name in self._stored):
            self._fetched.put(fetched)
        elif fetched:
            self._differ(fetched.name, None, fetched)
        for content in filter(None, (stored, fetched)):
            self._match(content.name)

    def _match(self, name: bytes) -> None:
        """Compare those of the *name*.

        One of them has just come, so it is the last of its archive: the order is the same as long
        as the other one is, too, the last that was matched of its own.
        """
        while name in self._stored and name in self._fetched:
            (ours, stored), (theirs, fetched) = self._stored.take(name), self._fetched.take(name)
            self._reordered |= ours < self._last[0] or theirs < self._last[1]
            self._last = max(ours, self._last[0]), max(theirs, self._last[1])
            if stored != fetched:
                self._differ(name, stored, fetched)

    def _differ(self, name: bytes, stored: Content | None, fetched: Content | None) -> None:
        self._members += 1
        if len(self._differences) < TOLD:
            self._differences.append(Difference(name=name, stored=stored, fetched=fetched))

    def result(self) -> Drift:
        for content in self._stored.left():
            self._differ(content.name, content, None)
        for content in self._fetched.left():
            self._differ(content.name, None, content)
        return Drift(
            members=self._members,
            differences=tuple(self._differences),
            reordered=self._reordered,
        )
