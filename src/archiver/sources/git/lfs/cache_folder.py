"""The folder of all LFS files of a machine, which its worker processes share.

::

    files/{hash}/{sha256}    the files of the repository with this hash
    files/{hash}/repo.json   whose files these are
    new/{hash}-{sha256}      a file that is being fetched, locked by the process that fetches it

A repository has its own files: a pointer in one must not disclose a file of another. A file enters
``files`` by a rename, so a killed process leaves no half of one. Its time is that of its last use.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from archiver.errors import NoRoom
from archiver.git_objects.lfs_pointer import Pointer
from archiver.sources.git.locks import try_lock

LFS_FOLDER = "lfs"
"""Name of the folder in ``worker.mirror_dir``."""

_OWNER = "repo.json"
_SHA256_DIGITS = 64


class LfsOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose LFS files a folder has."""

    source: str
    repo: str

    @property
    def slot(self) -> str:
        """The name of the folder."""
        return hashlib.sha256(f"{self.source}\0{self.repo}".encode()).hexdigest()


class StoredFile(NamedTuple):
    """A file on disk. ``used_ns`` is the time of its last use, in nanoseconds since 1970."""

    used_ns: int
    size_bytes: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LfsStatus:
    """What the LFS files of a repository take. A damaged folder has no ``owner``.

    ``last_used`` is the last use of any of them.
    """

    owner: LfsOwner | None
    size_bytes: int
    files: int
    last_used: datetime


@contextmanager
def using_disk() -> Iterator[None]:
    """Translate errors of the disk to NoRoom."""
    try:
        yield
    except OSError as exc:
        raise NoRoom("worker.mirror_dir is not writable, or its disk is full") from exc


class LfsFolder:
    """Finds, adds and removes LFS files. Methods block for a short time, and raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._files = self.path / "files"
        self._new = self.path / "new"

    def create(self) -> None:
        """Create the folder, readable only for this user, if it does not exist."""
        for folder in (self._files, self._new):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def new_path(self, owner: LfsOwner, pointer: Pointer) -> Path:
        """Return where to write a file before it is added. The writer holds its lock."""
        return self._new / f"{owner.slot}-{pointer.sha256}"

    def open(self, owner: LfsOwner, pointer: Pointer) -> BinaryIO | None:
        """Return a file that is there, which is a use of it; None if it is not, or not whole.

        It stays readable, even if another process removes it.
        """
        try:
            file = self._path(owner, pointer).open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != pointer.size_bytes:
            file.close()
            return None
        os.utime(file.fileno())
        return file

    def use(self, owner: LfsOwner, pointer: Pointer) -> bool:
        """Return whether a file is there, which is a use of it."""
        file = self.open(owner, pointer)
        if file:
            file.close()
        return file is not None

    def add(self, owner: LfsOwner, pointer: Pointer) -> BinaryIO:
        """Move the file at ``new_path`` to its place, and return it."""
        new, path = self.new_path(owner, pointer), self._path(owner, pointer)
        with ExitStack() as stack:
            file = stack.enter_context(new.open("rb"))
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            note = path.parent / _OWNER
            if not note.exists():
                note.write_bytes(msgspec.json.encode(owner))
            new.rename(path)
            stack.pop_all()
        return file

    def discard(self, owner: LfsOwner, pointer: Pointer) -> None:
        self._path(owner, pointer).unlink(missing_ok=True)

    def drop(self, source: str, repo: str) -> int:
        """Remove all files of a repository, and return how many."""
        removed = 0
        slot = self._files / LfsOwner(source=source, repo=repo).slot
        for file in _stored(slot):
            file.path.unlink(missing_ok=True)
            removed += 1
        _remove_if_empty(slot)
        return removed

    def stored(self) -> Iterator[StoredFile]:
        """Yield all files, in no order."""
        for slot in self._slots():
            yield from _stored(slot)

    def new_bytes(self) -> int:
        """Return the size of all files that are being fetched, as far as they are to grow."""
        return sum(file.size_bytes for file in _scan(self._new))

    def statuses(self) -> list[LfsStatus]:
        """Return what each repository takes, the least recently used first."""
        found = [status for slot in self._slots() if (status := _status(slot))]
        return sorted(found, key=lambda status: status.last_used)

    def clean_up(self) -> None:
        """Remove what killed processes left behind, and folders without files."""
        self.create()
        for file in _scan(self._new):
            with suppress(FileNotFoundError):
                if (lock := try_lock(file.path, exclusive=True)) is not None:
                    file.path.unlink(missing_ok=True)
                    os.close(lock)
        for slot in self._slots():
            _remove_if_empty(slot)

    def _path(self, owner: LfsOwner, pointer: Pointer) -> Path:
        return self._files / owner.slot / pointer.sha256

    def _slots(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):  # no worker has created it yet
            yield from self._files.iterdir()


def _scan(folder: Path) -> Iterator[StoredFile]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process removed or added it
                found = entry.stat(follow_symlinks=False)
                yield StoredFile(found.st_mtime_ns, found.st_size, Path(entry.path))


def _stored(slot: Path) -> Iterator[StoredFile]:
    return (file for file in _scan(slot) if len(file.path.name) == _SHA256_DIGITS)


def _status(slot: Path) -> LfsStatus | None:
    """Return what *slot* takes; None if it has no files."""
    size_bytes = files = last_ns = 0
    for file in _stored(slot):
        size_bytes += file.size_bytes
        files += 1
        last_ns = max(last_ns, file.used_ns)
    if not files:
        return None
    try:
        owner = msgspec.json.decode((slot / _OWNER).read_bytes(), type=LfsOwner)
    except (OSError, msgspec.DecodeError):
        owner = None
    last_used = datetime.fromtimestamp(last_ns / 1e9, UTC)
    return LfsStatus(owner=owner, size_bytes=size_bytes, files=files, last_used=last_used)


def _remove_if_empty(slot: Path) -> None:
    """Remove a repository's folder without files. A file that is just added creates it again."""
    if next(_stored(slot), None):
        return
    with suppress(OSError):
        (slot / _OWNER).unlink(missing_ok=True)
        slot.rmdir()
