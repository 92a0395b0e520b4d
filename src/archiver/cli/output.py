"""Where an archive is written to: a new file, or whatever else a name stands for."""

import fcntl
import hashlib
import os
import select
import shutil
import stat
import sys
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from archiver.cli.failures import CommandFailed, RetryLater

STDOUT = "-"
CHUNK_BYTES = 1024 * 1024
DIGITS = 12
"""Of the sha256, in the name of an unfinished file."""

_DESCRIPTORS = ("/dev/fd/", "/dev/std", "/proc/")
"""Names of open descriptors: bytes go to what they lead to, which is never replaced."""


class Sink:
    """Takes the bytes of an archive in their order, and knows how many, and their sha256."""

    def __init__(self, *, file: BinaryIO, name: str, rewindable: bool) -> None:
        self._file = file
        self._name = name
        self._rewindable = rewindable
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add *chunk*. Raises CommandFailed, or BrokenPipeError if the reader has left."""
        try:
            _write(self._file, chunk)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise _failed(self._name, exc) from exc
        self._count(chunk)

    def adopt(self) -> None:
        """Count what is in the file from before."""
        while chunk := self._file.read(CHUNK_BYTES):
            self._count(chunk)

    def restart(self) -> bool:
        """Forget every byte, and return True, unless some have left for good."""
        if not self._rewindable:
            return not self.size_bytes
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.size_bytes = hashlib.sha256(), 0
        return True

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size_bytes += len(chunk)


@contextmanager
def open_output(path: str, *, sha256: str, size_bytes: int, replace: bool) -> Iterator[Sink]:
    """Yield where to write an archive with this *sha256* that is to be found at *path*.

    A file gets its name when the block ends well. Until then it is ``PATH.DIGEST.part``, with the
    first digits of the *sha256*: no file of the user has that name by chance. An interrupted
    download leaves it, and the next one continues it. A symbolic link stays, and leads to
    the new file. Devices and FIFOs receive the bytes as they come.

    Raises:
        CommandFailed: It cannot be written, or is there and not to be replaced.
        RetryLater: Another process writes it, or the disk is too full.
    """
    try:
        if path == STDOUT:
            yield _stream(_unbuffered(sys.stdout.buffer), path)
        elif _is_stream(path):
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123
                yield _stream(file, path)
        else:
            final = Path(os.path.realpath(path))
            part = final.with_name(f"{final.name}.{sha256[:DIGITS]}.part")
            with _part(part, final, size_bytes, replace=replace) as sink:
                yield sink
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise _failed(path, exc) from exc


def check_absent(path: Path) -> None:
    """Return unless something has this name. Raises CommandFailed."""
    if os.path.lexists(path):
        raise CommandFailed(
            f"{path} is there already, with other bytes; "
            "--force replaces it, and -o writes to another file"
        )


def holds(path: Path, sha256: str, size_bytes: int) -> bool:
    """Return whether *path* is a file with these bytes. Raises CommandFailed if that fails."""
    try:
        if not path.is_file() or path.stat().st_size != size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError as exc:
        raise _failed(str(path), exc) from exc


def _is_stream(path: str) -> bool:
    """Return whether *path* exists and is not a file. Raises CommandFailed for a folder."""
    if os.path.abspath(path).startswith(_DESCRIPTORS):  # noqa: PTH100 - links are not to be followed
        return True
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise CommandFailed(f"{path} is a folder; -o names a file")
    return not stat.S_ISREG(mode)


def _stream(file: BinaryIO, name: str) -> Sink:
    return Sink(file=file, name=name, rewindable=False)


def _unbuffered(file: BinaryIO) -> BinaryIO:
    """Return the same file without its buffer, if it has one.

    What is left in a buffer is written when the process ends, which then waits for the reader.
    """
    file.flush()
    return getattr(file, "raw", file)


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Write all of *chunk*, where one call may write a part, or nothing if it is not to wait."""
    left = memoryview(chunk)
    while left:
        written = file.write(left)
        if written is None:
            select.select((), (file,), ())
        left = left[written or 0 :]


@contextmanager
def _part(part: Path, path: Path, size_bytes: int, *, replace: bool) -> Iterator[Sink]:
    with open(_claim(part), "r+b") as file:
        sink = Sink(file=file, name=str(part), rewindable=True)
        try:
            sink.adopt()
            if sink.size_bytes > size_bytes:
                sink.restart()
            _check_room(part.parent, size_bytes - sink.size_bytes)
            yield sink
            file.flush()
            if not replace:
                check_absent(path)
            part.replace(path)
        except (RetryLater, CancelledError, SystemExit):
            _keep(part, sink)
            raise
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _claim(part: Path) -> int:
    """Return a descriptor of *part*, made if need be, that no other process has.

    Raises:
        CommandFailed: It is not a file.
        RetryLater: Another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        claimed = os.open(part, flags, 0o666)
        try:
            if _lock(claimed, part):
                return claimed
        except BaseException:
            os.close(claimed)
            raise
        os.close(claimed)


def _lock(claimed: int, part: Path) -> bool:
    """Lock the file, and return whether *part* still names it: its writer may just have ended."""
    if not stat.S_ISREG(os.fstat(claimed).st_mode):
        raise CommandFailed(f"{part} is in the way: it is not a file")
    try:
        fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RetryLater(f"another process is writing {part}") from None
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(claimed), part.lstat())
    return False


def _check_room(folder: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise RetryLater(f"{folder} has room for {free:,} bytes, and {size_bytes:,} are to come")


def _keep(part: Path, sink: Sink) -> None:
    if sink.size_bytes:
        click.echo(f"{part} is kept: the same command goes on with it.", err=True)
    else:
        part.unlink(missing_ok=True)


def _failed(path: str, exc: OSError) -> CommandFailed:
    return CommandFailed(f"{path}: {exc.strerror}")
