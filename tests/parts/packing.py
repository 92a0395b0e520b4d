"""Packs archives for tests with only the standard library."""

import bz2
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

BLOCK = 512
"""Block size of a tar in bytes. A tar ends with two blocks of zeros."""


def tar_members(members: Mapping[str, bytes], *, records: Mapping[str, str] | None = None) -> bytes:
    """Return a tar without its end. Each member gets the PAX *records*."""
    return b"".join(
        tar_member(name, content, **(records or {})) for name, content in members.items()
    )


def tar_member(name: str, content: bytes = b"", **records: str) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.pax_headers = records
    return member.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % BLOCK)


def tar_link(name: str, target: str, *, kind: bytes = tarfile.SYMTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member.tobuf(tarfile.PAX_FORMAT)


TAR_END = bytes(2 * BLOCK)


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], *, wide: bool = False) -> bytes:
    """Return a zip. A *wide* zip has 64-bit sizes even where 32 bits are enough."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            with archive.open(name, "w", force_zip64=wide) as member:
                member.write(content)
    return buffer.getvalue()


def read_through(suffix: str, data: bytes) -> list[str]:
    """Read all members with the standard library, and return their names.

    Raises if a member is unreadable. The standard library accepts many incomplete archives.
    """
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [name for name in archive.namelist() if archive.read(name) is not None]
    names = []
    unpacked = {"tar.gz": gzip.decompress, "tar.bz2": bz2.decompress}[suffix](data)
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        for member in tar:
            if file := tar.extractfile(member) if member.isreg() else None:
                assert len(file.read()) == member.size
            names.append(member.name)
    return names
