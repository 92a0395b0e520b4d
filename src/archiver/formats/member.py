"""One member of an archive, as any format has it."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Protocol

import msgspec


class Kind(Enum):
    """What a member may be, to be converted. A LINK is symbolic."""

    FILE = auto()
    LINK = auto()
    FOLDER = auto()


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """``mtime`` is in seconds since 1970, ``mode`` are the twelve bits of permission.

    ``name`` has no slash at its end. ``link`` is what a link points to; only a file has bytes.
    """

    name: bytes
    kind: Kind = Kind.FILE
    mode: int
    mtime: int
    link: bytes = b""
    size_bytes: int = 0


class Writer(Protocol):
    """Packs members, one after the other, and gives out what has been packed.

    The bytes depend on the members and on nothing else.
    """

    def begin(self, member: Member) -> None:
        """Go on to *member*, of which ``size_bytes`` bytes must follow.

        Raises:
            NotConvertible: The format has no such members.
        """

    def write(self, data: bytes) -> None: ...

    def finish(self) -> Iterator[bytes]:
        """Yield what has not been taken yet, and the archive's end."""

    def take(self, size: int) -> bytes:
        """Return *size* bytes of what was packed, or more where it cannot be cut.

        Nothing if there is less.
        """


class Output:
    """What has been made of a stream and nobody has taken yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.held_bytes = 0
        self.position = 0

    def put(self, data: bytes) -> None:
        self._pieces.append(data)
        self.held_bytes += len(data)
        self.position += len(data)

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes, if there are so many; else nothing.

        Cuts pieces in their middle, so that nobody further on has to put others together.
        """
        if self.held_bytes < size:
            return b""
        pieces = self._pieces
        self._pieces = []
        self.held_bytes -= size
        left = self.held_bytes
        while left:
            piece = pieces.pop()
            cut = max(0, len(piece) - left)
            self._pieces.insert(0, piece[cut:])
            left -= len(piece) - cut
            if cut:
                pieces.append(piece[:cut])
        return b"".join(pieces)

    def rest(self) -> bytes:
        """Return all of it."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.held_bytes = 0
        return taken
