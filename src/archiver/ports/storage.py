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
    PresignedUrl,
    Region,
    TreeProof,
    Verified,
)


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

    def new_manifest(self) -> Manifest:
        """Return a manifest that is created now."""
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
            StorageUnavailable: No region returned the bytes, or *region* did not store them.
            CorruptArchive: The bytes that the regions returned do not match the manifest.
        """

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        """Return a time-limited link that allows *method* (GET or HEAD) on the copy in *region*."""

    async def check_access(self) -> Mapping[Region, ArchiverError | None]:
        """Return for each region why its bucket cannot be listed, or None if it can."""
