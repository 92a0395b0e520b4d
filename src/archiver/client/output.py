"""Writes an archive to a new file, or to a device, a FIFO or standard output."""

from __future__ import annotations

import fcntl
import hashlib
import os
import select
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from archiver.client.failures import BeingWritten, CommandFailed, RetryLater, TimedOut

STDOUT = "-"
CHUNK_BYTES = 1024 * 1024
PART_DIGITS = 12
"""How many digits of the sha256 are in the name of an unfinished file."""

_DESCRIPTORS = ("/dev/fd/", "/dev/std", "/proc/")
"""Names of open file descriptors: bytes go to their target, which is never replaced."""


class Sink(Protocol):
    """Receives an archive's bytes in order, once more from the start after ``restart``."""

    def write(self, chunk: bytes) -> None: ...
    def restart(self) -> None: ...


class ArchiveWriter:
    """Writes an archive's bytes in order, and knows their count and sha256.

    A *sink* receives the same bytes.
    """

    def __init__(
        self, *, file: BinaryIO, name: str, rewindable: bool, sink: Sink | None = None
    ) -> None:
        self._sink = sink
        self._file = file
        self._name = name
        self._rewindable = rewindable
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append *chunk*. Raises CommandFailed, or BrokenPipeError if the reader has left."""
        with _explaining_errors(self._name):
            _write_all(self._file, chunk)
        self._count(chunk)

    def read_existing(self) -> None:
        while chunk := self._file.read(CHUNK_BYTES):
            self._count(chunk)

    def restart(self) -> bool:
        """Discard every byte. Return False if some have already reached a reader."""
        if not self._rewindable:
            return not self.size_bytes
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size_bytes = hashlib.sha256(), 0
        if self._sink:
            self._sink.restart()
        return True

    def stored_path(self) -> Path | None:
        """Return the path of the file with all bytes so far; None if they went to a reader."""
        if not self._rewindable:
            return None
        self._file.flush()
        return Path(self._name)

    def _count(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        if self._sink:
            self._sink.write(chunk)


@contextmanager
def open_output(
    path: str,
    *,
    sha256: str,
    size_bytes: int,
    replace: bool,
    durable: bool = True,
    sink: Sink | None = None,
    on_kept: Callable[[Path], None] = lambda _part: None,
) -> Iterator[ArchiveWriter]:
    """Yield a writer for an archive with this *sha256*, to be stored at *path*.

    The file gets its name when the block ends without an error. Until then it is
    ``PATH.SHA256.part``, with the first digits of the *sha256*, which no other file has by chance.
    An interrupted download leaves this file, and calls *on_kept*. The next one resumes it. A
    *durable* file is on the disk before it has its name. A symbolic link stays, and leads to the
    new file. Devices and FIFOs receive the bytes immediately.

    Raises:
        CommandFailed: The path cannot be written, or exists and must not be replaced.
        BeingWritten: Another process writes the file.
        RetryLater: The disk is too full.
    """
    with _explaining_errors(path):
        if path == STDOUT:
            yield _stream_writer(_unbuffered(sys.stdout.buffer), path, sink)
        elif _is_stream(path):
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123
                yield _stream_writer(file, path, sink)
        else:
            final = Path(os.path.realpath(path))
            part = final.with_name(f"{final.name}.{sha256[:PART_DIGITS]}.part")
            with _open_part(
                part,
                final,
                size_bytes,
                replace=replace,
                durable=durable,
                sink=sink,
                on_kept=on_kept,
            ) as writer:
                yield writer


def require_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise CommandFailed(
            f"{path} exists with other bytes; --force replaces it, and -o writes to another file"
        )


def is_complete(path: Path, sha256: str, size_bytes: int) -> bool:
    """Return whether *path* is a file with these bytes. Raises CommandFailed if unreadable."""
    with _explaining_errors(path):
        if not path.is_file() or path.stat().st_size != size_bytes:
            return False
        return sha256_of(path) == sha256


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _is_stream(path: str) -> bool:
    """Return whether *path* exists and is not a file. Raises CommandFailed for a directory."""
    if os.path.abspath(path).startswith(_DESCRIPTORS):  # noqa: PTH100 - links are not to be followed
        return True
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise CommandFailed(f"{path} is a directory; -o must name a file")
    return not stat.S_ISREG(mode)


def _stream_writer(file: BinaryIO, name: str, sink: Sink | None) -> ArchiveWriter:
    return ArchiveWriter(file=file, name=name, rewindable=False, sink=sink)


def _unbuffered(file: BinaryIO) -> BinaryIO:
    """Return the same file without its buffer, if it has one.

    Python flushes a buffer at exit, and would then block until the reader takes the bytes.
    """
    file.flush()
    return getattr(file, "raw", file)


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    """Write all of *chunk*: one call may write a part, or nothing if the file is non-blocking."""
    left = memoryview(chunk)
    while left:
        written = file.write(left)
        if written is None:
            select.select((), (file,), ())
        left = left[written or 0 :]


@contextmanager
def _open_part(
    part: Path,
    path: Path,
    size_bytes: int,
    *,
    replace: bool,
    durable: bool,
    sink: Sink | None,
    on_kept: Callable[[Path], None],
) -> Iterator[ArchiveWriter]:
    with open(_open_locked(part), "r+b") as file:
        writer = ArchiveWriter(file=file, name=str(part), rewindable=True, sink=sink)
        try:
            writer.read_existing()
            if writer.size_bytes > size_bytes:
                writer.restart()
            _require_room(part.parent, size_bytes - writer.size_bytes)
            yield writer
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if not replace:
                require_absent(path)
            part.replace(path)
            if durable:
                _sync_folder(path.parent)
        except (RetryLater, TimedOut, SystemExit, KeyboardInterrupt):
            if writer.size_bytes:
                on_kept(part)
            else:
                part.unlink(missing_ok=True)
            raise
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _sync_folder(folder: Path) -> None:
    """Have a new name in *folder* survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_locked(part: Path) -> int:
    """Return a descriptor of *part*, created if necessary, that this process has locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        descriptor = os.open(part, flags, 0o666)
        try:
            if _lock(descriptor, part):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, part: Path) -> bool:
    """Lock the file. Return False if *part* no longer names it, because its writer has finished."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise CommandFailed(f"{part} exists and is not a file; remove it")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BeingWritten(f"another process is writing {part}") from None
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), part.lstat())
    return False


def _require_room(folder: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise RetryLater(f"{folder} has {free:,} bytes free; the archive needs {size_bytes:,} more")


@contextmanager
def _explaining_errors(path: str | Path) -> Iterator[None]:
    """Raise CommandFailed for an OSError, but not if the reader of a pipe has left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CommandFailed(f"{path}: {exc.strerror}") from exc
