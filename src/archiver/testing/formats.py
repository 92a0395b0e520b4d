"""Fakes that pack, convert and verify archives in memory."""

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
from typing import NamedTuple

import zstandard

from archiver.errors import CorruptArchive, NoRoom, NotConvertible, TruncatedArchive, UnknownSubdir
from archiver.model import Archive, Verified
from archiver.ports.source import IdentityCheck, PipedTar, TreeCheck
from archiver.sealing import seal


class _Packing(NamedTuple):
    magic: bytes
    compress: Callable[[bytes], bytes] = bytes
    decompress: Callable[[bytes], bytes] = bytes


_PACKINGS: Mapping[str, _Packing] = {
    "zip": _Packing(b"PK"),
    "tar": _Packing(b""),
    "tar.gz": _Packing(b"\x1f\x8b", partial(gzip.compress, mtime=0), gzip.decompress),
    "tar.bz2": _Packing(b"BZh", bz2.compress, bz2.decompress),
    "tar.xz": _Packing(b"\xfd7zXZ", lzma.compress, lzma.decompress),
    "tar.zst": _Packing(b"\x28\xb5\x2f\xfd", zstandard.compress, zstandard.decompress),
}


def packed(members: Mapping[str, bytes], suffix: str) -> bytes:
    return _zip(members) if suffix == "zip" else _PACKINGS[suffix].compress(_tar(members))


def _unpacked(data: bytes, suffix: str) -> dict[str, bytes]:
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(_PACKINGS[suffix].decompress(data))) as tar:
        extracted = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: file.read() for name, file in extracted if file}


async def _read_all(chunks: AsyncGenerator[bytes, None], suffix: str) -> bytes:
    """Return all bytes. Raises CorruptArchive early if they do not begin like *suffix*."""
    data = b""
    async for chunk in chunks:
        data += chunk
        if not data.startswith(_PACKINGS[suffix].magic):
            raise CorruptArchive(f"the bytes do not begin like {suffix}")
    return data


class FakeConverter:
    """Converts archives in memory with the standard library. Ignores modes and links.

    ``conversions`` counts them. If ``full``, there is no room. Archives with a suffix in
    ``not_convertible`` are rejected.
    """

    def __init__(self) -> None:
        self.conversions = 0
        self.not_convertible: set[str] = set()
        self.full = False

    def version(self, suffix: str) -> str:
        return f"fake {suffix}"

    def require_room(self, **_archives: object) -> None:  # there is room for all or none
        if self.full:
            raise NoRoom("the fake converter is full")

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        original: Archive,
        target: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,  # noqa: ARG002 - memory suffices
        piped: PipedTar | None = None,  # noqa: ARG002 - the same as the chunks
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def converted() -> AsyncGenerator[bytes, None]:
            async with aclosing(chunks):
                members = _unpacked(await _read_all(chunks, original.suffix), original.suffix)
            if original.suffix in self.not_convertible:
                raise NotConvertible(f"a {target.suffix} cannot represent a member")
            top = f"{root}/{target.subdir}".rstrip("/")
            if original.subdir != target.subdir:
                members = {
                    name: content
                    for name, content in members.items()
                    if name == top or name.startswith(f"{top}/")
                }
            if not members:
                raise UnknownSubdir(f"there is no {target.subdir} in {target.repo}")
            self.conversions += 1
            moved = {
                (client_root or root) + name.removeprefix(root): content
                for name, content in members.items()
            }
            yield packed(moved, target.suffix)

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
    """Verifies that a gzip stream is complete. Accepts everything in other formats."""

    def __init__(
        self,
        archive: Archive,
        *,
        root: str,
        identity: IdentityCheck | None,  # noqa: ARG002 - it looks into no member
        tree: TreeCheck | None = None,  # noqa: ARG002
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
            raise TruncatedArchive("the gzip stream is truncated")
        if self._gzip and self._gzip.unused_data:
            raise CorruptArchive("there are bytes after the gzip stream")
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._size_bytes,
            root=self._root,
            last_file=self.last_file,
        )
