"""One conversion, in a process of its own: what comes in by stdin goes out by stdout.

``python -m archiver.formats.conversion JOB``. So it has a lock of Python's to itself, and what it
holds is gone with it. A zip lies in a file that is open already, and is whole once stdin has ended.
What an archive is refused for goes to stderr, as a ``Refusal``, and the status is REFUSED.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from archiver.errors import ArchiverError
from archiver.formats.compression.compress import ZSTD_PIECE_BYTES, keep_freed_memory, packed
from archiver.formats.member_filter import PIECE_BYTES, Selection
from archiver.formats.repack import from_tar, from_zip
from archiver.formats.tar.writer import TarWriter
from archiver.formats.workspace import Workspace
from archiver.formats.zip.writer import ZipWriter
from archiver.model import Archive

REFUSED = 3
"""The status of a process that has said why."""

PIPE_BYTES = 1 << 20


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What *given* is to be made into, below *root*, or below *client_root* if that is given.

    ``spool`` is the descriptor of the file with a zip. In ``folder`` may lie up to ``most_bytes``
    of what is only known at the end of a zip that is made.
    """

    given: Archive
    wanted: Archive
    root: str
    threads: int
    folder: str
    most_bytes: int
    spool: int | None = None
    client_root: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An ArchiverError, on its way into another process."""

    code: str
    message: str


def converted(job: Job, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what *job* makes of *chunks*.

    Raises:
        BadArchive, UnknownSubdir, NoRoom: Nothing can be made of it.
    """
    with ExitStack() as stack:
        selection = _selection(job, stack)
        if job.spool is None:
            pieces = from_tar(chunks, job.given.suffix, selection)
        else:
            next(chunks, None)  # there are none, but it is whole once they have ended
            pieces = from_zip(job.spool, selection)
        if job.wanted.suffix != "zip":
            pieces = packed(pieces, suffix=job.wanted.suffix, threads=job.threads)
        yield from pieces


def _selection(job: Job, stack: ExitStack) -> Selection:
    select = partial(
        Selection,
        given=job.given,
        wanted=job.wanted,
        root=job.root,
        client_root=job.client_root,
    )
    if job.wanted.suffix == "zip":
        workspace = Workspace(folder=Path(job.folder), most_bytes=job.most_bytes)
        return select(writer=ZipWriter(listing=stack.enter_context(workspace.spool())))
    size = ZSTD_PIECE_BYTES if job.wanted.suffix == "tar.zst" else PIECE_BYTES
    return select(writer=TarWriter(), piece_bytes=size)


def _widen(*pipes: BinaryIO) -> None:
    """Have *pipes* hold more, where the system lets them: it spares turns."""
    for pipe in pipes:
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def main() -> int:
    # Whoever stops a worker with all that belongs to it leaves it to the worker to end this.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    _widen(sys.stdin.buffer, sys.stdout.buffer)
    keep_freed_memory()
    job = msgspec.json.decode(os.fsencode(sys.argv[1]), type=Job)
    chunks = iter(partial(os.read, sys.stdin.fileno(), PIPE_BYTES), b"")
    try:
        for piece in converted(job, chunks):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except ArchiverError as exc:
        sys.stderr.buffer.write(msgspec.json.encode(Refusal(code=exc.code, message=exc.message)))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
