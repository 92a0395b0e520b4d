"""A folder of archives by their SHA-256, which processes share."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archiver.client.failures import CommandFailed

PART_AGE_S = 7 * 86400.0
"""Unfinished downloads that no process has continued for so long are removed."""


class Cache:
    """Keeps at most *max_bytes* of the archives that were used last.

    An archive that a process holds is not removed. Until it is released, there may be more bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def path(self, sha256: str) -> Path:
        """Return where the archive is, or is to be stored. Raises CommandFailed."""
        path = self.folder / sha256[:2] / sha256
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise CommandFailed(f"{path.parent}: {exc.strerror}") from exc
        return path

    @contextmanager
    def hold(self, path: Path, wait: Callable[[], None]) -> Iterator[bool]:
        """Keep all processes from removing *path*. Yield whether it is there.

        While another process writes or removes it, call *wait*, which may raise.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            yield False
            return
        try:
            while not _lock(descriptor, fcntl.LOCK_SH):
                wait()
            yield _names(path, descriptor)
        finally:
            os.close(descriptor)

    def keep(self, path: Path) -> None:
        """Note that *path* was used now, and remove what no longer fits."""
        with suppress(OSError):
            os.utime(path)
        files = sorted(self._files(), key=lambda file: file[1].st_mtime, reverse=True)
        size_bytes = 0
        for file, stat in files:
            is_old_part = file.suffix and time.time() - stat.st_mtime > PART_AGE_S
            size_bytes += 0 if is_old_part else stat.st_size
            if is_old_part or (size_bytes > self.max_bytes and file != path and not file.suffix):
                with suppress(OSError):
                    _remove_unless_held(file)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the archives, and the parts, whose names have a suffix."""
        for file in self.folder.glob("??/*"):
            with suppress(OSError):
                yield file, file.stat()


def _lock(descriptor: int, kind: int) -> bool:
    """Return whether the file is locked now. Not every file system has locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Return whether *path* is still the open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _remove_unless_held(path: Path) -> None:
    """Remove a file, unless a process holds or writes it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _lock(descriptor, fcntl.LOCK_EX) and _names(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)
