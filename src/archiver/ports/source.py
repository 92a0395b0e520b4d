"""A configured version-control host, and the stream of one archive from it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from archiver.errors import NotPackable
from archiver.git_objects import LfsCheck
from archiver.model import Archive, Node
from archiver.tree_proof import TreeProof


class IdentityCheck(Protocol):
    """Checks that an archive was made from its node, by the content of one member.

    ``member`` is the member's path below the root. Only the first file of an archive is checked,
    and only if it has this path: a later member of that name is a file of the repository.
    """

    @property
    def member(self) -> bytes: ...

    def check_content(self, content: bytes) -> None:
        """Return if *content*, the first 64 KiB of the member, names the node. Raises WrongNode."""


class TreeCheck(Protocol):
    """Compares the files of an archive with the tree of its git commit, while they stream.

    ``digits`` is the length of git's ids: 40 (SHA-1) or 64 (SHA-256). ``path`` is that of the
    repository in the archive: empty, or that of a submodule. ``subdir`` is the part of it that the
    archive has. ``submodules`` maps the path of each submodule to the id that the tree has for it.
    Its folder is empty, unless ``parts`` has a check for its files. ``lfs`` knows the files of Git
    LFS. Paths are those in the repository. The methods block, and are called in a thread.
    """

    @property
    def digits(self) -> int: ...

    @property
    def path(self) -> bytes: ...

    @property
    def subdir(self) -> bytes: ...

    @property
    def submodules(self) -> Mapping[bytes, str]: ...

    @property
    def parts(self) -> Mapping[bytes, "TreeCheck"]: ...

    @property
    def lfs(self) -> LfsCheck | None: ...

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:
        """Take the next file, link or submodule, in the archive's order. *mode* is git's.

        Raises WrongTree if no tree of the commit can have it.
        """

    def add_attributes(self, content: bytes | None) -> None:
        """Take the content of a ``.gitattributes``, before its entry; None if it is too long."""

    def conclude(self, object_id: str) -> TreeProof:
        """Return the proof of files whose tree has this id: that of the subdir, if any.

        The ``parts`` in the archive have concluded before. Raises WrongTree.
        """


class Pipe(Protocol):
    """What a program writes, for another process to read from ``descriptor``."""

    @property
    def descriptor(self) -> int: ...

    def close(self) -> None:
        """Close the descriptor in this process, once the other one has it."""

    async def finish(self) -> bool:
        """Return, when the program has ended, whether it wrote everything.

        It did not if its reader ended first. Raises SourceError if the program failed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PipedTar:
    """A tar that git writes into a pipe: ``open`` starts it.

    Git does not write the *comment*: see ``git_objects.insert_comment``.
    """

    open: Callable[[], AbstractAsyncContextManager[Pipe]]
    comment: bytes


OnReceived: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that the host has sent so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The bytes of one archive as its host sends them.

    ``root`` is the directory that must contain every member; ``client_root`` is the one that
    clients expect. ``size_bytes`` is the announced size, or 0.

    ``chunks`` have at most 1 MiB each. They raise SourceError if the host falls silent, and
    TruncatedArchive if the stream visibly breaks off. Most hosts break off invisibly, so the end of
    the stream proves nothing.

    A stream without ``shows_progress`` has files that only some clients may know of. How much of it
    has been made would tell the others about them.

    With a ``tree_check``, the worker makes the stream from objects that it received before. The
    bytes then depend on a program of the worker, so they are always converted. ``piped`` may be
    the same stream for a process that reads it without a detour through this one. Read only one.
    """

    url: str
    root: str
    client_root: str
    size_bytes: int
    chunks: AsyncGenerator[bytes, None]
    tree_check: TreeCheck | None = None
    piped: PipedTar | None = None
    shows_progress: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFormats:
    """The formats that a host sends: ``suffixes``, and with ``subdirs`` also parts of a tree.

    With ``verbatim``, archives in these formats are stored as the host sends them. Otherwise they
    may be converted from a stored archive, which costs the host nothing; with ``parts_of_whole``,
    parts of a tree also from an archive of the whole tree. ``fallback`` suffixes are fetched only
    if the host cannot pack a tree in the others.
    """

    suffixes: tuple[str, ...]
    subdirs: bool = True
    verbatim: bool = True
    parts_of_whole: bool = True
    fallback: tuple[str, ...] = ()

    def wants_verbatim(self, archive: Archive) -> bool:
        """Return whether *archive* must consist of the host's own bytes."""
        return self.verbatim and self.fetchable(archive) == archive

    def fetchable(self, archive: Archive) -> Archive:
        """Return the archive to fetch for *archive*: itself, or one to convert."""
        return replace(
            archive,
            suffix=archive.suffix if archive.suffix in self.suffixes else self.suffixes[0],
            subdir=archive.subdir if self.subdirs else "",
        )

    def candidates(self, archive: Archive) -> tuple[Archive, ...]:
        """Return all archives to fetch for *archive*: first ``fetchable``, then other formats.

        The others are for trees that the host cannot pack in the first format.
        """
        first = self.fetchable(archive)
        suffixes = dict.fromkeys((first.suffix, *self.suffixes, *self.fallback))
        return tuple(replace(first, suffix=suffix) for suffix in suffixes)


class Source(Protocol):
    """A configured version-control host.

    ``node_digits`` are the possible lengths of its nodes: 40 hex digits for SHA-1, 64 for SHA-256.
    If it ``abbreviates``, ``resolve`` finds every node by its first digits; otherwise only those
    that a ref shows. One process sends it ``lookup_concurrency`` lookups at a time. If it
    ``completes``, it makes archives with submodules and LFS files.

    Its archives are proven in one of two ways. Either the host lists its files, and ``last_file``
    is the proof, or the streams have a ``tree_check``, and ``last_file`` returns None.
    """

    name: str
    served: ServedFormats
    node_digits: frozenset[int]
    abbreviates: bool
    completes: bool
    lookup_concurrency: int

    def url(self, archive: Archive) -> str:
        """Return the address at the host from which *archive*, which is fetchable, is made."""

    def download_url(self, archive: Archive) -> str | None:
        """Return the address at which clients can download *archive* from the host, if any."""

    def identity_check(self, archive: Archive) -> IdentityCheck | None:
        """Return the check for *archive*, fetched, stored or converted, if there is any."""

    def check_rev(self, rev: str) -> None:
        """Return if the host interprets *rev* as clients do. Sends no request.

        Raises:
            InvalidRequest: The host would misinterpret it.
        """

    async def resolve(self, repo: str, rev: str) -> Node:
        """Return the node that *rev* names on the host now.

        Raises:
            UnknownRepo, UnknownRev: The host does not have it.
            SourceError: The host did not respond.
        """

    async def has_node(self, repo: str, node: Node) -> bool:
        """Return whether the host has *node* in *repo*, and shows it.

        A host that can answer only by sending the node counts as having it. ``open`` then finds
        out, and raises UnknownRev.

        Raises:
            UnknownRepo: The host does not have *repo*.
            SourceError: The host did not respond.
        """

    def open(
        self, archive: Archive, *, on_received: OnReceived | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Request *archive* from the host and return the stream, once the host accepts.

        *on_received* is called while the host sends what the stream is made of, if that comes
        first.

        Raises:
            UnknownRepo, UnknownRev, UnknownSubdir, EmptyTree: The host does not have it.
            SourceError: The host refused, is busy, or did not respond; or *archive* is not
                fetchable.
        """

    async def last_file(self, archive: Archive) -> bytes | None:
        """Return the path, in the repository, of the last file of a complete *archive*.

        None if the settings trust the host, or if its streams have a ``tree_check``.

        Raises:
            UnknownSubdir, EmptyTree: The host does not have such files.
            SourceError: The host did not respond.
        """

    async def explain_unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:
        """Return why the host always breaks off *archive* after the file *after*.

        None if a retry may succeed. *after* is empty if no file arrived.

        Raises:
            SourceError: The host did not respond.
        """
