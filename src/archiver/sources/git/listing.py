"""The entries of a commit's tree, listed before the tree is archived.

``git ls-tree -r -t -z -l`` prints a line for each folder, file, link and submodule, in the order in
which ``git archive`` writes them: https://git-scm.com/docs/git-ls-tree#_output_format. Folders are
listed because some hundred bytes can stand for any number of them, with no file in any.
"""

import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from archiver.errors import ArchiveTooLarge, MirrorFailed, NoRoom
from archiver.git_objects import FOLDER, LINK, SUBMODULE, canonical_mode
from archiver.model import Archive, Limits
from archiver.names import display_path
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.path_check import PathCheck
from archiver.sources.git.store import storing, unusable

BLOCK_BYTES = 512
"""Size of a tar's header, and of the unit to which contents are padded."""

LISTING_MAX_BYTES = 1 << 30
"""Size of a listing on disk: a path of 200 bytes for each of 4 million entries."""

SUBMODULES_MAX = 20_000
ATTRIBUTES_FILES_MAX = 20_000
"""Ids of such entries are kept in memory. Real trees have some hundred."""

PIECE_BYTES = 1 << 20

ATTRIBUTES_NAME = b".gitattributes"

CPU_MIN = timedelta(minutes=2)
CPU_PER_MEMBER = timedelta(milliseconds=1)
CPU_PER_MIB = timedelta(milliseconds=200)

_LINE = re.compile(rb"(\d{6}) (?:blob|commit|tree) ([0-9a-f]{40,64}) +(\d+|-)\t([^\0]+)\0")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A file, link, submodule or folder. ``size_bytes`` is that of the blob; others have 0.

    ``mode`` is one that git writes today. Early software also wrote others, such as 0o100664.
    """

    mode: int
    object_id: str
    path: bytes
    size_bytes: int


class Listing:
    """The entries below an archive's subdir, spooled to a file without a name.

    ``entries`` is the number of files, links and submodules; ``members`` includes folders.
    ``unpacked_bytes`` is the size of all files and headers in a tar.
    """

    def __init__(self, archive: Archive, *, file: BinaryIO, limits: Limits) -> None:
        self.submodules: dict[bytes, str] = {}
        self.attributes_files: list[str] = []
        self.entries = 0
        self.members = 0
        self.unpacked_bytes = 0
        self._archive = archive
        self._file = file
        self._limits = limits
        self._paths = PathCheck()
        self._size_bytes = 0
        self._rest = b""

    def add(self, output: bytes) -> None:
        """Take the next output of ``git ls-tree``.

        Raises ArchiveTooLarge, UnsafeMember, NotPackable, NoRoom, or MirrorFailed for output that
        git does not write.
        """
        self._size_bytes += len(output)
        if self._size_bytes > LISTING_MAX_BYTES:
            raise self._too_large(f"the names of its files have more than {LISTING_MAX_BYTES:,}")
        try:
            self._file.write(output)
        except OSError as exc:
            raise NoRoom("the disk of worker.mirror_dir is full") from exc
        entries, self._rest = _parse(self._rest + output)
        for entry in entries:
            self._count(entry)

    def finish(self) -> None:
        """Return if the output was complete. Raises MirrorFailed."""
        if self._rest:
            raise MirrorFailed("git listed the files of a commit incompletely")
        with storing():
            self._file.flush()

    @property
    def cpu(self) -> timedelta:
        """Processor time for a run of git over all entries: at least ten times the usual one.

        A line of ``.gitattributes`` can make git compare a path for years.
        """
        return CPU_MIN + CPU_PER_MEMBER * self.members + CPU_PER_MIB * (self.unpacked_bytes >> 20)

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries but folders. Reads block."""
        position, rest = 0, b""
        while piece := _read_at(self._file, position):
            position += len(piece)
            entries, rest = _parse(rest + piece)
            yield from (entry for entry in entries if entry.mode != FOLDER)

    def _count(self, entry: Entry) -> None:
        is_folder = entry.mode == FOLDER
        self._paths.add(entry.path, is_folder=is_folder, is_link=entry.mode == LINK)
        self.members += 1
        self.entries += not is_folder
        self.unpacked_bytes += BLOCK_BYTES + entry.size_bytes + -entry.size_bytes % BLOCK_BYTES
        if self.members > self._limits.members:
            raise self._too_large(f"it has more than {self._limits.members:,} files and folders")
        if self.unpacked_bytes > self._limits.unpacked_bytes:
            raise self._too_large(f"it has more than {self._limits.unpacked_bytes:,} bytes")
        if is_folder:
            return
        if entry.mode == SUBMODULE:
            self._add_submodule(entry)
        elif entry.path.rpartition(b"/")[2] == ATTRIBUTES_NAME:
            self._add_attributes_file(entry)

    def _add_submodule(self, entry: Entry) -> None:
        self.submodules[entry.path] = entry.object_id
        if len(self.submodules) > SUBMODULES_MAX:
            raise self._too_large(f"it has more than {SUBMODULES_MAX:,} submodules")

    def _add_attributes_file(self, entry: Entry) -> None:
        self.attributes_files.append(entry.object_id)
        if len(self.attributes_files) > ATTRIBUTES_FILES_MAX:
            raise self._too_large(f"it has more than {ATTRIBUTES_FILES_MAX:,} .gitattributes")

    def _too_large(self, reason: str) -> ArchiveTooLarge:
        return ArchiveTooLarge(
            f"{self._archive.node} in {self._archive.repo} is too large: {reason}"
        )


@asynccontextmanager
async def list_tree(mirror: Mirror, archive: Archive, limits: Limits) -> AsyncIterator[Listing]:
    """Yield the entries of *archive*, counted against *limits*.

    Raises ArchiveTooLarge, UnsafeMember, NotPackable, NoRoom, or MirrorFailed if an object is
    missing.
    """
    with spool(mirror.scratch) as file:
        listing = Listing(archive, file=file, limits=limits)
        paths = (archive.subdir,) if archive.subdir else ()
        arguments = ("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", archive.node, "--", *paths)
        async with mirror.git.stream(*arguments) as output:
            async for piece in output:
                await run_in_thread(listing.add, piece)
        listing.finish()
        yield listing


@contextmanager
def empty_listing(mirror: Mirror, archive: Archive, limits: Limits) -> Iterator[Listing]:
    """Yield a listing without entries. Raises NoRoom."""
    with spool(mirror.scratch) as file:
        yield Listing(archive, file=file, limits=limits)


@contextmanager
def spool(folder: Path) -> Iterator[BinaryIO]:
    """Yield a file without a name, which disappears with the process. Raises NoRoom.

    Flush it before it is read: its end reports nothing.
    """
    try:
        file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed below
    except OSError as exc:
        raise unusable(exc) from exc
    try:
        yield file
    finally:
        with suppress(OSError):  # on a full disk, writes the rest of its buffer in vain
            file.close()


def _parse(output: bytes) -> tuple[list[Entry], bytes]:
    """Return the entries in *output*, and the rest, which is the beginning of a line."""
    end = output.rfind(b"\0") + 1
    entries, parsed = [], 0
    for line in _LINE.finditer(output, 0, end):
        if line.start() != parsed:
            break
        mode, object_id, size, path = line.groups()
        size_bytes = 0 if size == b"-" else int(size)
        entries.append(Entry(_parse_mode(mode), object_id.decode(), path, size_bytes))
        parsed = line.end()
    if parsed != end:
        shown = display_path(output[parsed:end])
        raise MirrorFailed(f"git listed an entry that no tree can have: {shown}")
    return entries, output[end:]


@lru_cache(maxsize=64)
def _parse_mode(octal: bytes) -> int:
    return canonical_mode(int(octal, 8))


def _read_at(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    return file.read(PIECE_BYTES)
