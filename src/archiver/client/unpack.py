"""Reads the members of a tar as its bytes arrive, and those of a zip."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from archiver.client.decompression import Readable
from archiver.client.failures import WrongBytes
from archiver.client.tar_stream import TarStream
from archiver.client.tree_writer import TreeWriter, Unsafe

CHUNK_BYTES = 1024 * 1024
LINK_MAX_BYTES = 4096
COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""zipfile decompresses others without a bound of the memory, and no host uses them."""
ZEROS = bytes(tarfile.BLOCKSIZE)

DAMAGES = (
    EOFError,
    OverflowError,
    NotImplementedError,  # zipfile: encryption that it does not know
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What tarfile and zipfile raise for a damaged archive, or one that is none."""


def unpack_tar(source: Readable, tree: TreeWriter) -> None:
    """Write the members of a plain tar to *tree*.

    Raises WrongBytes if it is damaged, and Unsafe if a member is not one of a source tree.
    """
    stream = TarStream(source)
    try:
        with tarfile.TarFile(fileobj=cast("IO[bytes]", stream)) as tar:
            for member in tar:
                _add(stream, member, tree)
                tar.members.clear()  # type: ignore[attr-defined] # they would fill the memory
        if stream.last != ZEROS:  # tarfile takes a damaged header for the end
            raise EOFError
        while source.read(CHUNK_BYTES):  # the sender waits until all is read
            pass
    except DAMAGES as exc:
        raise WrongBytes(f"the archive is damaged ({type(exc).__name__})") from exc
    tree.check_links()


def _add(stream: TarStream, member: tarfile.TarInfo, tree: TreeWriter) -> None:
    path = tree.place(member.name)
    if not path:
        return
    if member.isdir():
        tree.add_folder(path)
    elif member.isreg() and not member.issparse():
        contents = stream.contents(member.size)
        tree.add_file(path, contents, mode=member.mode, mtime=member.mtime)
    elif member.issym():
        tree.add_link(path, member.linkname)
    elif member.islnk():
        tree.add_hard_link(path, tree.place(member.linkname))
    else:
        raise Unsafe(f"the archive has a device, a FIFO or a sparse file: {member.name}")


def unpack_zip(file: Path, tree: TreeWriter) -> None:
    """Write the members of a zip to *tree*. Raises as ``unpack_tar``."""
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                _add_entry(archive, entry, tree)
    except DAMAGES as exc:
        raise WrongBytes(f"the archive is damaged ({type(exc).__name__})") from exc
    tree.check_links()


def _add_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, tree: TreeWriter) -> None:
    if entry.compress_type not in COMPRESSIONS:
        raise WrongBytes(f"the archive packs {entry.filename} in a way that no host uses")
    path, mode = tree.place(entry.filename), entry.external_attr >> 16
    if not path:
        return
    if entry.is_dir():
        tree.add_folder(path)
    elif stat.S_ISLNK(mode):
        if entry.file_size > LINK_MAX_BYTES:
            raise Unsafe(f"the archive has a link that is too long: {entry.filename}")
        tree.add_link(path, os.fsdecode(archive.read(entry)))
    else:
        with archive.open(entry) as content:
            mtime = time.mktime((*entry.date_time, 0, 0, -1))
            tree.add_file(path, _chunks(content), mode=mode or 0o644, mtime=mtime)


def _chunks(content: Readable) -> Iterator[bytes]:
    while chunk := content.read(CHUNK_BYTES):
        yield chunk
