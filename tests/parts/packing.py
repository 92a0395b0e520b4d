"""Archives as a test wants them packed, by the standard library alone."""

import bz2
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

BLOCK = 512
"""Of a tar, at whose end stand two blocks of zeros."""


def tar_members(members: Mapping[str, bytes], *, records: Mapping[str, str] | None = None) -> bytes:
    """Return a tar without its end; the PAX *records* hold for each of its members."""
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
    """Return a zip; a *wide* one has 64-bit sizes where 32 bits would do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            with archive.open(name, "w", force_zip64=wide) as member:
                member.write(content)
    return buffer.getvalue()


def read_through(suffix: str, data: bytes) -> list[str]:
    """Return the names of all members, each of which was read to its end. Raises if one cannot be.

    It is the standard library's opinion, and no more than that: it accepts much that is not whole.
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
