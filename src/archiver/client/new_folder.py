"""A folder that gets its name when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".part"
ABANDONED_AFTER_S = 60.0
"""A younger folder may belong to a process that has not locked it yet."""


class NewFolder:
    """A hidden folder beside *target*, locked by this process until it is published or removed.

    Folders of processes that were killed are removed first.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._prefix = f".{target.name}."
        _remove_abandoned(target.parent, self._prefix)
        self.path = self._new_path()
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def publish(self, *, replace: bool) -> None:
        """Give the folder its name and the usual permissions; *replace* what has the name now.

        Raises OSError. The name belongs to the folder before or to this one, but for a moment.
        """
        self.path.chmod(0o777 & ~_umask())
        with _locked(self._target.parent):
            if replace and os.path.lexists(self._target):
                before = self._new_path()
                self._target.rename(before / "before")
                try:
                    self.path.rename(self._target)
                except BaseException:
                    (before / "before").rename(self._target)
                    raise
                finally:
                    shutil.rmtree(before, ignore_errors=True)
            else:
                self.path.rename(self._target)
        os.close(self._descriptor)

    def _new_path(self) -> Path:
        folder = self._target.parent
        return Path(tempfile.mkdtemp(prefix=self._prefix, suffix=SUFFIX, dir=folder))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have one process at a time in the block, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for path in parent.iterdir():
        if path.name.startswith(prefix) and path.name.endswith(SUFFIX):
            with suppress(OSError):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    """Remove a folder that no process has locked. Raises OSError if one has, or for a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime > ABANDONED_AFTER_S:
            shutil.rmtree(path)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
