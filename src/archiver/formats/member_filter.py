"""Selects the members of a subdirectory, and moves them below another root."""

from collections.abc import Iterator

import msgspec

from archiver.errors import UnknownSubdir
from archiver.formats.member import Member, MemberWriter
from archiver.model import Archive

PIECE_BYTES = 1 << 20
"""Default size of the pieces of output. Equals the size of deflated blocks, which saves a copy."""


class MemberFilter:
    """Passes on to *writer* the members of *original* that *target* has as well.

    Moves them from *root* to *client_root*, if given. All pieces of output but the last have
    *piece_bytes*.
    """

    def __init__(
        self,
        *,
        original: Archive,
        target: Archive,
        root: str,
        writer: MemberWriter,
        client_root: str = "",
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._target = target
        self._piece_bytes = piece_bytes
        self._includes_all = original.subdir == target.subdir
        self._top = f"{root}/{target.subdir}".encode()
        self._root = root.encode()
        self._client_root = (client_root or root).encode()
        self._writer = writer
        self._empty = True
        self.write = writer.write

    def includes(self, name: bytes) -> bool:
        return self._includes_all or name == self._top or name.startswith(self._top + b"/")

    def start_member(self, member: Member) -> None:
        """Start an included member. Its content must be written next."""
        self._writer.start_member(self._moved(member))
        self._empty = False

    def _moved(self, member: Member) -> Member:
        if self._client_root == self._root:
            return member
        name = self._client_root + member.name.removeprefix(self._root)
        return msgspec.structs.replace(member, name=name)

    def take_output(self) -> bytes:
        """Return the next piece of output, or nothing if there is not enough for one."""
        return self._writer.take_output(self._piece_bytes)

    def finish(self) -> Iterator[bytes]:
        """Yield the remaining output.

        Raises:
            UnknownSubdir: No member was included.
        """
        if self._empty:
            raise UnknownSubdir(f"there is no {self._target.subdir} in {self._target.repo}")
        yield from self._writer.finish()
