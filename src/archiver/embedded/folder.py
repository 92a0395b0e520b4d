"""The data folder of an all-in-one run: one run at a time, and what it keeps for the next."""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.embedded.errors import CannotServe

PATIENCE_S = 2.0
"""Servers of a run that was killed need a moment to follow it and to leave lock and ports."""

LOOPBACK = "127.0.0.1"

RUNNING = "running.json"
"""Addresses and credentials of the servers, for as long as the run holds the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """A folder that this run alone may use. ``lock`` is the file descriptor that says so.

    A server that must not outlive its claim inherits ``lock``: nats-server has none of its own.
    """

    path: Path
    lock: int
    patience_s: float = PATIENCE_S

    def secret(self, name: str) -> str:
        """Return the generated secret *name*: the same at every start."""
        kept = self._read("credentials.json")
        if name not in kept:
            kept[name] = secrets.token_urlsafe(24)
            self._write("credentials.json", kept)
        return str(kept[name])

    def port(self, name: str) -> int:
        """Return the loopback port of *name*: that of the last start, unless someone took it.

        Links that were handed out before a restart remain good, as long as the port does.
        """
        kept = self._read("ports.json")
        port = kept.get(name)
        if not isinstance(port, int) or not wait_until_free(
            LOOPBACK, port, patience_s=self.patience_s
        ):
            port = free_port(taken=kept.values())
            self._write("ports.json", {**kept, name: port})
        return port

    def announce(self, environment: Mapping[str, str]) -> None:
        """Let other commands of this user find the servers of this run: see `find_running`."""
        self._write(RUNNING, dict(environment))

    def log(self, name: str) -> Path:
        """Return the file, empty now, that *name* writes its log of this run to."""
        path = self.path / "log" / f"{name}.log"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(b"")
        return path

    def _read(self, name: str) -> dict[str, object]:
        return _read(self.path / name)

    def _write(self, name: str, kept: dict[str, object]) -> None:
        write_private(self.path / name, json.dumps(kept, indent=2) + "\n")


@contextmanager
def open_folder(path: Path, *, patience_s: float = PATIENCE_S) -> Iterator[DataFolder]:
    """Yield the data folder, made if need be, and locked until the end of the block.

    Raises:
        CannotServe: Another run has it, or it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotServe(
            f"{path} cannot be used: {exc.strerror}; the setting data_dir names another folder"
        ) from exc
    try:
        _claim(lock, path, patience_s)
        (path / RUNNING).unlink(missing_ok=True)
        try:
            yield DataFolder(path=path.absolute(), lock=lock, patience_s=patience_s)
        finally:
            (path / RUNNING).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _claim(lock: int, path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CannotServe(f"{path} is in use by another `archiver serve`") from None
            time.sleep(0.05)
        else:
            return


def find_running(path: Path) -> Mapping[str, str]:
    """Return the environment that leads to the servers which run in the data folder *path*.

    It is empty if no `archiver serve` runs there.

    Raises:
        CannotServe: The folder cannot be read.
    """
    try:
        with (path / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return {name: str(value) for name, value in _read(path / RUNNING).items()}
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise CannotServe(f"{path} cannot be read: {exc.strerror}") from exc
    return {}


def _read(path: Path) -> dict[str, object]:
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise CannotServe(f"{path} is damaged; without it, a new one is made") from exc
    if not isinstance(kept, dict):
        raise CannotServe(f"{path} is damaged; without it, a new one is made")
    return kept


def write_private(path: Path, text: str) -> None:
    """Put *text* in place of the file, whole or not at all, for the owner's eyes only."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_free(host: str, port: int, *, patience_s: float = PATIENCE_S) -> bool:
    """Tell whether a server could listen there now, or soon."""
    deadline = time.monotonic() + patience_s
    while not is_free(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_port(*, taken: Collection[object] = ()) -> int:
    """Return a loopback port that was free a moment ago, and is not among *taken*."""
    while True:
        with socket.socket() as attempt:
            attempt.bind((LOOPBACK, 0))
            port: int = attempt.getsockname()[1]
        if port not in taken:
            return port
