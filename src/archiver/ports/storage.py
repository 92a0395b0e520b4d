"""One bucket per region."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import (
    Archive,
    Completeness,
    Conversion,
    Copies,
    Manifest,
    PresignedUrl,
    Region,
    Verified,
)


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
