"""Archives as hosts pack them, made with the standard library, and their verification."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from archiver.formats.verify import DEFAULT_LIMITS, StreamVerifier
from archiver.model import Archive, Limits, Node, Verified
from archiver.ports.formats import Verifier
from archiver.sources.hgweb.source import HgArchivalCheck

NODE = Node("0123456789abcdef0123456789abcdef01234567")
OTHER = Node("f" * 40)
ROOT = f"ash-{NODE[:12]}"
SUFFIXES = ("tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip")
"""The suffixes with a checksum for every byte of a member: all except tar."""

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstd,
}


def decompress(suffix: str, data: bytes) -> bytes:
    """Return the tar in *data*, decompressed with other libraries than Archiver's."""
    match suffix:
        case "tar.gz":
            return gzip.decompress(data)
        case "tar.bz2":
            return bz2.decompress(data)
        case "tar.xz":
            return lzma.decompress(data)
        case "tar.zst":
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as tar:
                return tar.read()
        case _:
            return data


def note(node: str = NODE) -> bytes:
    return f"repo: {OTHER}\nnode: {node}\nbranch: default\nlatesttag: null\n".encode()


TREE = {
    f"{ROOT}/.hg_archival.txt": note(),
    f"{ROOT}/README": b"read me\n",
    f"{ROOT}/empty": b"",
    f"{ROOT}/testing/mozharness/run.py": b"print('run')\n" * 50,
}


def an_archive(suffix: str, subdir: str = "") -> Archive:
    return Archive(source="hgmo", repo="projects/ash", node=NODE, subdir=subdir, suffix=suffix)


def packed(suffix: str, members: Mapping[str, bytes] = TREE) -> bytes:
    return zipped(members) if suffix == "zip" else COMPRESS[suffix](tar(members))


def tar(members: Mapping[str, bytes] = TREE, *, style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Unseekable(io.RawIOBase):
    """An output like hgweb's, so that sizes and CRC follow each member of a zip."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # whatever zipfile has
        self.written += data
        return len(data)


def zipped(
    members: Mapping[str, bytes] = TREE,
    *,
    method: int = zipfile.ZIP_DEFLATED,
    seekable: bool = False,
    comment: bytes = b"",
    wide: bool = False,
) -> bytes:
    """Return a zip. A *wide* one has 64-bit sizes where 32 bits suffice."""
    buffer = io.BytesIO() if seekable else Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=wide) as member:
                member.write(content)
    return buffer.getvalue() if isinstance(buffer, io.BytesIO) else bytes(buffer.written)


GOOD = {suffix: packed(suffix) for suffix in SUFFIXES}


def linked_tar(name: str, target: str) -> tuple[str, bytes]:
    """Return a suffix, and an archive of it in which *name* is a symbolic link."""
    buffer = io.BytesIO(tar())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    return "tar.gz", gzip.compress(buffer.getvalue(), mtime=0)


def linked_zip(name: str, target: str) -> tuple[str, bytes]:
    """Return a suffix, and an archive of it in which *name* is a symbolic link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in TREE.items():
            archive.writestr(member, content)
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return "zip", buffer.getvalue()


async def verify_chunks(
    archive: Archive,
    chunks: Iterable[bytes],
    *,
    limits: Limits = DEFAULT_LIMITS,
    refuse_links_outside: bool = False,
) -> Verified:
    """Return or raise the result of verifying *chunks*."""
    with ThreadPoolExecutor(1) as pool:
        verifier = StreamVerifier(
            archive,
            root=ROOT,
            identity=HgArchivalCheck(archive.node),
            limits=limits,
            refuse_links_outside=refuse_links_outside,
            pool=pool,
        )
        return await _read_by(verifier, chunks)


async def verify_in_one_thread(archive: Archive, chunks: Iterable[bytes]) -> Verified:
    """Return or raise the result of a verifier without a pool."""
    return await _read_by(
        StreamVerifier(archive, root=ROOT, identity=HgArchivalCheck(archive.node)), chunks
    )


async def _read_by(verifier: Verifier, chunks: Iterable[bytes]) -> Verified:
    for chunk in chunks:
        await verifier.update(chunk)
    return await verifier.finish()


def contents(suffix: str, data: bytes) -> list[tuple[str, bytes]]:
    """Return the names and contents of all members, as the standard library reads them."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(name, archive.read(name)) for name in archive.namelist()]
    with tarfile.open(fileobj=io.BytesIO(decompress(suffix, data))) as archive_:
        extracted = [(member.name, archive_.extractfile(member)) for member in archive_]
        return [(name, file.read() if file else b"") for name, file in extracted]
