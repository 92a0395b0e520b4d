"""A configured version-control host, and the stream of one archive from it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from archiver.errors import NotPackable
from archiver.model import (
    Archive,
    Node,
)


class IdentityCheck(Protocol):
    """Checks that an archive was made from its node, by the content of one member.

    ``member`` is the member's path below the root. Only the first file of an archive is checked,
    and only if it has this path: a later member of that name is a file of the repository.
    """

    @property
    def member(self) -> bytes: ...

    def check_content(self, content: bytes) -> None:
        """Return if *content*, the first 64 KiB of the member, names the node. Raises WrongNode."""


class Stream(Protocol):
    """The bytes of one archive as its host sends them, and what they ought to be.

    ``root`` is the directory that must hold every member, ``client_root`` the one that clients
    expect. ``size_bytes`` is what the host says that it will send, or 0 if it does not say.
    ``chunks`` may be read once; a chunk is at most 1 MiB. It raises SourceError when the host falls
    silent, TruncatedArchive when it breaks off and one can tell. Mostly one cannot, so the end of
    the stream proves nothing.
    """

    url: str
    root: str
    client_root: str
    size_bytes: int

    def chunks(self) -> AsyncGenerator[bytes, None]: ...


class Source(Protocol):
    """A configured version-control host."""

    name: str

    def fetchable(self, archive: Archive) -> Archive:
        """Return what to fetch when *archive* is wanted: itself, or what it can be made of."""

    def candidates(self, archive: Archive) -> Sequence[Archive]:
        """Return all that may be fetched for *archive*: first ``fetchable``, then other formats.

        Those are for a tree that the host cannot pack in the first.
        """

    def wants_verbatim(self, archive: Archive) -> bool:
        """Tell whether nothing but the host's own bytes will do for *archive*."""

    def url(self, archive: Archive) -> str:
        """Return the host's own address of *archive*, which has to be fetchable."""

    def identity_check(self, archive: Archive) -> IdentityCheck | None:
        """Return the check for *archive*, fetched, stored or converted; None if there is none."""

    def check_rev(self, rev: str) -> None:
        """Refuse a rev that must not be asked for; contacts nobody.

        Raises:
            InvalidRequest: The host would misunderstand it.
        """

    async def resolve(self, repo: str, rev: str) -> Node:
        """Return the node that *rev* names now, by asking the host.

        Raises:
            UnknownRepo, UnknownRev: On the host's word.
            SourceError: The host did not answer.
        """

    async def has_node(self, repo: str, node: Node) -> bool:
        """Tell whether the host has *node* in *repo*, and shows it.

        Raises:
            UnknownRepo: On the host's word.
            SourceError: The host did not answer.
        """

    def open(self, archive: Archive) -> AbstractAsyncContextManager[Stream]:
        """Ask the host for *archive* and return the stream, once the host agreed to send it.

        Raises:
            UnknownRepo, UnknownRev, UnknownSubdir, EmptyTree: On the host's word.
            SourceError: The host refused, is busy, or did not answer; or it is not fetchable.
        """

    async def last_file(self, archive: Archive) -> bytes | None:
        """Return the path of the file that *archive* ends with if it is complete.

        The path begins at the root of the repository. None if the settings trust the host.

        Raises:
            UnknownSubdir, EmptyTree: The host says so.
            SourceError: The host does not answer.
        """

    async def unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:
        """Return why the host breaks off *archive* after the file *after*, whenever it is asked.

        None if it may do better next time. *after* is empty if no file came.

        Raises:
            SourceError: The host does not answer.
        """
