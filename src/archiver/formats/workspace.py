"""Temporary files on disk, for archives that must be complete before they can be converted."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from archiver.errors import NoRoom

STEP_BYTES = 64 << 20
"""Room is reserved in steps of this size, to avoid a look at the disk for every chunk."""

SPARE_BYTES = 256 << 20
"""Must stay free on the disk, which other programs use as well."""


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise NoRoom("worker.work_dir is not writable") from exc


class Workspace:
    """A folder with temporary files of at most *max_bytes* in total.

    The files have no names, so they disappear with the process, however it ends.
    """

    def __init__(self, *, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._reserved_bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def spool(self, *, expected_bytes: int = 0) -> Iterator["Spool"]:
        """Yield an empty file with room for *expected_bytes*. Raises NoRoom, also when it grows."""
        with _writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - below
        with file:
            spool = Spool(workspace=self, file=file)
            try:
                spool.make_room(expected_bytes)
                yield spool
            finally:
                self._release(spool.room_bytes)

    def require_room(self, *, expected_bytes: int = 0) -> None:
        """Return if an archive of *expected_bytes*, or a small one, fits now. Raises NoRoom."""
        with self.spool(expected_bytes=expected_bytes or 1):
            pass

    def reserve(self, size_bytes: int) -> None:
        """Reserve room for *size_bytes*. Raises NoRoom."""
        with self._lock, _writing():
            if self._reserved_bytes + size_bytes > self.max_bytes:
                raise NoRoom("worker.work_dir has no room within worker.work_max_bytes now")
            if size_bytes + SPARE_BYTES > shutil.disk_usage(self.folder).free:
                raise NoRoom("the disk of worker.work_dir has no room for another archive now")
            self._reserved_bytes += size_bytes

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._reserved_bytes -= size_bytes


class Spool:
    """A temporary file that grows as long as its workspace has room."""

    def __init__(self, *, workspace: Workspace, file: BinaryIO) -> None:
        self._workspace = workspace
        self._file = file
        self.size_bytes = 0
        self.room_bytes = 0

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def write(self, data: bytes) -> None:
        self.make_room(self.size_bytes + len(data))
        view = memoryview(data)
        with _writing():
            while view:
                view = view[self._file.write(view) :]
        self.size_bytes += len(data)

    def iter_pieces(self, piece_bytes: int) -> Iterator[bytes]:
        """Yield everything that was written."""
        position = 0
        while piece := os.pread(self.descriptor, piece_bytes, position):
            position += len(piece)
            yield piece

    def make_room(self, size_bytes: int) -> None:
        """Reserve room for a file of *size_bytes*. Raises NoRoom."""
        if (more := size_bytes - self.room_bytes) > 0:
            more += -more % STEP_BYTES
            self._workspace.reserve(more)
            self.room_bytes += more
