"""Verifiers, converters and inventories of archive formats."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from archiver.drift import Content
from archiver.model import (
    Archive,
    Verified,
)
from archiver.ports.source import IdentityCheck


class Verifier(Protocol):
    """Reads a stream along with those who store it, and says at its end whether it was whole.

    ``last_file`` is the path, below the root, of the last file that it has come to so far.
    """

    @property
    def last_file(self) -> bytes: ...

    async def update(self, chunk: bytes) -> None:
        """Read on. Raises BadArchive as soon as it is certain."""

    async def finish(self) -> Verified:
        """Return what was found. Raises BadArchive unless it ended, and nothing came after."""


class Verify(Protocol):
    """Makes the verifier of one archive's stream."""

    def __call__(
        self, archive: Archive, *, root: str, identity: IdentityCheck | None
    ) -> Verifier: ...


class Converter(Protocol):
    """Makes an archive of another one of the same tree: in another format, or a part of it.

    What comes out depends on nothing but the members that go in and ``version``; it does not matter
    in which format they were.
    """

    def version(self, suffix: str) -> str:
        """Return the name of all that decides how members become an archive of this format."""

    def require_room(self, *, given: Archive, wanted: Archive, size_bytes: int = 0) -> None:
        """Return if there is room now to make *wanted* of *given*, of *size_bytes* if known.

        To be asked before the bytes of *given* are asked for, which would come in vain.

        Raises:
            NoRoom: There is none, not even for a small archive if the size is not known.
        """

    def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,
    ) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """Return the bytes of *wanted*, as they are made of those of *given*, below *root*.

        They are packed below *client_root*, if that is given, else below the same root.

        They end only if *chunks* do. *size_bytes* is how many will come, if that is known. *given*
        must be verified while it is read, or have been before.

        Raises, as do the bytes:
            UnknownSubdir: *given* has nothing there.
            NotConvertible: The format of *wanted* has no words for it.
            NoRoom: It does not fit into the working directory.
            ConversionLost: It was killed on the way.
            whatever *chunks* raise.
        """


class Kept(Protocol):
    """The bytes of an archive, put by so that they can be looked into."""

    async def write(self, chunk: bytes) -> None:
        """Put by some more of it. Raises NoRoom."""

    def members(self) -> AsyncGenerator[Sequence[Content], None]:
        """Yield all that is in it, in its order, once it is there whole and verified.

        Raises:
            NotConvertible: There is something in it that only its own format has words for.
        """


class Keep(Protocol):
    """Puts an archive by, of about *size_bytes*, for as long as its block runs. Raises NoRoom."""

    def __call__(
        self, archive: Archive, *, size_bytes: int = 0
    ) -> AbstractContextManager[Kept]: ...
