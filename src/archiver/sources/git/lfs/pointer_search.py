"""Finds the pointers of Git LFS in a commit, as ``git lfs`` would replace them in a checkout."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

import msgspec

from archiver.errors import ArchiveTooLarge, LfsRefused, MirrorFailed
from archiver.git_objects import EXECUTABLE, FILE, object_id
from archiver.git_objects.lfs_pointer import (
    POINTER_MAX_BYTES,
    POINTER_MIN_BYTES,
    Pointer,
    parse_pointer,
)
from archiver.model import Archive
from archiver.names import display_path
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.attribute_lookup import look_up_attributes
from archiver.sources.git.listing import PIECE_BYTES, Entry, Listing, spool
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.store import storing

ENTRIES_MAX = 100_000
"""LFS files of an archive. They are kept in memory; large repositories have some 10,000."""

ENTRIES_MAX_BYTES = 64 << 20
"""Size of all their paths and pointers, of which most have 200 bytes together."""

_FILTER = b"lfs"
_PENDING_MAX_BYTES = 4096
"""More than the head and the content of one file."""

_HEAD = re.compile(rb"([0-9a-f]{40,64}) blob (\d{1,4})\n")


class LfsEntry(msgspec.Struct, frozen=True, gc=False):
    """A file of Git LFS in a commit: its path and pointer, and the blob that has the pointer.

    ``object_id`` is git's id of that blob, and ``text`` its content.
    """

    path: bytes
    object_id: str
    pointer: Pointer
    text: bytes


async def find_pointers(mirror: Mirror, archive: Archive, listing: Listing) -> list[LfsEntry]:
    """Return the files of *listing* that are pointers and have the attribute ``filter=lfs``.

    Others stay as they are, as in a checkout. The attributes count whether or not the source
    honours them in archives.

    Raises ArchiveTooLarge for too many, LfsRefused for a pointer with extensions, MirrorFailed,
    GitFailed, or NoRoom.
    """
    with ExitStack() as stack, storing():
        chosen, ids = (stack.enter_context(spool(mirror.scratch)) for _ in range(2))
        choice = _Choice(listing, chosen=chosen, ids=ids)
        await look_up_attributes(
            mirror,
            archive.node,
            ("filter",),
            wanted=choice.wanted,
            take=choice.take,
            cpu=listing.cpu,
        )
        if not ids.tell():
            return []
        choice.finish()
        reader = PointerReader(archive, iter(choice))
        async with mirror.git.stream("cat-file", "--batch", "--buffer", stdin=ids) as output:
            async for piece in output:
                await run_in_thread(reader.add, piece)
        return reader.finish()


class _Choice:
    """The files that may be pointers, spooled twice: id and path of each, and the ids for git."""

    def __init__(self, listing: Listing, *, chosen: BinaryIO, ids: BinaryIO) -> None:
        self._listing = listing
        self._chosen = chosen
        self._ids = ids

    def wanted(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the files that have the size of a pointer."""
        for entry in self._listing:
            fits = POINTER_MIN_BYTES <= entry.size_bytes <= POINTER_MAX_BYTES
            if fits and entry.mode in {FILE, EXECUTABLE}:
                yield entry.path, entry

    def take(self, path: bytes, entry: Entry, values: Sequence[bytes]) -> None:
        if values[0] == _FILTER:
            name = entry.object_id.encode()
            self._chosen.write(b"%s %s\0" % (name, path))
            self._ids.write(name + b"\n")

    def finish(self) -> None:
        self._chosen.flush()
        self._ids.flush()
        self._ids.seek(0)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield id and path of each file. Reads block."""
        position, rest = 0, b""
        while piece := os.pread(self._chosen.fileno(), PIECE_BYTES, position):
            position += len(piece)
            *lines, rest = (rest + piece).split(b"\0")
            for line in lines:
                name, _, path = line.partition(b" ")
                yield name.decode(), path


class PointerReader:
    """Reads the output of ``git cat-file --batch``, which has the blobs of the *chosen* files."""

    def __init__(self, archive: Archive, chosen: Iterator[tuple[str, bytes]]) -> None:
        self._archive = archive
        self._chosen = chosen
        self._rest = b""
        self._found: list[LfsEntry] = []
        self._size_bytes = 0

    def add(self, output: bytes) -> None:
        output = self._rest + output
        position = 0
        while head := _HEAD.match(output, position):
            end = head.end() + int(head[2])
            if end >= len(output):  # a line feed follows the content
                break
            self._add_blob(head[1].decode(), output[head.end() : end])
            position = end + 1
        self._rest = output[position:]
        if len(self._rest) > _PENDING_MAX_BYTES:
            raise MirrorFailed("git did not send the content of a file")

    def _add_blob(self, name: str, text: bytes) -> None:
        expected, path = next(self._chosen, ("", b""))
        if name != expected or object_id("blob", text, digits=len(name)) != name:
            raise MirrorFailed("git sent the content of another file")
        try:
            pointer = parse_pointer(text)
        except LfsRefused as exc:
            where = f"{display_path(path)} in {self._archive.repo}"
            raise LfsRefused(f"{where} cannot be fetched: {exc.message}") from None
        if pointer:
            self._add_entry(LfsEntry(path, name, pointer, text))

    def _add_entry(self, entry: LfsEntry) -> None:
        self._found.append(entry)
        self._size_bytes += len(entry.path) + len(entry.text)
        if len(self._found) > ENTRIES_MAX or self._size_bytes > ENTRIES_MAX_BYTES:
            raise ArchiveTooLarge(
                f"{self._archive.node} in {self._archive.repo} is too large: it has more than "
                f"{ENTRIES_MAX:,} LFS files, or their names have more than {ENTRIES_MAX_BYTES:,} "
                "bytes"
            )

    def finish(self) -> list[LfsEntry]:
        """Return the pointers, in the order of the listing."""
        if self._rest or next(self._chosen, None):
            raise MirrorFailed("git sent the contents of a commit's files incompletely")
        return self._found
