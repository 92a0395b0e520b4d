"""The folder of all mirrors of a machine, which its worker processes share.

::

    stores/{hash}/{n}    a mirror of the repository with this hash. The highest n is in use; lower
                         ones are removed once their last user has left
    new/                 mirrors that are being created, and temporary files of builds
    trash/               mirrors that are being deleted
    lfs/                 files of Git LFS: ``lfs/cache_folder.py``

A mirror enters and leaves ``stores`` by a rename, so a killed process leaves no half of one.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from archiver.errors import NoRoom
from archiver.sources.git.locks import try_lock
from archiver.sources.git.store import Identity, Size, Store

ABANDONED_S = 3600
"""Age at which something in ``new`` has lost its creator, which needs it for seconds."""

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorStatus:
    """One mirror on disk. A damaged mirror has no ``identity``.

    A mirror that is not ``current`` is removed once its last user has left.
    """

    store: Store
    identity: Identity | None
    size: Size
    last_used: datetime
    current: bool


class MirrorFolder:
    """Creates, finds and removes mirrors. Methods block for a short time, and raise OSError."""

    def __init__(self, path: Path) -> None:
        path = path.absolute()  # git runs in another folder
        self.path = path
        self._stores = path / "stores"
        self._new = path / "new"
        self._trash = path / "trash"

    def create(self) -> None:
        """Create the folder, readable only for this user, if it does not exist. Raises NoRoom."""
        try:
            for folder in (self._stores, self._new, self._trash):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise NoRoom("worker.mirror_dir is not writable") from exc

    def lock_current(self, identity: Identity) -> tuple[Store, int] | None:
        """Return the repository's mirror and a descriptor that holds the lock of its users.

        A mirror that does not exist or is damaged is created. None if another process is creating
        or removing it: try again.
        """
        self.create()
        slot = self._slot(identity)
        number = _current(slot)
        store = Store(slot / str(number))
        try:
            lock = try_lock(store.use_lock, exclusive=False)
        except (FileNotFoundError, NotADirectoryError):
            self._add(slot, number + 1, identity)
            return None
        if lock is None:
            return None
        os.utime(lock)
        return store, lock

    def replace(self, store: Store, identity: Identity) -> None:
        """Let later users begin with an empty mirror in place of *store*.

        Present users keep *store*, which is removed after the last of them.
        """
        self._add(store.folder.parent, int(store.folder.name) + 1, identity)

    def is_current(self, store: Store) -> bool:
        return _current(store.folder.parent) == int(store.folder.name)

    def try_remove(self, store: Store) -> bool:
        """Remove a mirror that is not in use. Return whether it is gone.

        The current one stays while an older one has users, because that must not become current.
        """
        if self.is_current(store) and len(_numbers(store.folder.parent)) > 1:
            return False
        doomed = self._trash / secrets.token_hex(8)
        try:
            # A damaged mirror may lack its lock. Another process may create a mirror of this name.
            lock = try_lock(store.use_lock, exclusive=True, create=True)
        except (FileNotFoundError, NotADirectoryError):
            return not store.folder.exists()
        if lock is None:
            return False
        try:
            self._trash.mkdir(parents=True, exist_ok=True, mode=0o700)
            store.folder.rename(doomed)
        except FileNotFoundError:
            return not store.folder.exists()
        finally:
            os.close(lock)
        with suppress(OSError):  # the repository has another mirror
            store.folder.parent.rmdir()
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def drop(self, source: str, repo: str) -> tuple[int, int]:
        """Remove the mirrors of a repository. Return how many, and how many are in use.

        The latter have no new users from now on, and are removed after the present ones.
        """
        removed = in_use = 0
        for status in self.statuses():
            identity = status.identity
            if not identity or (identity.source, identity.repo) != (source, repo):
                continue
            if self.try_remove(status.store):
                removed += 1
                continue
            if status.current:
                self.replace(status.store, identity)
            in_use += 1
        return removed, in_use

    def statuses(self) -> list[MirrorStatus]:
        """Return all mirrors, the least recently used first."""
        found = [
            MirrorStatus(
                store=store,
                identity=store.identity(),
                size=store.size(),
                last_used=store.last_used(),
                current=self.is_current(store),
            )
            for store in self._iter_stores()
        ]
        return sorted(found, key=lambda status: status.last_used)

    def clean_up(self) -> None:
        """Remove what killed processes left behind: old and half-deleted mirrors."""
        self.create()
        for doomed in self._trash.iterdir():
            _delete(doomed)
        for new in self._new.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - new.stat().st_mtime > ABANDONED_S:
                    _delete(new)
        for store in self._iter_stores():
            if not self.is_current(store):
                self.try_remove(store)

    def _iter_stores(self) -> Iterator[Store]:
        with suppress(FileNotFoundError):  # no worker has created it yet
            for slot in self._stores.iterdir():
                for number in _numbers(slot):
                    yield Store(slot / str(number))

    def _slot(self, identity: Identity) -> Path:
        name = f"{identity.source}\0{identity.repo}\0{identity.digits}"
        return self._stores / hashlib.sha256(name.encode()).hexdigest()

    def _add(self, slot: Path, number: int, identity: Identity) -> None:
        """Put an empty mirror into *slot*, unless another process has just done so."""
        new = self._new / secrets.token_hex(8)
        try:
            Store(new).create(identity)
            slot.mkdir(exist_ok=True)
            new.rename(slot / str(number))
        except FileNotFoundError:
            pass  # another process removed the slot, or all of it
        except OSError as exc:
            if exc.errno not in _TAKEN:
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _delete(path: Path) -> None:
    """Delete a file, or a folder with everything in it. Leave what cannot be deleted."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _numbers(slot: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(slot) if name.isdecimal())  # noqa: PTH208 - only names
    except (FileNotFoundError, NotADirectoryError):
        return []


def _current(slot: Path) -> int:
    """Return the number of the mirror in use; 0 if the repository has no mirror."""
    return max(_numbers(slot), default=0)
