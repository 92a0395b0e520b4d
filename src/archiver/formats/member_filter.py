"""The part of a tree that is wanted, on its way into another archive."""

from collections.abc import Iterator

import msgspec

from archiver.errors import UnknownSubdir
from archiver.formats.member import Member, Writer
from archiver.model import Archive

PIECE_BYTES = 1 << 20
"""What a piece of an archive has, unless told otherwise. As what is deflated: it spares a copy."""


class Selection:
    """Hands on to *writer* those members of *given* that *wanted* has as well.

    They are moved from below *root* to below *client_root*, if that is given. Pieces of
    *piece_bytes* are taken of it, but for the last.
    """

    def __init__(
        self,
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        writer: Writer,
        client_root: str = "",
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._wanted = wanted
        self._piece_bytes = piece_bytes
        self._all = given.subdir == wanted.subdir
        self._top = f"{root}/{wanted.subdir}".encode()
        self._root = root.encode()
        self._client_root = (client_root or root).encode()
        self._writer = writer
        self._empty = True
        self.write = writer.write

    def has(self, name: bytes) -> bool:
        return self._all or name == self._top or name.startswith(self._top + b"/")

    def begin(self, member: Member) -> None:
        """Go on to a member that is wanted; what it holds has to be written next."""
        self._writer.begin(self._moved(member))
        self._empty = False

    def _moved(self, member: Member) -> Member:
        """Return *member* below the root that clients expect."""
        if self._client_root == self._root:
            return member
        name = self._client_root + member.name.removeprefix(self._root)
        return msgspec.structs.replace(member, name=name)

    def take(self) -> bytes:
        """Return a piece of what has been packed meanwhile, if that is enough for one."""
        return self._writer.take(self._piece_bytes)

    def finish(self) -> Iterator[bytes]:
        """Yield the rest.

        Raises:
            UnknownSubdir: Nothing was wanted.
        """
        if self._empty:
            raise UnknownSubdir(f"there is no {self._wanted.subdir} in {self._wanted.repo}")
        yield from self._writer.finish()
