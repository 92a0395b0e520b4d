"""Lists the refs of a repository (``ls-refs``), and hands them to a caller one by one.

Format: https://git-scm.com/docs/protocol-v2, "ls-refs".
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from archiver.model import Node
from archiver.sources.git.client import GitClient
from archiver.sources.git.pkt_line import (
    MalformedPktLineError,
    Marker,
    Packet,
    PktDecoder,
    raise_in_band,
)

REFS_MAX = 100_000
"""Refs that are read. Large repositories have some 10,000."""

LISTING_MAX_BYTES = 8 << 20
"""Size of a listing. A ref needs some 70 bytes, an annotated tag twice as many."""

_PIECE_BYTES = 64 * 1024
"""Read at a time. Parsing this much takes about a millisecond."""

_REF = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([^ \n]+)((?: [^ \n]+)*)\n?")
_PEELED = re.compile(rb" peeled:([0-9a-f]{40}|[0-9a-f]{64})(?: |$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A ref with its full name, and the object to which it finally leads: usually a commit.

    ``node`` is that of the innermost object of an annotated tag, which is not always a commit.
    """

    name: str
    node: Node


async def scan_refs(
    client: GitClient, repo: str, *, prefixes: Sequence[str], take: Callable[[Ref], bool]
) -> bool:
    """Call *take* with each ref that begins with one of *prefixes*, until it has enough.

    Hosts may ignore the prefixes. Returns False if the listing exceeded a limit first. Raises
    UnknownRepo, UnsupportedHost, or another SourceError.
    """
    digits = (await client.capabilities(repo)).digits
    arguments = ["peel", "symrefs", *(f"ref-prefix {prefix}" for prefix in prefixes)]
    async with client.query(repo, "ls-refs", arguments) as response:
        with client.failures.translated(), suppress(_TooLongError):
            listing = _Listing(digits)
            while piece := await response.read(_PIECE_BYTES):
                if any(take(ref) for ref in listing.feed(piece)):
                    return True
                await asyncio.sleep(0)  # a piece that has arrived is read without a pause
            if listing.is_empty:
                raise client.failures.empty()
            listing.finish()
            return True
    return False


class _TooLongError(Exception):
    """The listing exceeds a limit."""


class _Listing:
    """Parses a listing with ids of *digits*, piece by piece."""

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._decoder = PktDecoder()
        self._size_bytes = 0
        self._refs = 0
        self._is_ended = False

    @property
    def is_empty(self) -> bool:
        return not self._size_bytes

    def feed(self, piece: bytes) -> Iterator[Ref]:
        self._size_bytes += len(piece)
        if self._size_bytes > LISTING_MAX_BYTES:
            raise _TooLongError
        for packet in self._decoder.feed(piece):
            if self._is_ended:
                raise MalformedPktLineError("bytes follow the end of the listing")
            if packet is Marker.FLUSH:
                self._is_ended = True
            elif self._refs == REFS_MAX:
                raise _TooLongError
            else:
                self._refs += 1
                yield self._ref(packet)

    def finish(self) -> None:
        if not self._is_ended:
            raise MalformedPktLineError("the listing has no end")
        self._decoder.finish()

    def _ref(self, packet: Packet) -> Ref:
        raise_in_band(packet)
        line = _REF.fullmatch(packet) if isinstance(packet, bytes) else None
        if not line:
            raise MalformedPktLineError("the listing has a line without a ref")
        peeled = _PEELED.search(line[3])
        node = (peeled[1] if peeled else line[1]).decode()
        if len(node) != self._digits:
            raise MalformedPktLineError("the listing has an id of another object format")
        return Ref(name=line[2].decode(errors="surrogateescape"), node=Node(node))
