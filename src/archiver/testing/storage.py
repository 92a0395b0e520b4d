"""Buckets in memory."""

import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from itertools import count

from archiver.errors import (
    ArchiverError,
    BytesChanged,
    CorruptArchive,
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.manifest_check import ARCHIVES, object_prefix
from archiver.model import (
    Archive,
    Copies,
    Manifest,
    Node,
    Pin,
    PresignedUrl,
    Region,
    Tombstone,
    parse_key,
)
from archiver.ports.storage import Commit, Listing, ProveLease, StoredState, Traces, Upload
from archiver.testing.bucket_contents import MemoryContents


class MemoryStorage:
    """Buckets in memory. Tests may change ``objects`` and ``manifests``.

    Regions in ``down`` do not answer. Those in ``blind`` return manifests, but no metadata of
    objects. Those in ``full`` reject writes. Manifests of archives in ``unreadable`` are damaged.
    """

    def __init__(self, *, regions: Sequence[str] = ("us-east-1", "us-west-2")) -> None:
        self.regions = tuple(Region(region) for region in regions)
        self.bucket_ids: Mapping[Region, str] = {region: f"at {region}" for region in self.regions}
        self.down: set[Region] = set()
        self.blind: set[Region] = set()
        self.full: set[Region] = set()
        self.unreadable: set[Archive] = set()
        self.objects: dict[Region, dict[str, bytes]] = {region: {} for region in self.regions}
        self.manifests: dict[Region, dict[str, Manifest]] = {region: {} for region in self.regions}
        self.marks: dict[Region, dict[str, str]] = {region: {} for region in self.regions}
        self.pins: dict[Region, dict[str, Pin]] = {region: {} for region in self.regions}
        self.tombstones: dict[Region, dict[str, Tombstone]] = {r: {} for r in self.regions}
        self.contents = MemoryContents(
            objects=self.objects,
            manifests=self.manifests,
            down=self.down,
            unreadable=self.unreadable,
            marks=self.marks,
        )
        self._secret = secrets.token_bytes()
        self._upload_numbers = count(1)

    async def find(self, archive: Archive) -> StoredState:
        if not self._up(self.regions):
            raise StorageUnavailable("no region answers")
        if archive in self.unreadable:
            raise UnreadableManifest("the archive's manifest cannot be read")
        self._require_unmarked(archive, self.regions)
        copies = self._copies(archive)
        return StoredState(
            copies=copies,
            unreachable=tuple(r for r in self.regions if self._is_unknown(archive, r)),
            dangling_manifest=None if copies else self._manifest(archive),
        )

    async def check_writable(self) -> Mapping[Region, StorageUnavailable | None]:
        writable = self._writable(self.regions)
        return {
            region: None
            if region in writable
            else StorageUnavailable(f"{region} rejects writes", s3_code="QuotaExceeded")
            for region in self.regions
        }

    async def iter_archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        up = self._up([region] if region else self.regions)
        if not up:
            raise StorageUnavailable("no region answers")
        for archive in map(parse_key, sorted(self.manifests[up[0]])):
            if archive and source in {None, archive.source}:
                yield archive

    async def find_nodes(
        self, source: str, repo: str, digits: str, *, at_most: int
    ) -> frozenset[Node]:
        archives = self.iter_archives(source)
        nodes = {a.node async for a in archives if a.repo == repo and not a.submodules}
        return frozenset(sorted(node for node in nodes if node.startswith(digits))[:at_most])

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        restore: Manifest | None = None,
    ) -> Upload:
        data = b"".join([chunk async for chunk in chunks])
        if restore and hashlib.sha256(data).hexdigest() != restore.sha256:
            raise BytesChanged("the bytes differ from the manifest to restore")
        tried = tuple(region for region in self.regions if region not in avoid) or self.regions
        regions = self._writable(tried)
        if not regions:
            raise StorageUnavailable("no region took the archive")
        number = next(self._upload_numbers)
        object_key = f"{object_prefix(archive)}{attempt}-{number}/{archive.file_name}"
        if restore:
            object_key = restore.object_key
        for region in regions:
            self.objects[region][object_key] = data
        return Upload(
            object_key=object_key,
            regions=regions,
            failures={
                region: StorageUnavailable(f"{region} rejects writes")
                for region in tried
                if region not in regions
            },
            restored=restore is not None,
        )

    async def commit(self, commit: Commit, *, prove_lease: ProveLease) -> Copies:
        archive, upload = commit.archive, commit.upload
        try:
            self._require_unmarked(archive, self.regions)
            await prove_lease()
        except BaseException:
            await self.discard(upload)
            raise
        confirmed = [
            region
            for region in self._writable(upload.regions)
            if region not in self.blind and upload.object_key in self.objects[region]
        ]
        existing = self._manifest(archive)
        if upload.restored and existing and existing.object_key == upload.object_key:
            for region in confirmed:
                self.manifests[region].setdefault(archive.key, existing)
        if first := self._copies(archive):
            if first.manifest.object_key != upload.object_key:
                await self.discard(upload)
            return first
        if existing or upload.restored:
            await self.discard(upload)
            raise StorageUnavailable("the archive's manifest changed during the upload")
        manifest = commit.new_manifest(self._tombstone(archive))
        for region in confirmed:
            self.manifests[region][archive.key] = manifest
        committed = self._copies(archive)
        if not committed:
            raise StorageUnavailable("no region took the manifest")
        return committed

    async def discard(self, upload: Upload) -> None:
        for region in self._up(() if upload.restored else upload.regions):
            self.objects[region].pop(upload.object_key, None)

    async def read_copy(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        body = self.objects[region].get(manifest.object_key)
        if body is None or region in self.down:
            raise StorageUnavailable(f"{region} did not return the archive")
        yield body
        if hashlib.sha256(body).hexdigest() != manifest.sha256:
            raise CorruptArchive(f"the bytes in {region} do not match the manifest")

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        self._require_unmarked(archive, (*copies.regions, region))
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
        raise CorruptArchive("no region has bytes that match the manifest")

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        address = f"https://{region}.s3.example/{copies.manifest.object_key}"
        return PresignedUrl(f"{address}?X-Amz-Signature={self._sign(method, address)}")

    async def traces(self, archive: Archive) -> Traces:
        manifests = {
            r: each[archive.key] for r, each in self.manifests.items() if archive.key in each
        }
        objects = {region: self._objects(archive, region) for region in self._up(self.regions)}
        return Traces(
            archive=archive,
            regions=tuple(
                region
                for region in self._up(self.regions)
                if region in manifests
                or objects[region]
                or archive.key in self.marks[region]
                or archive.key in self.tombstones[region]
            ),
            manifests={region: manifests[region] for region in objects if region in manifests},
            size_bytes={region: sum(map(len, each.values())) for region, each in objects.items()},
            failures=self._down(),
            pin=self._pin(archive),
            tombstone=self._tombstone(archive),
        )

    async def list_of(self, source: str, repo: str, node: Node | None = None) -> Listing:
        up = self._up(self.regions)
        keys = {
            key
            for region in up
            for records in (self.manifests, self.marks, self.tombstones)
            for key in records[region]
        }
        for region in up:
            for key in self.objects[region]:
                keys.add(key.removeprefix(ARCHIVES).rsplit("/", 2)[0])
        archives = [archive for archive in map(parse_key, keys) if archive]
        return Listing(
            archives=frozenset(
                each
                for each in archives
                if (each.source, each.repo) == (source, repo) and node in {None, each.node}
            ),
            failures=self._down(),
        )

    async def put_pin(self, archive: Archive, pin: Pin) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            self.pins[region].setdefault(archive.key, pin)
        return self._down()

    async def remove_pin(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            self.pins[region].pop(archive.key, None)
        return self._down()

    async def list_pinned(self) -> Listing:
        archives = frozenset(each for each in map(parse_key, self._pin_keys()) if each)
        return Listing(archives=archives, failures=self._down())

    async def spread_pins(self) -> int:
        if self._down():
            raise StorageUnavailable("a region does not list its pins")
        lacking = 0
        for key in self._pin_keys():
            archive = parse_key(key)
            pin = self._pin(archive) if archive else None
            if pin and any(key not in pins for pins in self.pins.values()):
                lacking += 1
                for pins in self.pins.values():
                    pins.setdefault(key, pin)
        return lacking

    async def read_pin(self, archive: Archive, *, certain: bool = False) -> Pin | None:
        pin = self._pin(archive)
        if pin is None and (self._down() if certain else not self._up(self.regions)):
            raise StorageUnavailable("a region does not answer")
        return pin

    def _pin_keys(self) -> set[str]:
        return {key for region in self._up(self.regions) for key in self.pins[region]}

    async def begin_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            self.manifests[region].pop(archive.key, None)
            if region not in self.full:
                self.marks[region][archive.key] = purge
            for object_key in self._objects(archive, region):
                del self.objects[region][object_key]
            self.tombstones[region].pop(archive.key, None)
        self.unreadable.discard(archive)
        return self._down()

    async def end_purge(
        self, archive: Archive, *, purge: str
    ) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            if self.marks[region].get(archive.key) == purge:
                del self.marks[region][archive.key]
        return self._down()

    async def put_tombstone(
        self, archive: Archive, tombstone: Tombstone
    ) -> Mapping[Region, StorageUnavailable]:
        writable = self._writable(self.regions)
        for region in writable:
            self.tombstones[region][archive.key] = tombstone
        return {
            region: StorageUnavailable(f"{region} rejects writes")
            for region in self.regions
            if region not in writable
        }

    async def read_tombstone(self, archive: Archive) -> Tombstone | None:
        if not self._up(self.regions):
            raise StorageUnavailable("no region answers")
        return self._tombstone(archive)

    async def remove_tombstone(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            self.tombstones[region].pop(archive.key, None)
        return self._down()

    async def withdraw(
        self, archive: Archive, manifest: Manifest
    ) -> Mapping[Region, StorageUnavailable]:
        for region in self._up(self.regions):
            if self.manifests[region].get(archive.key) == manifest:
                del self.manifests[region][archive.key]
        return self._down()

    async def reinstate(self, archive: Archive, manifest: Manifest) -> None:
        for region in self._writable(self.regions):
            if manifest.object_key in self.objects[region]:
                there = self.manifests[region].setdefault(archive.key, manifest)
                if there != manifest:
                    return

    async def check_access(self) -> Mapping[Region, ArchiverError | None]:
        return {
            region: StorageUnavailable(f"{region} does not answer") if region in self.down else None
            for region in self.regions
        }

    def download(self, url: str) -> bytes:
        """Return the body of a GET of *url*. Raises PermissionError unless signed here for GET."""
        address, _, signature = url.partition("?X-Amz-Signature=")
        if not hmac.compare_digest(signature, self._sign("GET", address)):
            raise PermissionError("the signature does not match")
        host, object_key = address.removeprefix("https://").split("/", 1)
        return self.objects[Region(host.removesuffix(".s3.example"))][object_key]

    def _sign(self, method: str, address: str) -> str:
        return hmac.digest(self._secret, f"{method} {address}".encode(), "sha256").hex()

    def _pin(self, archive: Archive) -> Pin | None:
        pins = (self.pins[region].get(archive.key) for region in self._up(self.regions))
        return next((pin for pin in pins if pin), None)

    def _tombstone(self, archive: Archive) -> Tombstone | None:
        found = (self.tombstones[region].get(archive.key) for region in self._up(self.regions))
        return max(filter(None, found), key=lambda each: each.expired_at, default=None)

    def _require_unmarked(self, archive: Archive, regions: Sequence[Region]) -> None:
        if any(archive.key in self.marks[region] for region in self._up(regions)):
            raise PurgeUnfinished("a purge of the archive has begun and has not ended")

    def _objects(self, archive: Archive, region: Region) -> dict[str, bytes]:
        prefix, objects = object_prefix(archive), self.objects[region]
        return {key: body for key, body in objects.items() if key.startswith(prefix)}

    def _down(self) -> dict[Region, StorageUnavailable]:
        return {
            r: StorageUnavailable(f"{r} does not answer") for r in self.regions if r in self.down
        }

    def _up(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        return tuple(region for region in regions if region not in self.down)

    def _writable(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        return tuple(region for region in self._up(regions) if region not in self.full)

    def _is_unknown(self, archive: Archive, region: Region) -> bool:
        has_manifest = archive.key in self.manifests[region]
        return region in self.down or (has_manifest and region in self.blind)

    def _copies(self, archive: Archive) -> Copies | None:
        """Return the first copies that do not contradict an earlier region's manifest."""
        manifests = self._manifests(archive)
        lost = not any(self._is_unknown(archive, region) for region in self.regions)
        for manifest in manifests:
            regions = tuple(r for r in self._up(self.regions) if self._is_complete(manifest, r))
            older = lost and manifest.created_at < manifests[0].created_at
            if regions and (older or manifest.sha256 == manifests[0].sha256):
                return Copies(manifest=manifest, regions=regions)
        return None

    def _manifest(self, archive: Archive) -> Manifest | None:
        return next(iter(self._manifests(archive)), None)

    def _manifests(self, archive: Archive) -> list[Manifest]:
        stored = (self.manifests[region].get(archive.key) for region in self._up(self.regions))
        return [manifest for manifest in stored if manifest]

    def _is_complete(self, manifest: Manifest, region: Region) -> bool:
        body = self.objects[region].get(manifest.object_key)
        same = self.manifests[region].get(manifest.key) == manifest
        visible = region not in self.blind
        return same and visible and body is not None and len(body) == manifest.size_bytes
