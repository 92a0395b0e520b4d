"""One region's bucket, through obstore. Here, and nowhere else, its errors become ours."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from archiver.binding import ARCHIVES, unbound
from archiver.errors import StorageUnavailable, UnreadableManifest
from archiver.model import KEY_VERSION, Archive, Manifest, PresignedUrl, Region, parse_key
from archiver.storage.multipart import Unfinished
from archiver.storage.put_body import Counted, whole_if_small
from archiver.storage.s3_errors import NO_SUCH_BUCKET, TIMEOUT, s3_code
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings, bulk_store, control_store
from archiver.storage.write_probe import Proof
from archiver.telemetry import METRICS, log

PART_BYTES = 5 << 20
"""The least that S3 takes, since the last one goes its way when all else is done. S3 allows 10,000
of them, so an archive may have 48 GiB. What is smaller than one is sent whole."""

PARTS_AT_A_TIME = 4
"""Of one upload: with the part that is being filled, 25 MiB of memory per region."""

READ_BYTES = 1 << 20

MANIFEST_MAX_BYTES = 64 << 10
"""A manifest has some 1 kB, and with the longest names a quarter of this."""

PAGE_KEYS = 1000
"""What S3 lists at a time."""

PROBES = 64
"""Objects in a bucket that prove that it takes writes, however many processes come and go."""

NOTHING = "check/"
"""A prefix without objects, whose listing is as cheap as a bucket's answer can be."""

CONTENT_TYPES = {
    ".tar.gz": "application/gzip",
    ".tar.bz2": "application/x-bzip2",
    ".tar.xz": "application/x-xz",
    ".tar.zst": "application/zstd",
    ".tar": "application/x-tar",
    ".zip": "application/zip",
}
CACHE_CONTROL = "private, max-age=31536000, immutable"
"""The bytes under a key never change. Private, because the URLs that lead to them are secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A manifest whose bytes are not there: somebody deleted or replaced them.

    Or *unsure*: the region gave the manifest, and did not say whether it has the bytes.
    """

    manifest: Manifest
    unsure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """The manifest that a region shows after it was asked to take one.

    Another one may still replace it if *unheard*: the region did not say what became of the write,
    which may be on its way, and not every server knows ``If-None-Match``.
    """

    manifest: Manifest
    unheard: bool = False


class Bucket:
    """Where one region keeps its archives and their manifests.

    Without keys, the environment, the container or the machine's role has to provide them.
    Whatever the region is asked to do and does not, raises StorageUnavailable. Links are signed for
    *public_endpoint*, if it has one, to which nothing is ever sent from here.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        *,
        region: Region,
        bucket: str,
        endpoint: str | None,
        aws_region: str | None,
        access_key_id: str | None,
        secret_access_key: str | None,
        virtual_hosted: bool,
        presigned_ttl: timedelta,
        public_endpoint: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.region = region
        self.place = _place(endpoint or aws_region or region, bucket)
        self._presigned_ttl = presigned_ttl
        settings = S3Settings(
            bucket=bucket,
            endpoint=endpoint,
            region=aws_region or region,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            virtual_hosted=virtual_hosted,
            ca_file=ca_file,
        )
        self._probe_key = f"probes/{secrets.randbelow(PROBES):02}"
        self._proof = Proof(probe=self._probe)
        self._unfinished = Unfinished(settings)
        self._bulk = bulk_store(settings)
        self._control = control_store(settings)
        self._public = (
            control_store(replace(settings, endpoint=public_endpoint))
            if public_endpoint
            else self._control
        )

    async def manifest(self, archive: Archive) -> Manifest | None:
        """Return the manifest that makes *archive* exist here, if there is one."""
        try:
            async with self._soon_asked_to("give a manifest"):
                answer = await obstore.get_async(self._control, _manifest_key(archive))
                small = answer.meta["size"] <= MANIFEST_MAX_BYTES
                body = await answer.bytes_async() if small else b""
        except _Absent:
            return None
        return self._read(archive, bytes(body))

    async def copy(self, archive: Archive) -> Manifest | Bare | None:
        """Return the manifest of *archive*, bare if the object that it names is not here whole.

        Whole is what has its size: reading it through would take as long as a download.
        """
        manifest = await self.manifest(archive)
        if manifest is None:
            return None
        try:
            there = await self._has(manifest)
        except StorageUnavailable:  # what was read is a promise all the same
            return Bare(manifest=manifest, unsure=True)
        return manifest if there else Bare(manifest=manifest)

    async def _has(self, manifest: Manifest) -> bool:
        try:
            async with self._soon_asked_to("show an archive"):
                meta = await obstore.head_async(self._control, manifest.object_key)
        except _Absent:
            return False
        return meta["size"] == manifest.size_bytes

    async def archives(self, source: str | None) -> AsyncGenerator[Archive, None]:
        """Yield the archives that have a manifest here: all, or those of *source*."""
        with self._asked_to("list its manifests"):
            async for page in obstore.list(self._bulk, _folder(source), chunk_size=PAGE_KEYS):
                for meta in page:
                    if archive := _archive_of(meta["path"]):
                        yield archive

    async def commit(
        self, archive: Archive, manifest: Manifest, *, known_absent: bool = False
    ) -> Stands:
        """Write *manifest* unless there is one; return the one that stands.

        An answer that was lost is no answer: what counts is what can be read afterwards. And it is
        read before, because there are servers that know nothing of ``If-None-Match``: unless the
        caller has just seen that there is none.
        """
        if not known_absent and (standing := await self.manifest(archive)):
            return Stands(manifest=standing)
        try:
            await self._create(archive, manifest)
        except StorageUnavailable as exc:
            if standing := await self.manifest(archive):
                refused = isinstance(exc, _Taken)
                return Stands(manifest=standing, unheard=standing != manifest and not refused)
            raise
        return Stands(manifest=manifest)

    async def _create(self, archive: Archive, manifest: Manifest) -> None:
        body = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        with self._proof.writing():
            async with self._soon_asked_to("take a manifest"):
                await obstore.put_async(
                    self._control,
                    _manifest_key(archive),
                    body,
                    mode="create",
                    attributes={"Content-Type": "application/json"},
                )

    async def require_writable(self) -> None:
        """Return if the bucket takes writes, as one of the last seconds showed or a probe does."""
        await self._proof.require()

    async def _probe(self) -> None:
        with self._proof.writing():
            async with self._soon_asked_to("take a probe"):
                await obstore.put_async(self._control, self._probe_key, b"archiver\n")

    async def put(self, object_key: str, chunks: AsyncIterator[bytes]) -> int:
        """Store what *chunks* yields, all of it or nothing; return how many bytes were sent.

        Do not cancel this: the parts that were sent would stay behind, unseen. Let *chunks* raise.
        It has to be an iterator that needs no closing, since obstore would not do it.
        """
        counted = Counted(chunks)
        with self._proof.writing(), self._asked_to("take an archive"):
            await obstore.put_async(
                self._bulk,
                object_key,
                await whole_if_small(counted, PART_BYTES),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_A_TIME,
                attributes=_attributes(object_key),
            )
        return counted.size_bytes

    async def confirm(self, object_key: str, size_bytes: int) -> None:
        """Return if the object is here and has so many bytes, whatever was said when it came.

        It is asked for over the connections that it came by, which are open.
        """
        async with self._soon_asked_to("show an archive"):
            meta = await obstore.head_async(self._bulk, object_key)
        if (stored := meta["size"]) != size_bytes:
            raise StorageUnavailable(
                f"{self.region} has {stored} bytes of an archive of {size_bytes}"
            )

    async def get(self, object_key: str) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes. An object that ends early raises."""
        with self._asked_to("give an archive"):
            answer = await obstore.get_async(self._bulk, object_key)
            async for chunk in answer.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)

    async def delete(self, object_key: str) -> None:
        async with self._soon_asked_to("delete an object"):
            await obstore.delete_async(self._control, object_key)

    async def abort_uploads(self, object_key: str, *, until: datetime) -> None:
        """Abort the uploads of *object_key* that began by then."""
        await self._unfinished.abort(object_key, until=until)

    async def abort_old_uploads(self, than: timedelta) -> int:
        """Abort uploads of archives that began longer ago *than* that; return how many."""
        return await self._unfinished.abort_old(ARCHIVES, than=than)

    def presign(self, object_key: str, method: Literal["GET", "HEAD"]) -> PresignedUrl:
        """Return a link to the object. Asks nobody, unless credentials have just run out."""
        with self._asked_to("sign a link"):
            url = obstore.sign(self._public, method, object_key, self._presigned_ttl)
        return PresignedUrl(url)

    async def check(self) -> None:
        """Return if the bucket exists and lets itself be listed."""
        async with self._soon_asked_to("list its bucket"):
            await obstore.list_with_delimiter_async(self._control, NOTHING)

    def _read(self, archive: Archive, body: bytes) -> Manifest:
        """Return *body* as the manifest of *archive*, and of no other.

        File systems that take ``A`` for ``a`` would have one answer for two keys, and a manifest
        that somebody else wrote may name any object.
        """
        manifest = foreign = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            manifest = msgspec.json.decode(body, type=Manifest)
        if manifest is None or (foreign := unbound(manifest, archive)):
            METRICS.unreadable.labels(place="manifests").inc()
            log.error("manifest.unreadable", region=self.region, key=archive.key, field=foreign)
            raise UnreadableManifest(f"the manifest in {self.region} is not one of this archive")
        return manifest

    @asynccontextmanager
    async def _soon_asked_to(self, doing: str) -> AsyncGenerator[None, None]:
        with self._asked_to(doing):
            async with asyncio.timeout(CONTROL_TIMEOUT.total_seconds()):
                yield

    @contextmanager
    def _asked_to(self, doing: str) -> Iterator[None]:
        """Tell what the region was asked to do, when it did not."""
        try:
            yield
        except TimeoutError as exc:
            message = f"{self.region} did not {doing} in time"
            raise StorageUnavailable(message, s3_code=TIMEOUT) from exc
        except (BaseError, OSError, ValueError) as exc:
            message, code = f"{self.region} did not {doing}", s3_code(exc)
            if isinstance(exc, FileNotFoundError) and code != NO_SUCH_BUCKET:
                raise _Absent(f"{message}: there is none", s3_code=code) from exc
            if isinstance(exc, AlreadyExistsError):
                raise _Taken(f"{message}: there is one", s3_code=code) from exc
            raise StorageUnavailable(message, s3_code=code) from exc


class _Absent(StorageUnavailable):
    """404: the object does not exist. That a whole bucket does not is an outage."""


class _Taken(StorageUnavailable):
    """412: the object exists, and the server compares before it writes, early or late."""


def _place(server: str, bucket: str) -> str:
    return hashlib.sha256(f"{server}\0{bucket}".encode()).hexdigest()[:16]


def _manifest_key(archive: Archive) -> str:
    return f"manifests/{archive.key}.json"


def _archive_of(manifest_key: str) -> Archive | None:
    key = manifest_key.removeprefix("manifests/").removesuffix(".json")
    archive = parse_key(key)
    return archive if archive and _manifest_key(archive) == manifest_key else None


def _folder(source: str | None) -> str:
    """Return where the manifests lie: all, or those of *source*."""
    return f"manifests/{KEY_VERSION}/{source or ''}"


def _attributes(object_key: str) -> dict[str, str]:
    name = object_key.rpartition("/")[2]
    known = (kind for suffix, kind in CONTENT_TYPES.items() if name.endswith(suffix))
    return {
        "Content-Type": next(known, "application/octet-stream"),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": CACHE_CONTROL,
    }
