"""Fetches the pack of one commit (``fetch``), without its history.

Format: https://git-scm.com/docs/protocol-v2, "fetch".
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from enum import Enum, auto

from archiver.errors import ArchiverError, BadPack
from archiver.model import Node
from archiver.sources.git.client import GitClient
from archiver.sources.git.failures import Failures
from archiver.sources.git.pkt_line import (
    MalformedPktLineError,
    Marker,
    Packet,
    PktDecoder,
    raise_in_band,
)

BESIDE_MAX_BYTES = 1 << 20
"""Size of everything beside the pack. Git needs some 100 bytes, if not asked for its progress."""

SMALL_BYTES = 256
"""The frames of smaller pieces of the pack count as well. Git sends pieces of at least 8 KiB."""

LENGTH_BYTES = 4
"""Size of the length before each line."""

_PACK_START = b"PACK"
_SECTION = re.compile(rb"[a-z][a-z-]{0,63}\n?")


class FatalBandError(Exception):
    """The host stopped in the middle of the pack. ``text`` is its own, and untrusted."""

    def __init__(self, text: bytes) -> None:
        super().__init__("the host stopped in the middle of the pack")
        self.text = text


class NotAPackError(FatalBandError):
    """The host sent a ``text`` at the place of the pack."""


class _Place(Enum):
    """The next line of a response."""

    HEADING = auto()
    """Names the next section."""

    SECTION = auto()
    """Belongs to a section that Archiver ignores, such as ``shallow-info``."""

    PACK = auto()
    END = auto()


class PackDecoder:
    """Extracts the pack from the response to ``fetch``, piece by piece."""

    def __init__(self) -> None:
        self._decoder = PktDecoder()
        self._place = _Place.HEADING
        self._start = b""
        self._beside_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether the pack has begun, which shows that the host accepts the request."""
        return self._start == _PACK_START

    def feed(self, piece: bytes) -> bytes:
        """Return the part of the pack in *piece*.

        Raises InBandError, FatalBandError, NotAPackError, or MalformedPktLineError.
        """
        pack = b"".join(map(self._read, self._decoder.feed(piece)))
        if not self.has_begun:
            self._start = (self._start + pack)[: len(_PACK_START)]
            if not _PACK_START.startswith(self._start):
                raise NotAPackError(pack)
        return pack

    def finish(self) -> None:
        """Return if the response may end here. Raises MalformedPktLineError."""
        self._decoder.finish()
        if self._place is not _Place.END or not self.has_begun:
            raise MalformedPktLineError("the pack has no end")

    def _read(self, packet: Packet) -> bytes:
        raise_in_band(packet)
        if self._place is _Place.PACK:
            return self._read_band(packet)
        if self._place is _Place.END:
            raise MalformedPktLineError("bytes follow the end of the pack")
        if self._place is _Place.HEADING:
            self._read_heading(packet)
        elif packet is Marker.DELIMITER:
            self._place = _Place.HEADING
        elif isinstance(packet, Marker):
            raise MalformedPktLineError("the response has no pack")
        self._count_beside(packet)
        return b""

    def _read_heading(self, packet: Packet) -> None:
        if isinstance(packet, Marker) or not _SECTION.fullmatch(packet):
            raise MalformedPktLineError("a section has no name")
        is_pack = packet.removesuffix(b"\n") == b"packfile"
        self._place = _Place.PACK if is_pack else _Place.SECTION

    def _read_band(self, packet: Packet) -> bytes:
        """Return the content of the first band. The others are progress, and a last error."""
        if packet is Marker.FLUSH:
            self._place = _Place.END
            return b""
        if isinstance(packet, Marker):
            raise MalformedPktLineError("the pack has a line of another kind")
        band, content = packet[:1], packet[1:]
        match band:
            case b"\1":
                if len(content) < SMALL_BYTES:
                    self._count_beside(packet[:1])
                return content
            case b"\2":
                self._count_beside(packet)
                return b""
            case b"\3":
                raise FatalBandError(content)
            case _:
                raise MalformedPktLineError("the pack has an unknown band")

    def _count_beside(self, packet: Packet) -> None:
        """Count the bytes on the wire, so that empty lines are not free."""
        self._beside_bytes += LENGTH_BYTES + (len(packet) if isinstance(packet, bytes) else 0)
        if self._beside_bytes > BESIDE_MAX_BYTES:
            raise MalformedPktLineError("too much is sent beside the pack")


class PackStream:
    """A pack that the host has begun to send."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], failures: Failures, *, unknown: ArchiverError
    ) -> None:
        self._pieces = pieces
        self._failures = failures
        self._unknown = unknown
        self._decoder = PackDecoder()
        self._first = b""

    async def begin(self) -> None:
        """Read until the pack begins. Raises UnknownRev or SourceError."""
        is_empty = True
        async for piece in self._pieces:
            is_empty = False
            with self._translated():
                self._first += self._decoder.feed(piece)
            if self._decoder.has_begun:
                return
        raise self._failures.empty() if is_empty else self._broken()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the pack in chunks of at most about 1 MiB. Call it once.

        Its end proves that the host sent everything that it wanted to send. Raises BadPack,
        SourceTooSlow, SourceTimeout, SourceUnavailable or SourceBusy.
        """
        yield self._first
        self._first = b""
        async for piece in self._pieces:
            with self._translated():
                pack = self._decoder.feed(piece)
            if pack:
                yield pack
        with self._translated():
            self._decoder.finish()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with self._failures.translated(on_unknown_node=self._unknown, malformed=self._broken()):
            try:
                yield
            except NotAPackError as exc:
                bad = self._failures.bad_pack("sent something else in place of a pack")
                raise self._failures.reported(exc.text, bad) from exc
            except FatalBandError as exc:
                raise self._failures.reported(exc.text) from exc

    def _broken(self) -> BadPack:
        return self._failures.bad_pack("sent a pack that breaks off or has a malformed frame")


@asynccontextmanager
async def open_pack(
    client: GitClient, repo: str, node: Node, haves: Sequence[Node] = ()
) -> AsyncIterator[PackStream]:
    """Request the commit *node*, and yield its pack once the host begins to send it.

    The pack has the commit and its files, without the objects of the commits in *haves*, of which
    the caller must have everything but their parents. It may be thin: deltas may refer to objects
    of *haves*.

    Raises UnknownRepo, UnknownRev, UnsupportedHost, or another SourceError.
    """
    unknown = client.failures.unknown_rev(repo, node)
    if len(node) != (await client.capabilities(repo)).digits:
        raise unknown
    async with (
        client.send(
            repo, "fetch", _arguments(node, haves), deadline=client.config.deadline
        ) as response,
        aclosing(response.chunks(broken_off=BadPack)) as pieces,
    ):
        pack = PackStream(pieces, client.failures, unknown=unknown)
        await pack.begin()
        yield pack


def _arguments(node: Node, haves: Sequence[Node]) -> list[str]:
    """Return the arguments of ``fetch``: never one with which a host could name other URLs."""
    known = [f"{word} {have}" for have in haves for word in ("shallow", "have")]
    return ["thin-pack", "ofs-delta", "no-progress", *known, "deepen 1", f"want {node}", "done"]
