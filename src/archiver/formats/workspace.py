"""Where archives wait on disk that can only be converted once they are there whole."""

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
"""How much room is taken at a time, so that the disk is not asked at every chunk."""

SPARE_BYTES = 256 << 20
"""What must stay free on the disk, which others use as well."""


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise NoRoom("worker.work_dir cannot be written to") from exc


class Workspace:
    """A folder, and how many bytes may lie there at a time.

    The files have no names: they are gone with the process, however it ends.
    """

    def __init__(self, *, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._taken_bytes = 0
        self._taking = threading.Lock()

    @contextmanager
    def spool(self, *, expected_bytes: int = 0) -> Iterator["Spool"]:
        """Yield an empty file.

        Raises:
            NoRoom: There is no room for *expected_bytes*, or, later, for what is written.
        """
        with _writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - below
        with file:
            spool = Spool(workspace=self, file=file)
            try:
                spool.make_room(expected_bytes)
                yield spool
            finally:
                self._give_back(spool.room_bytes)

    def try_out(self, *, expected_bytes: int = 0) -> None:
        """Return if an archive of *expected_bytes*, or a small one, fits now. Raises NoRoom."""
        with self.spool(expected_bytes=expected_bytes or 1):
            pass

    def take(self, size_bytes: int) -> None:
        """Set room aside. Raises NoRoom."""
        with self._taking, _writing():
            if self._taken_bytes + size_bytes > self.most_bytes:
                raise NoRoom("worker.work_dir has no room within worker.work_max_bytes now")
            if size_bytes + SPARE_BYTES > shutil.disk_usage(self.folder).free:
                raise NoRoom("the disk of worker.work_dir has no room for another archive now")
            self._taken_bytes += size_bytes

    def _give_back(self, size_bytes: int) -> None:
        with self._taking:
            self._taken_bytes -= size_bytes


class Spool:
    """A file that grows as long as there is room for it."""

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

    def read(self, piece_bytes: int) -> Iterator[bytes]:
        """Yield all that was written."""
        position = 0
        while piece := os.pread(self.descriptor, piece_bytes, position):
            position += len(piece)
            yield piece

    def make_room(self, size_bytes: int) -> None:
        """See to it that *size_bytes* fit. Raises NoRoom."""
        if (more := size_bytes - self.room_bytes) > 0:
            more += -more % STEP_BYTES
            self._workspace.take(more)
            self.room_bytes += more
