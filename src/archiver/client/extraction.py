"""Extracts an archive into a new folder while it arrives."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from archiver.client.decompression import decompressed
from archiver.client.failures import CommandFailed
from archiver.client.new_folder import NewFolder
from archiver.client.tree_writer import TreeWriter
from archiver.client.unpack import unpack_tar, unpack_zip

CHUNK_BYTES = 1024 * 1024
CHUNKS_AHEAD = 8
POLL_S = 0.2
ZIP = b"PK"


@dataclass(frozen=True)
class Unpacking:
    """Where to extract an archive, and what of it: see ``TreeWriter``.

    The folder must be absent or empty, or *force* replaces it.
    """

    folder: Path
    strip: int = 0
    patterns: tuple[str, ...] = ()
    force: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # whatever names a path will do


class _Stopped(Exception):
    """The archive will not arrive, or not in this form."""


class Feed:
    """Passes chunks from one thread to another, a few ahead. Implements ``Readable``."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | Exception] = queue.Queue(CHUNKS_AHEAD)
        self._rest = b""
        self._ended = False
        self.stopped = False

    def put(self, chunk: bytes | Exception, reader: threading.Thread) -> None:
        """Pass on *chunk*, an empty one for the end, or what the *reader* is to raise.

        It is dropped if the reader has ended.
        """
        while reader.is_alive():
            try:
                self._chunks.put(chunk, timeout=POLL_S)
            except queue.Full:
                continue
            return

    def read(self, size: int = -1, /) -> bytes:
        while not (self._rest or self._ended):
            if self.stopped:
                raise _Stopped
            try:
                chunk = self._chunks.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if isinstance(chunk, Exception):
                raise chunk
            self._ended, self._rest = not chunk, chunk
        if self.stopped:
            raise _Stopped
        if not 0 <= size < len(self._rest):
            size = len(self._rest)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


class Extraction:
    """Extracts what is written to it: one thread decompresses, and another writes the files.

    A zip is extracted at the end, from its file.
    """

    def __init__(self, unpacking: Unpacking) -> None:
        self._unpacking = unpacking
        self._folder: NewFolder | None = None
        self._threads: list[threading.Thread] = []
        self._archive, self._plain = Feed(), Feed()
        self._tree: TreeWriter | None = None
        self._failure: BaseException | None = None
        self._start = b""
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Extract *chunk*. If that fails, ``finish`` says so: the bytes may not be right yet."""
        self.size_bytes += len(chunk)
        if not self._threads:
            self._start += chunk
            if len(self._start) < len(ZIP):
                return
            chunk, self._start = self._start, self._start[: len(ZIP)]
            if self._start != ZIP:
                self._begin()
        if self._threads:
            self._archive.put(chunk, self._threads[0])

    def restart(self) -> None:
        """Discard all that was extracted."""
        self.discard()
        self._archive, self._plain = Feed(), Feed()
        self._start, self.size_bytes, self._failure = b"", 0, None

    def finish(self, file: Path) -> int:
        """Return the number of files once the archive, which is also in *file*, is extracted.

        Raises CommandFailed or OSError.
        """
        if not self.size_bytes:
            with file.open("rb") as archive:
                while chunk := archive.read(CHUNK_BYTES):
                    self.write(chunk)
        if self._threads:
            self._archive.put(b"", self._threads[0])
            self._join()
            if self._failure:
                raise self._failure
        elif file.is_file():
            unpack_zip(file, self._open_tree())
        else:
            raise CommandFailed(f"{file} is no file, which the extraction of a zip needs")
        if not (self._tree and self._tree.count):
            raise CommandFailed(
                "no file was extracted: check --strip and --include", code="nothing_extracted"
            )
        return self._tree.count

    def publish(self) -> None:
        """Give the folder its name."""
        if self._folder:
            self._folder.publish(replace=self._unpacking.force)
            self._folder = None

    def discard(self) -> None:
        """End the threads, and remove what was extracted."""
        self._archive.stopped = self._plain.stopped = True
        self._join()
        if self._folder:
            self._folder.remove()
            self._folder = None

    def _begin(self) -> None:
        tree = self._open_tree()
        unpacker = threading.Thread(target=self._unpack, args=(tree,), daemon=True)
        decompressor = threading.Thread(target=self._decompress, args=(unpacker,), daemon=True)
        self._threads = [decompressor, unpacker]
        unpacker.start()
        decompressor.start()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _open_tree(self) -> TreeWriter:
        unpacking = self._unpacking
        self._folder = NewFolder(unpacking.folder)
        self._tree = TreeWriter(
            self._folder.path, strip=unpacking.strip, patterns=unpacking.patterns
        )
        return self._tree

    def _decompress(self, unpacker: threading.Thread) -> None:
        try:
            plain = decompressed(self._archive)
            while unpacker.is_alive() and (chunk := plain.read(CHUNK_BYTES)):
                self._plain.put(chunk, unpacker)
        except _Stopped:
            pass
        except Exception as exc:  # noqa: BLE001 - raised in the other thread
            self._plain.put(exc, unpacker)
        else:
            self._plain.put(b"", unpacker)

    def _unpack(self, tree: TreeWriter) -> None:
        try:
            unpack_tar(self._plain, tree)
        except _Stopped:
            pass
        except Exception as exc:  # noqa: BLE001 - raised in the thread that writes
            self._failure = exc


@contextmanager
def open_extraction(unpacking: Unpacking) -> Iterator[Extraction]:
    """Yield an extraction, whose folder gets its name when the block ends without an error.

    A symbolic link stays, and leads to the new folder. Raises CommandFailed if the folder exists
    and must not be replaced.
    """
    folder = Path(os.path.realpath(unpacking.folder))
    unpacking = replace(unpacking, folder=folder)
    if not unpacking.force:
        _require_empty(folder)
    extraction = Extraction(unpacking)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield extraction
        extraction.publish()
    except OSError as exc:
        if exc.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR} and not unpacking.force:
            _require_empty(folder)
        raise CommandFailed(f"{exc.filename or folder}: {exc.strerror}") from exc
    finally:
        extraction.discard()


def _require_empty(folder: Path) -> None:
    """Raise CommandFailed unless *folder* is absent or empty."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise CommandFailed(f"{folder} exists and is no folder")
    if any(folder.iterdir()):
        raise CommandFailed(f"{folder} exists and is not empty", hint="--force replaces it.")
