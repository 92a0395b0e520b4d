"""One bucket per region."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import (
    Archive,
    Completeness,
    Conversion,
    Copies,
    Manifest,
    Node,
    Pin,
    PresignedUrl,
    Region,
    Tombstone,
    Verified,
)
from archiver.tree_proof import TreeProof


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """The state of an archive in all buckets.

    ``copies`` is None unless a region that answered has a copy. ``unreachable`` regions did not
    answer, or not completely. ``dangling_manifest`` is a manifest whose object was deleted, or is
    not visible at the moment. It still promises its bytes to clients.
    """

    copies: Copies | None
    unreachable: tuple[Region, ...] = ()
    dangling_manifest: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """All that the buckets hold of an archive.

    ``regions`` are those with a manifest, readable or not, with the mark of a purge or with an
    object, committed or not, or with a tombstone. ``size_bytes`` is the size of a region's objects.
    ``pin`` is that of the first region that has one, ``tombstone`` the latest. Regions in
    ``failures`` did not answer.
    """

    archive: Archive
    regions: tuple[Region, ...]
    manifests: Mapping[Region, Manifest]
    size_bytes: Mapping[Region, int]
    failures: Mapping[Region, ArchiverError]
    pin: Pin | None = None
    tombstone: Tombstone | None = None

    @property
    def sha256s(self) -> tuple[str, ...]:
        """The sums in the manifests, of the first region first, and in the tombstone."""
        records = (*self.manifests.values(), *((self.tombstone,) if self.tombstone else ()))
        return tuple(dict.fromkeys(record.sha256 for record in records))

    @property
    def total_bytes(self) -> int:
        return sum(self.size_bytes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Archives that any region has something of.

    Regions in ``failures`` did not list all theirs.
    """

    archives: frozenset[Archive]
    failures: Mapping[Region, ArchiverError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A complete object in some regions, under a key that no client knows yet.

    A *restored* object is the exception: a manifest already names it, so it must not be deleted.
    """

    object_key: str
    regions: tuple[Region, ...]
    failures: Mapping[Region, ArchiverError] = field(default_factory=dict)
    restored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A verified upload, and all that its manifest records."""

    archive: Archive
    upload: Upload
    verified: Verified
    source_url: str
    conversion: Conversion | None = None
    completeness: Completeness | None = None
    proof: TreeProof | None = None

    def new_manifest(self, tombstone: Tombstone | None) -> Manifest:
        """Return a manifest that is created now.

        It supersedes the bytes of *tombstone*, unless they are the same.
        """
        changed = tombstone is not None and tombstone.sha256 != self.verified.sha256
        return Manifest(
            key=self.archive.key,
            node=self.archive.node,
            sha256=self.verified.sha256,
            size_bytes=self.verified.size_bytes,
            object_key=self.upload.object_key,
            root=self.verified.root,
            source_url=self.source_url,
            created_at=datetime.now(UTC),
            conversion=self.conversion,
            completeness=self.completeness,
            links_outside=self.verified.links_outside,
            proof=self.proof.storable() if self.proof else None,
            supersedes=tombstone.sha256 if tombstone and changed else None,
        )


ProveLease = Callable[[], Awaitable[None]]
"""Returns if the attempt still holds its lease. Raises LeaseLost."""


class Storage(Protocol):
    """One bucket per region. ``regions`` are in the configured order; the first is the primary.

    ``bucket_ids`` identifies each region's bucket. The id changes if the settings point the
    region's name at another bucket.
    """

    regions: tuple[Region, ...]
    bucket_ids: Mapping[Region, str]

    async def find(self, archive: Archive) -> StoredState:
        """Look up the archive's manifest, and the object that it names, in every region.

        The first region with a manifest decides what the archive is, even if its object is gone.

        Raises:
            StorageUnavailable: No region answers, so it is unknown whether the archive exists.
            UnreadableManifest: A region has a damaged manifest, and no region has a valid one.
            PurgeUnfinished: A region that answers has the mark of a purge.
        """

    async def check_writable(self) -> Mapping[Region, StorageUnavailable | None]:
        """Return for each region the reason why it rejects writes, or None if it accepts them.

        A successful write within the last few seconds is proof. Without one, a small object is
        written. Cheap to repeat. ``s3_code`` of the error is the reason.
        """

    def iter_archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        """Yield the archives in *region*, or in the first region that answers, page by page.

        Yields all archives, or those of *source*. Skips objects that are not named as manifests.
        Raises StorageUnavailable if no region answers, or the listing failed midway.
        """

    async def find_nodes(
        self, source: str, repo: str, digits: str, *, at_most: int
    ) -> frozenset[Node]:
        """Return nodes of *repo* that begin with *digits* and have an archive, *at_most* so many.

        Archives with submodules do not count, because some clients may not know of them.
        Asks the regions in their order, until one answers. Raises StorageUnavailable if none does.
        """

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        restore: Manifest | None = None,
    ) -> Upload:
        """Send one stream to every region at once, as an object of this upload alone.

        *attempt* is only a prefix of the object's name, since an attempt may upload repeatedly.
        Regions to *avoid* are used only if there are no others. Regions that fail are dropped. If
        *chunks* raises, or the call is cancelled, every region's upload is aborted and leaves
        nothing behind. With *restore*, the bytes go under the key of that manifest, provided that
        they match its sha256.

        Raises:
            StorageUnavailable: No region stored the object.
            BytesChanged: The bytes differ from the manifest to restore.
            whatever *chunks* raises.
        """

    async def commit(self, commit: Commit, *, prove_lease: ProveLease) -> Copies:
        """Write the manifest, create-only, to each region of the upload, the primary first.

        Before the first write, concurrently: *prove_lease* runs, each region confirms the size of
        its object, and all regions look up a manifest. An existing manifest wins: the result
        is its copies, and the upload is discarded. After a restore, the existing manifest is
        written to the regions that stored the object and lack the manifest.

        If the archive has a tombstone with another sha256, the new manifest ``supersedes`` it.

        If anything fails before the first write, cancellation included, the upload is discarded.

        Raises:
            StorageUnavailable: No region took the manifest, or a manifest without its object has
                appeared, or the manifest to restore has disappeared.
            LeaseLost: From *prove_lease*.
        """

    async def discard(self, upload: Upload) -> None:
        """Delete an upload that will not be committed, wherever its regions allow it."""

    def read_copy(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of the copy in *region*.

        Raises:
            StorageUnavailable: The region does not return them.
            CorruptArchive: Their sha256 differs from the manifest's. Raised after the last chunk.
        """

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        """Copy the archive from one of its regions to *region*, and verify its sha256.

        Raises:
            StorageUnavailable: No region returned the bytes, or *region* did not store them, or
                the archive was purged or expired meanwhile.
            CorruptArchive: The bytes that the regions returned do not match the manifest.
        """

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        """Return a time-limited link that allows *method* (GET or HEAD) on the copy in *region*."""

    async def traces(self, archive: Archive) -> Traces:
        """Return all that the regions hold of *archive*."""

    async def list_of(self, source: str, repo: str, node: Node | None = None) -> Listing:
        """Return the archives of *repo*, or of one *node* of it, that any region has traces of."""

    async def begin_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        """Put a mark in the place of each region's manifest, then delete objects and tombstone.

        From the first mark on, ``find`` and ``commit`` raise PurgeUnfinished, also if a region that
        failed still has its copy. *purge* is the id of the purge. A region that refuses the mark,
        because it is full, loses its manifest instead. Returns the regions that failed, and why.
        """

    async def end_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        """Remove the marks of *purge*. The mark of another purge stays, and so does a manifest.

        Returns the regions that failed, and why.
        """

    async def put_pin(self, archive: Archive, pin: Pin) -> Mapping[Region, StorageUnavailable]:
        """Write *pin* to each region, unless it has one. Return the failed regions, and why."""

    async def remove_pin(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        """Remove the pin from each region. Return the regions that failed, and why."""

    async def list_pinned(self) -> Listing:
        """Return the archives that have a pin in any region."""

    async def spread_pins(self) -> int:
        """Write each pin to the regions that lack it; return of how many archives.

        Raises StorageUnavailable if a region does not list its pins.
        """

    async def read_pin(self, archive: Archive, *, certain: bool = False) -> Pin | None:
        """Return the pin of the first region that returns one.

        A pin that cannot be read is one without a client. Raises StorageUnavailable if no region
        answers; and if *certain*, unless a region has a pin or all of them answer.
        """

    async def put_tombstone(
        self, archive: Archive, tombstone: Tombstone
    ) -> Mapping[Region, StorageUnavailable]:
        """Write *tombstone* to each region, over an earlier one.

        Returns the regions that failed, and why.
        """

    async def read_tombstone(self, archive: Archive) -> Tombstone | None:
        """Return the latest tombstone that a region returns, or None.

        One that cannot be read is left out. Raises StorageUnavailable if no region answers.
        """

    async def remove_tombstone(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        """Remove the tombstone from each region. Return the regions that failed, and why."""

    async def withdraw(
        self, archive: Archive, manifest: Manifest
    ) -> Mapping[Region, StorageUnavailable]:
        """Delete *manifest* from each region that has it. Other manifests and marks stay.

        Returns the regions that failed, and why.
        """

    async def reinstate(self, archive: Archive, manifest: Manifest) -> None:
        """Undo a ``withdraw``: write *manifest* to each region that has its object.

        Stops at a region that has another manifest by now. Regions that fail are repaired later.
        """

    async def check_access(self) -> Mapping[Region, ArchiverError | None]:
        """Return for each region why its bucket cannot be listed, or None if it can."""
