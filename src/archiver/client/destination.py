"""Where the archive of a lock file goes, and the note beside it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from archiver.client.deadline import Deadline
from archiver.client.extraction import Unpacking
from archiver.client.failures import CommandFailed
from archiver.client.lock_file import Entry
from archiver.client.output import sha256_of

NOTE_MAX_BYTES = 100
POLL_S = 0.2

_CHANGING = "changing\n"
"""The note of a folder or file that is being replaced, or whose replacement was killed."""


@dataclass(frozen=True)
class Destination:
    """The file or folder ``path`` of an archive. No folder above it is a link.

    A hidden note beside it says that ``fetch`` brought it, and of which bytes it is.
    """

    path: Path
    entry: Entry

    @property
    def note_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.locked")

    @property
    def note(self) -> str:
        """The content of the note once the archive is complete."""
        return f"{self.entry.sha256} {self.entry.strip}\n"

    def is_complete(self) -> bool:
        """Return whether the archive is there already. Raises OSError."""
        mode = _mode(self.path)
        if not self.entry.extract:
            return stat.S_ISREG(mode) and sha256_of(self.path) == self.entry.sha256
        return stat.S_ISDIR(mode) and _read_note(self.note_path) == self.note

    def unpacking(self) -> Unpacking | None:
        if not self.entry.extract:
            return None
        return Unpacking(self.path, strip=self.entry.strip, force=not self.is_free())

    def is_free(self) -> bool:
        """Return whether there is nothing, or only an empty folder for an extraction."""
        mode = _mode(self.path)
        if self.entry.extract and stat.S_ISDIR(mode):
            return not any(self.path.iterdir())
        return not mode

    @contextmanager
    def replacing(self, *, force: bool, deadline: Deadline) -> Iterator[bool]:
        """Yield whether the archive is still to be brought, once no other process does so.

        Meanwhile, the note says neither what was there before, nor what comes. Raises
        CommandFailed if something is there that ``fetch`` did not bring, unless *force*.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.note_path, deadline) as note:
            try:
                if self.is_complete():
                    yield False
                    return
                if not self.entry.extract and stat.S_ISDIR(_mode(self.path)):
                    raise CommandFailed(f"{self.path} is a folder; remove it")
                if not (force or note.read(NOTE_MAX_BYTES) or self.is_free()):
                    raise CommandFailed(
                        f"{self.path} exists, and fetch did not bring it; --force replaces it",
                        hint="Move it away, or use --force.",
                    )
                _write(note, _CHANGING)
                self._remove_link()
                yield True
                _write(note, self.note)
            finally:
                if self.is_free() or not os.fstat(note.fileno()).st_size:
                    self.note_path.unlink()

    def _remove_link(self) -> None:
        """Remove a link, which a download would follow, or a device, which it would fill."""
        mode = _mode(self.path)
        if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            self.path.unlink()


def find_destination(folder: Path, name: str, entry: Entry) -> Destination:
    """Return where the archive *name* goes below *folder*.

    Raises CommandFailed if a link leads out of the folder, since it may come from the same
    repository as the lock file; or if the locale has no such names of files.
    """
    root = Path(os.path.realpath(folder))
    path = folder / entry.path(name)
    try:
        os.fsencode(path)
    except UnicodeEncodeError as exc:
        raise CommandFailed(
            f"the locale has no encoding for {path}", hint="Set LC_ALL=C.UTF-8."
        ) from exc
    parent = Path(os.path.realpath(path.parent))
    if root != parent and root not in parent.parents:
        raise CommandFailed(
            f"{path.parent} leads out of {folder} through a symbolic link",
            hint="Remove the link, or change the path in the lock file.",
        )
    return Destination(parent / path.name, entry)


@contextmanager
def _locked(path: Path, deadline: Deadline) -> Iterator[FileIO]:
    """Yield the file at *path*, created if necessary, that no other process has locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        with FileIO(os.open(path, flags, 0o666), "r+") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CommandFailed(f"{path} exists and is not a file; remove it")
            if _lock(file, path):
                yield file
                return
        deadline.sleep(POLL_S)


def _lock(file: FileIO, path: Path) -> bool:
    """Lock the file. Return False if another process has, or if *path* no longer names it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # not every file system has locks
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False


def _write(note: FileIO, text: str) -> None:
    """Replace the content, also for a machine that loses power."""
    note.seek(0)
    note.truncate()
    note.write(text.encode())
    os.fsync(note.fileno())


def _read_note(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with FileIO(descriptor) as note:
            return note.read(NOTE_MAX_BYTES).decode()
    return ""


def _mode(path: Path) -> int:
    """Return the mode of what is at *path* itself, or 0 if nothing is there. Raises OSError."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0
