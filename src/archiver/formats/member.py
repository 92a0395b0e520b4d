"""A member of an archive, independent of the format, and the interface of archive writers."""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Protocol

import msgspec

from archiver.git_objects import RECORD_MAX_BYTES


class MemberKind(Enum):
    """The kinds that all formats have. A LINK is symbolic."""

    FILE = auto()
    LINK = auto()
    FOLDER = auto()


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """``mtime`` is in seconds since 1970, ``mode`` has the twelve permission bits.

    ``name`` has no trailing slash. ``link`` is a link's target. Only files have content.
    """

    name: bytes
    kind: MemberKind = MemberKind.FILE
    mode: int
    mtime: int
    link: bytes = b""
    size_bytes: int = 0


COMMENT_MAX_BYTES = 1024
"""Maximum length of the comment of an archive. Git's is an id."""

_PLAIN = re.compile(rb"[ -~]+")


class Comments(msgspec.Struct, frozen=True, kw_only=True):
    """The comment of a whole archive, which git sets to the commit's id, and of its first member.

    The first member is usually the root directory. Its comment is the encoded
    ``git_objects.CommitRecord``. Readers ignore both comments.
    """

    archive: bytes = b""
    first_member: bytes = b""

    def plain(self) -> "Comments":
        """Return the comments, each only if it is a short line of printable ASCII.

        Others may break the archive for some readers, and are of no use here.
        """
        first = self.first_member
        return Comments(
            archive=self.archive if is_plain(self.archive, COMMENT_MAX_BYTES) else b"",
            first_member=first if is_plain(first, RECORD_MAX_BYTES) else b"",
        )


def is_plain(comment: bytes, max_bytes: int) -> bool:
    """Return whether *comment* is a line of printable ASCII, of at most *max_bytes*."""
    return len(comment) <= max_bytes and _PLAIN.fullmatch(comment) is not None


class MemberWriter(Protocol):
    """Packs members one after another. The bytes depend only on the members and the comments."""

    def set_comments(self, comments: Comments) -> None:
        """Give the archive these comments, before its first member. They must be plain."""

    def start_member(self, member: Member) -> None:
        """Start a member, whose ``size_bytes`` must be written next. May raise NotConvertible."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> Iterator[bytes]:
        """Yield the remaining output, and the end of the archive."""

    def take_output(self, size: int) -> bytes:
        """Return the next *size* bytes, or more if they cannot be split; nothing if too few."""


class OutputBuffer:
    """Output that was produced and not taken yet. ``total_bytes`` counts the taken, too."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.held_bytes = 0
        self.total_bytes = 0

    def append(self, data: bytes) -> None:
        self._pieces.append(data)
        self.held_bytes += len(data)
        self.total_bytes += len(data)

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes, or nothing if there are fewer.

        Splits pieces, so that later stages need not join them again.
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

    def take_all(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.held_bytes = 0
        return taken
