"""Verifiers, converters and inventories of archive formats."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from archiver.drift import Content
from archiver.model import Archive, Verified
from archiver.ports.source import IdentityCheck, PipedTar, TreeCheck


class Verifier(Protocol):
    """Checks a stream chunk by chunk while it is stored elsewhere.

    ``last_file`` is the path of the last file so far, relative to the root.
    """

    @property
    def last_file(self) -> bytes: ...

    async def update(self, chunk: bytes) -> None:
        """Check the next chunk. Raises BadArchive as early as possible."""

    async def finish(self) -> Verified:
        """Return its measures. Raises BadArchive if it is incomplete, or was rejected before."""


class VerifierFactory(Protocol):
    """Returns a new verifier for the stream of *archive*, packed below *root*.

    With *tree*, the verifier compares the files with a git commit, and its result has the proof;
    only for tars.
    """

    def __call__(
        self,
        archive: Archive,
        *,
        root: str,
        identity: IdentityCheck | None,
        tree: TreeCheck | None = None,
    ) -> Verifier: ...


class Converter(Protocol):
    """Makes an archive from another one of the same tree: another format, or a part of the tree.

    The result depends only on the members and on ``version``, not on the original's format.
    """

    def version(self, suffix: str) -> str:
        """Return the name of everything that determines the bytes of a converted archive."""

    def require_room(self, *, original: Archive, target: Archive, size_bytes: int = 0) -> None:
        """Return if there is room to convert *original*, of *size_bytes* if known, to *target*.

        Callers check this before they request the bytes of *original*. Raises NoRoom if there is
        not enough room, or not even for a small archive if the size is unknown.
        """

    def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        original: Archive,
        target: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,
        piped: PipedTar | None = None,
    ) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """Return the bytes of *target*, made from *chunks* of *original*, packed below *root*.

        *target* is packed below *client_root*, or below *root* by default. *size_bytes* is the
        size of *original*, 0 if unknown. *piped* has the same bytes as *chunks*, and may be read in
        their place. The result ends only after *chunks* ended. *original* must
        be verified before, or while it is converted.

        Raises, while entering or iterating:
            UnknownSubdir: *original* has no member below the subdir of *target*.
            NotConvertible: The format of *target* cannot represent a member.
            NoRoom: The working directory is full.
            ConversionLost: The process of the conversion was killed.
            whatever *chunks* raise.
        """


class ArchiveInventory(Protocol):
    """A temporary copy of an archive whose members can be listed."""

    async def write(self, chunk: bytes) -> None:
        """Append the archive's next bytes. Raises NoRoom."""

    def iter_members(self) -> AsyncGenerator[Sequence[Content], None]:
        """Yield all members in their order. The archive must be complete and verified.

        Raises NotConvertible if it has a member that only its own format can represent.
        """


class InventoryFactory(Protocol):
    """Opens an inventory of *archive*, of about *size_bytes*, for a block. Raises NoRoom."""

    def __call__(
        self, archive: Archive, *, size_bytes: int = 0
    ) -> AbstractContextManager[ArchiveInventory]: ...
