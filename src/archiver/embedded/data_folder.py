"""The data folder of `archiver serve`: locked by one run, and kept for the next."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.embedded.local_ports import (
    LOOPBACK,
    POLL_S,
    RELEASE_S,
    find_free_port,
    wait_until_port_free,
)
from archiver.embedded.program import CannotServe

RUNNING = "running.json"
"""Addresses and credentials of the running servers. It exists while the run holds the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """A folder that only this run uses. ``lock`` is the file descriptor that holds its lock.

    nats-server has no lock of its own. It inherits ``lock``, so the folder stays locked until it
    has stopped.
    """

    path: Path
    lock: int
    release_s: float

    def secret(self, name: str) -> str:
        """Return the generated secret *name*, which is the same for every run."""
        stored = _read_object(self.path / "credentials.json")
        if name not in stored:
            stored[name] = secrets.token_urlsafe(24)
            self._write("credentials.json", stored)
        return str(stored[name])

    def port(self, name: str) -> int:
        """Return the loopback port of *name*: the port of the last run, unless it is in use.

        Presigned URLs from before a restart work as long as the port stays the same.
        """
        stored = _read_object(self.path / "ports.json")
        port = stored.get(name)
        if not isinstance(port, int) or not wait_until_port_free(
            LOOPBACK, port, timeout_s=self.release_s
        ):
            port = find_free_port(exclude=stored.values())
            self._write("ports.json", {**stored, name: port})
        return port

    def publish_running(self, environment: Mapping[str, str]) -> None:
        """Let other commands of this user find the servers of this run: see `find_running`."""
        self._write(RUNNING, dict(environment))

    def create_log(self, name: str) -> Path:
        """Return the empty log file of *name* for this run."""
        path = self.path / "log" / f"{name}.log"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(b"")
        return path

    def _write(self, name: str, content: dict[str, object]) -> None:
        write_private(self.path / name, json.dumps(content, indent=2) + "\n")


@contextmanager
def open_data_folder(path: Path, *, release_s: float = RELEASE_S) -> Iterator[DataFolder]:
    """Yield the data folder, created if necessary and locked until the end of the block.

    Raises CannotServe if another run has locked it, or if it is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotServe(
            f"{path} cannot be used: {exc.strerror}; set data_dir to another folder"
        ) from exc
    try:
        _acquire(lock, path, release_s)
        (path / RUNNING).unlink(missing_ok=True)
        try:
            yield DataFolder(path=path.absolute(), lock=lock, release_s=release_s)
        finally:
            (path / RUNNING).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _acquire(lock: int, path: Path, release_s: float) -> None:
    deadline = time.monotonic() + release_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CannotServe(f"{path} is in use by another `archiver serve`") from None
            time.sleep(POLL_S)
        else:
            return


def find_running(path: Path) -> Mapping[str, str]:
    """Return the settings, as environment variables, of the servers running in a data folder.

    Empty if none run there. Raises CannotServe if the folder cannot be read.
    """
    try:
        with (path / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return {name: str(value) for name, value in _read_object(path / RUNNING).items()}
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise CannotServe(f"{path} cannot be read: {exc.strerror}") from exc
    return {}


def _read_object(path: Path) -> dict[str, object]:
    damaged = f"{path} is damaged; delete it, and the next run creates a new one"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise CannotServe(damaged) from exc
    if not isinstance(content, dict):
        raise CannotServe(damaged)
    return content


def write_private(path: Path, text: str) -> None:
    """Replace the file atomically. Only its owner can read it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
