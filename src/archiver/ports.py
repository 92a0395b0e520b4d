"""All that Archiver needs from the outside world, on one page.

Each contract stands here once; ``tests/contracts`` holds fakes and real adapters to it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from archiver.drift import Content
from archiver.errors import ArchiverError, NotPackable, StorageUnavailable
from archiver.health import WorkerReport
from archiver.model import (
    Archive,
    Completeness,
    Conversion,
    Copies,
    Joined,
    Manifest,
    Node,
    PresignedUrl,
    Region,
    Verified,
)
from archiver.tasks import Backlog, Failure, Phase, Priority, Task


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

    async def known(self, repo: str, node: Node) -> bool:
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

    def __call__(self, archive: Archive, *, root: str) -> Verifier: ...


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the buckets say of an archive.

    ``copies`` is None when no bucket that answered has it, which at least one did;
    ``unreachable`` are those that did not, or not to the end. If there is a manifest all the same,
    whose bytes somebody has deleted, or whose bucket does not show them now, they are ``promised``.
    """

    copies: Copies | None
    unreachable: tuple[Region, ...] = ()
    promised: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Bytes that lie whole in some regions, under a key that no client knows yet.

    Unless they were ``promised``: then a manifest names it, and nobody may delete them.
    """

    object_key: str
    regions: tuple[Region, ...]
    failures: Mapping[Region, ArchiverError] = field(default_factory=dict)
    promised: bool = False


Hold = Callable[[], Awaitable[None]]
"""``Attempt.hold``."""


class Storage(Protocol):
    """One bucket per region. ``regions`` are in the configured order, the first is the primary.

    ``places`` has a word for each region's bucket: if its name leads to another bucket, as the
    settings have changed, it is another word.
    """

    regions: tuple[Region, ...]
    places: Mapping[Region, str]

    async def find(self, archive: Archive) -> Found:
        """Look in every region for the archive's manifest, and the object that it names.

        The first region that has a manifest says what the archive is, with or without its bytes.

        Raises:
            StorageUnavailable: No region answers, so nobody knows whether there is an archive.
            UnreadableManifest: A region has one, and no region has a sound one.
        """

    async def writable(self) -> Mapping[Region, StorageUnavailable | None]:
        """Tell for each region whether it takes writes; if not, ``s3_code`` of the error says why.

        A write of at most some seconds ago proves it: that of an archive, or else of a small object
        that is written for this purpose. Cheap to repeat.
        """

    def archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        """Yield the archives that *region* has: all, or those of *source*.

        Without a region, it is the first one that answers.

        They come a page at a time, so that there may be any number. What is not named as a manifest
        of ours is passed over.

        Raises:
            StorageUnavailable: No region answers, or the one that did broke off.
        """

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        promised: Manifest | None = None,
    ) -> Upload:
        """Send one stream to every region at once, as an object of this upload alone.

        An attempt may upload more than once, so *attempt* is only the beginning of its name.

        Regions to *avoid* are not tried, unless there are no others. One that fails is left behind.
        When *chunks* raises, or this call is cancelled, every region's upload is aborted and
        nothing remains. Bytes that were *promised* are put back under the key of their manifest,
        once they have come and are the ones.

        Raises:
            StorageUnavailable: No region has it.
            BytesChanged: They are not those that were promised.
            whatever *chunks* raises.
        """

    async def commit(
        self,
        archive: Archive,
        upload: Upload,
        verified: Verified,
        *,
        hold: Hold,
        source_url: str,
        conversion: Conversion | None = None,
        completeness: Completeness | None = None,
    ) -> Copies:
        """Write the manifest, create-only, to each region of *upload*, the primary first.

        Before that, all at once: the lease is proven by *hold*, each region has to show that it has
        the whole archive, and all are asked for a manifest. The first manifest wins: if there is
        one already, it is what comes back, with the regions that hold it, and the upload is
        forgotten. Bytes that were promised have their manifest: it goes to the regions that took
        them and lack it.

        Raises:
            StorageUnavailable: No region took it; or other bytes were promised, as is known now.
            LeaseLost: By *hold*. Whatever ends this before a manifest is written, be it that or
                that it was cancelled, the upload is discarded.
        """

    async def discard(self, upload: Upload) -> None:
        """Delete an upload that will not be committed, as far as the regions let us."""

    def read(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        """Yield the archive's bytes as *region* has them; they end only if they are whole.

        Raises:
            StorageUnavailable: The region does not give them.
            CorruptArchive: They are not what the manifest says.
        """

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        """Bring the archive from a region that has it to one that has not; verify its sha256.

        Raises:
            StorageUnavailable: No region gave it, or *region* did not take it.
            CorruptArchive: What the regions gave is not what the manifest says.
        """

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        """Return a link that allows *method* (GET or HEAD) on the copy in *region*, for a while."""

    async def check(self) -> Mapping[Region, ArchiverError | None]:
        """Tell for each region whether its bucket answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a rev named at a certain moment."""

    node: Node
    at: datetime


class Index(Protocol):
    """What is known of the buckets and of revs without asking them: a cache that may be emptied.

    It raises only what its methods name: when it cannot be asked, it knows nothing; when it cannot
    be told, it forgets.
    """

    async def copies(self, archive: Archive, *, since: datetime | None = None) -> Copies | None:
        """Return where the archive is. If that is nowhere, a region said so, lately.

        Not before *since*, if that is given: when something happened that may have put it there.

        Raises:
            StorageUnavailable: The index has no entry, and no region answers.
        """

    async def record(self, archive: Archive, copies: Copies) -> None:
        """Remember *copies*, and let every process that remembers otherwise know."""

    async def by_digest(self, sha256: str) -> Sequence[Archive]:
        """Return archives that were recorded with these bytes; which have copies is not said.

        Raises:
            EngineUnavailable: It cannot be told, since the buckets cannot be asked for a digest.
        """

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None: ...

    async def remember(
        self, source: str, repo: str, rev: str, resolved: Resolved, *, share: bool = True
    ) -> None:
        """Remember what *rev* means. With *share*, other processes get to know it as well."""


class Engine(Protocol):
    """The fleet's queue: one task per archive at a time, and its state."""

    async def enqueue(self, archive: Archive, *, priority: Priority = Priority.HIGH) -> Joined:
        """Create the archive's task, or join the one that is waiting or running.

        Raises:
            EngineUnavailable: Nothing was created, as far as can be told.
        """

    async def task(self, archive: Archive) -> Task | None:
        """Return the archive's task, or None when there was none lately.

        Raises:
            EngineUnavailable: It cannot be told.
        """

    async def backlog(self, source: str) -> Backlog | None:
        """Return how long the queue of *source* is, as of a second ago; None if it cannot be told.

        Cheap to repeat. What has low priority is left out: nobody waits for it.
        """

    def recent_failure(self, archive: Archive) -> Failure | None:
        """Return why the archive's task failed for good, for some seconds after it did."""

    async def repair_later(self, archive: Archive, missing: Sequence[Region]) -> None:
        """See to it that a task of low priority is created while *missing* regions answer.

        Cheap to repeat. Ends with ``repaired``.

        Raises:
            EngineUnavailable: It will not be.
        """

    async def repaired(self, archive: Archive) -> None:
        """Forget what ``repair_later`` was told, if anything.

        Raises:
            EngineUnavailable: It is not forgotten.
        """

    async def workers(self) -> Sequence[WorkerReport]:
        """Return the report of each worker that answers within a second or so.

        Raises:
            EngineUnavailable: The workers cannot be asked.
        """

    async def check(self) -> ArchiverError | None:
        """Return None if a task can be queued, claimed and followed, else the reason."""


class Attempt(Protocol):
    """A worker's hold on a task, for as long as it keeps its lease. ``id`` is its own for ever."""

    id: str

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        """Say how far it is. Cheap; what is written of it, and when, is the engine's business.

        An attempt that succeeds when it was last COMMITTING has made its archive, not found it.
        """

    async def hold(self) -> None:
        """Return if the lease is still held, so that a commit may follow.

        Raises:
            LeaseLost: Another worker has the task.
        """
