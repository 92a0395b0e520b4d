"""Trees with all kinds of members, packed with the standard library in every format."""

import io
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

from tests.formats.samples import COMPRESS, ROOT, Unseekable, decompress, note

LONG = "long/" * 40 + "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A member below ROOT: a file with ``content``, or a ``link``."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    mtime: int = 1_700_000_001
    link: str = ""

    @property
    def name(self) -> str:
        return f"{ROOT}/{self.path}"


RICH = (
    Item(path=".hg_archival.txt", content=note()),
    Item(path="README", content=b"read me\n"),
    Item(path="empty"),
    Item(path="run.sh", content=b"#!/bin/sh\n", mode=0o755),
    Item(path="old", content=b"in 1999", mtime=915_148_800),
    Item(path="before", content=b"in 1969", mtime=-1),
    Item(path="late", content=b"in 2038", mtime=2**31 - 1),
    Item(path="latest", link="testing/README.txt", mode=0o777),
    Item(path="up/link", link="../README", mode=0o777),
    Item(path="testing/README.txt", content=b"x" * 511),
    Item(path="testing/block", content=b"y" * 512),
    Item(path="testing/böök/日本.txt", content="ü".encode()),
    Item(path=f"testing/{LONG}", content=b"deep"),
    Item(path="testing/large", content=bytes(range(256)) * 20_000),
    Item(path="farlink", link=f"testing/{LONG}", mode=0o777),
)


def tar_of(items: Sequence[Item], *, style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for item in items:
            member = tarfile.TarInfo(item.name)
            member.mode, member.mtime, member.size = item.mode, item.mtime, len(item.content)
            if item.link:
                member.type, member.linkname = tarfile.SYMTYPE, item.link
            archive.addfile(member, io.BytesIO(item.content))
    return buffer.getvalue()


def zip_of(items: Sequence[Item]) -> bytes:
    """Return a zip like hgweb's: sizes after members, times in extra fields."""
    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive:
        for item in items:
            moment = time.gmtime(max(item.mtime, 315_532_800))
            info = zipfile.ZipInfo(item.name, moment[:6])
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            info.extra = struct.pack("<hhBl", 0x5455, 5, 1, item.mtime)
            kind = stat.S_IFLNK if item.link else stat.S_IFREG
            info.external_attr = (kind | item.mode) << 16
            archive.writestr(info, item.link or item.content)
    return bytes(buffer.written)


def pack(items: Sequence[Item], suffix: str) -> bytes:
    return zip_of(items) if suffix == "zip" else COMPRESS[suffix](tar_of(items))


def unpack(data: bytes, suffix: str) -> list[Item]:
    """Return the members of an archive, as the standard library reads them."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [_of_zip(archive, info) for info in archive.infolist()]
    with tarfile.open(fileobj=io.BytesIO(decompress(suffix, data))) as tar:
        return [_of_tar(tar, member) for member in tar]


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Item:
    mode = info.external_attr >> 16
    content = archive.read(info)
    is_symlink = stat.S_ISLNK(mode)
    mtime = struct.unpack("<l", info.extra[info.extra.index(b"UT\5\0\1") + 5 :][:4])[0]
    return Item(
        path=info.filename.removeprefix(f"{ROOT}/"),
        content=b"" if is_symlink else content,
        mode=stat.S_IMODE(mode),
        mtime=mtime,
        link=content.decode() if is_symlink else "",
    )


def _of_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    file = None if member.issym() else tar.extractfile(member)
    return Item(
        path=member.name.removeprefix(f"{ROOT}/"),
        content=file.read() if file else b"",
        mode=member.mode,
        mtime=int(member.mtime),
        link=member.linkname,
    )
