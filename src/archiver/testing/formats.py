"""Archives made, taken apart and verified in memory."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial

import zstandard

from archiver.errors import CorruptArchive, NoRoom, NotConvertible, TruncatedArchive, UnknownSubdir
from archiver.model import Archive, Verified
from archiver.ports.source import IdentityCheck
from archiver.sealing import seal

_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": partial(gzip.compress, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}


def packed(members: Mapping[str, bytes], suffix: str) -> bytes:
    """Return an archive of these files."""
    return _zip(members) if suffix == "zip" else _COMPRESS[suffix](_tar(members))


def _unpacked(data: bytes, suffix: str) -> dict[str, bytes]:
    """Return the files of an archive."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(_DECOMPRESS[suffix](data))) as tar:
        extracted = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: file.read() for name, file in extracted if file}


_MAGIC: Mapping[str, bytes] = {
    "tar.gz": b"\x1f\x8b",
    "tar.bz2": b"BZh",
    "tar.xz": b"\xfd7zXZ",
    "tar.zst": b"\x28\xb5\x2f\xfd",
    "zip": b"PK",
}


async def _read(chunks: AsyncGenerator[bytes, None], suffix: str) -> bytes:
    """Return what comes; what does not begin as it ought to is not read to its end."""
    data = b""
    async for chunk in chunks:
        data += chunk
        if not data.startswith(_MAGIC.get(suffix, b"")):
            raise CorruptArchive("that does not begin as it ought to")
    return data


_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.decompress,
    "tar.bz2": bz2.decompress,
    "tar.xz": lzma.decompress,
    "tar.zst": zstandard.decompress,
}


class FakeConverter:
    """Converts files, by the standard library and all at once. Of modes and links it knows nothing.

    ``conversions`` counts what was done. If it is ``full``, it has no room for any. Of an archive
    with one of the ``unfit`` suffixes nothing can be made.
    """

    def __init__(self) -> None:
        self.conversions = 0
        self.unfit: set[str] = set()
        self.full = False

    def version(self, suffix: str) -> str:
        return f"fake {suffix}"

    def require_room(
        self,
        *,
        given: Archive,  # noqa: ARG002 - it has room for all or for none
        wanted: Archive,  # noqa: ARG002
        size_bytes: int = 0,  # noqa: ARG002
    ) -> None:
        if self.full:
            raise NoRoom("as told")

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,  # noqa: ARG002 - it has all the room in the world
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def converted() -> AsyncGenerator[bytes, None]:
            async with aclosing(chunks):
                members = _unpacked(await _read(chunks, given.suffix), given.suffix)
            if given.suffix in self.unfit:
                raise NotConvertible(f"{wanted.suffix} has no words for it")
            top = f"{root}/{wanted.subdir}".rstrip("/")
            if given.subdir != wanted.subdir:
                members = {
                    name: content
                    for name, content in members.items()
                    if name == top or name.startswith(f"{top}/")
                }
            if not members:
                raise UnknownSubdir(f"there is no {wanted.subdir} in {wanted.repo}")
            self.conversions += 1
            moved = {
                (client_root or root) + name.removeprefix(root): content
                for name, content in members.items()
            }
            yield packed(moved, wanted.suffix)

        async with aclosing(converted()) as pieces:
            yield pieces


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


class GzipVerifier:
    """Sees whether a gzip stream came to its end. Of other formats it believes everything."""

    def __init__(
        self,
        archive: Archive,
        *,
        root: str,
        identity: IdentityCheck | None,  # noqa: ARG002 - it looks into no member
    ) -> None:
        self._root = root
        self._suffix = archive.suffix
        self._data = b""
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if archive.suffix == "tar.gz" else None

    async def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._size_bytes += len(chunk)
        self._data += chunk
        if self._gzip:
            try:
                self._gzip.decompress(chunk)
            except zlib.error as exc:
                raise CorruptArchive("the gzip stream is damaged") from exc

    @property
    def last_file(self) -> bytes:
        try:
            names = [*_unpacked(self._data, self._suffix)] or [""]
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error):
            return b""
        return names[-1].removeprefix(f"{self._root}/").encode()

    async def finish(self) -> Verified:
        if self._gzip and not self._gzip.eof:
            raise TruncatedArchive("the gzip stream has no end")
        if self._gzip and self._gzip.unused_data:
            raise CorruptArchive("something follows the gzip stream")
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._size_bytes,
            root=self._root,
            last_file=self.last_file,
        )
