"""Buckets in memory."""

import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count

from archiver.errors import (
    ArchiverError,
    BytesChanged,
    CorruptArchive,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.manifest_check import object_prefix
from archiver.model import (
    Archive,
    Completeness,
    Conversion,
    Copies,
    Manifest,
    PresignedUrl,
    Region,
    Verified,
    parse_key,
)
from archiver.ports.storage import Found, Hold, Upload


class MemoryStorage:
    """Buckets in memory. ``down`` are the regions that do not answer.

    Those that are ``blind`` give their manifests, but do not say whether they have an object; those
    that are ``full`` take nothing. No manifest of the ``unreadable`` archives can be read.
    ``objects`` and ``manifests`` lie open, so that a test can count, damage or remove them.
    """

    def __init__(self, *, regions: Sequence[str] = ("us-east-1", "us-west-2")) -> None:
        self.regions = tuple(Region(region) for region in regions)
        self.places: Mapping[Region, str] = {region: f"at {region}" for region in self.regions}
        self.down: set[Region] = set()
        self.blind: set[Region] = set()
        self.full: set[Region] = set()
        self.unreadable: set[Archive] = set()
        self.objects: dict[Region, dict[str, bytes]] = {region: {} for region in self.regions}
        self.manifests: dict[Region, dict[str, Manifest]] = {region: {} for region in self.regions}
        self._secret = secrets.token_bytes()
        self._uploads = count(1)

    async def find(self, archive: Archive) -> Found:
        if not self._up(self.regions):
            raise StorageUnavailable("no region answers")
        if archive in self.unreadable:
            raise UnreadableManifest("the manifest of the archive cannot be read")
        copies = self._copies(archive)
        return Found(
            copies=copies,
            unreachable=tuple(region for region in self.regions if self._is_open(archive, region)),
            promised=None if copies else self._manifest(archive),
        )

    async def writable(self) -> Mapping[Region, StorageUnavailable | None]:
        taking = self._taking(self.regions)
        return {
            region: None
            if region in taking
            else StorageUnavailable(f"{region} takes nothing", s3_code="QuotaExceeded")
            for region in self.regions
        }

    async def archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        up = self._up([region] if region else self.regions)
        if not up:
            raise StorageUnavailable("no region answers")
        for archive in map(parse_key, sorted(self.manifests[up[0]])):
            if archive and source in {None, archive.source}:
                yield archive

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        promised: Manifest | None = None,
    ) -> Upload:
        data = b"".join([chunk async for chunk in chunks])
        if promised and hashlib.sha256(data).hexdigest() != promised.sha256:
            raise BytesChanged("these are not the bytes that were promised")
        tried = tuple(region for region in self.regions if region not in avoid) or self.regions
        regions = self._taking(tried)
        if not regions:
            raise StorageUnavailable("no region took the archive")
        object_key = f"{object_prefix(archive)}{attempt}-{next(self._uploads)}/{archive.file_name}"
        if promised:
            object_key = promised.object_key
        for region in regions:
            self.objects[region][object_key] = data
        return Upload(
            object_key=object_key,
            regions=regions,
            failures={
                region: StorageUnavailable(f"{region} does not take it")
                for region in tried
                if region not in regions
            },
            promised=promised is not None,
        )

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
        try:
            await hold()
        except BaseException:
            await self.discard(upload)
            raise
        confirmed = [r for r in self._taking(upload.regions) if r not in self.blind]
        standing = self._manifest(archive)
        if upload.promised and standing and standing.object_key == upload.object_key:
            for region in confirmed:
                self.manifests[region].setdefault(archive.key, standing)
        if first := self._copies(archive):
            if first.manifest.object_key != upload.object_key:
                await self.discard(upload)
            return first
        if standing or upload.promised:
            await self.discard(upload)
            raise StorageUnavailable("other bytes were promised")
        manifest = Manifest(
            key=archive.key,
            node=archive.node,
            sha256=verified.sha256,
            size_bytes=verified.size_bytes,
            object_key=upload.object_key,
            root=verified.root,
            source_url=source_url,
            created_at=datetime.now(UTC),
            conversion=conversion,
            completeness=completeness,
            links_outside=verified.links_outside,
        )
        for region in confirmed:
            self.manifests[region][archive.key] = manifest
        committed = self._copies(archive)
        if not committed:
            raise StorageUnavailable("no region took the manifest")
        return committed

    async def discard(self, upload: Upload) -> None:
        for region in self._up(() if upload.promised else upload.regions):
            self.objects[region].pop(upload.object_key, None)

    async def read(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        body = self.objects[region].get(manifest.object_key)
        if body is None or region in self.down:
            raise StorageUnavailable(f"{region} does not give the archive")
        yield body
        if hashlib.sha256(body).hexdigest() != manifest.sha256:
            raise CorruptArchive(f"{region} has other bytes than its manifest says")

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        manifest = copies.manifest
        bodies = [
            self.objects[source][manifest.object_key]
            for source in self._up(copies.regions)
            if manifest.object_key in self.objects[source]
        ]
        if not bodies or region in self.down | self.blind | self.full:
            raise StorageUnavailable(f"the archive cannot be copied to {region}")
        for body in bodies:
            if hashlib.sha256(body).hexdigest() == manifest.sha256:
                self.objects[region][manifest.object_key] = body
                self.manifests[region].setdefault(archive.key, manifest)
                return
        raise CorruptArchive("no region has the bytes that the manifest promises")

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        address = f"https://{region}.s3.example/{copies.manifest.object_key}"
        return PresignedUrl(f"{address}?X-Amz-Signature={self._sign(method, address)}")

    async def check(self) -> Mapping[Region, ArchiverError | None]:
        return {
            region: StorageUnavailable(f"{region} does not answer") if region in self.down else None
            for region in self.regions
        }

    def download(self, url: str) -> bytes:
        """Return what a client gets who sends GET to a presigned *url*.

        Raises:
            PermissionError: It was not signed here, or not for GET.
        """
        address, _, signature = url.partition("?X-Amz-Signature=")
        if not hmac.compare_digest(signature, self._sign("GET", address)):
            raise PermissionError("the signature does not fit")
        host, object_key = address.removeprefix("https://").split("/", 1)
        return self.objects[Region(host.removesuffix(".s3.example"))][object_key]

    def _sign(self, method: str, address: str) -> str:
        return hmac.digest(self._secret, f"{method} {address}".encode(), "sha256").hex()

    def _up(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        return tuple(region for region in regions if region not in self.down)

    def _taking(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        return tuple(region for region in self._up(regions) if region not in self.full)

    def _is_open(self, archive: Archive, region: Region) -> bool:
        asked_twice = archive.key in self.manifests[region]
        return region in self.down or (asked_twice and region in self.blind)

    def _copies(self, archive: Archive) -> Copies | None:
        """Return the first copies that no earlier region's manifest forbids."""
        manifests = self._manifests(archive)
        lost = not any(self._is_open(archive, region) for region in self.regions)
        for manifest in manifests:
            regions = tuple(r for r in self._up(self.regions) if self._has(manifest, r))
            older = lost and manifest.created_at < manifests[0].created_at
            if regions and (older or manifest.sha256 == manifests[0].sha256):
                return Copies(manifest=manifest, regions=regions)
        return None

    def _manifest(self, archive: Archive) -> Manifest | None:
        return next(iter(self._manifests(archive)), None)

    def _manifests(self, archive: Archive) -> list[Manifest]:
        held = (self.manifests[region].get(archive.key) for region in self._up(self.regions))
        return [manifest for manifest in held if manifest]

    def _has(self, manifest: Manifest, region: Region) -> bool:
        body = self.objects[region].get(manifest.object_key)
        stands = self.manifests[region].get(manifest.key) == manifest
        shown = region not in self.blind
        return stands and shown and body is not None and len(body) == manifest.size_bytes
