"""One conversion in a process of its own, from stdin to stdout.

``python -m archiver.formats.conversion JOB``. The process has its own interpreter lock, and its
memory is freed when it ends. A zip is read from an inherited file, which is complete once stdin has
ended. If the archive is rejected, the process writes a ``Refusal`` to stderr and exits with
REFUSED.
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
from archiver.formats.compression.compress import (
    ZSTD_PIECE_BYTES,
    compress_tar,
    keep_freed_memory,
)
from archiver.formats.repack import PIECE_BYTES, MemberFilter, repack_tar, repack_zip
from archiver.formats.tar.writer import TarWriter
from archiver.formats.workspace import Workspace
from archiver.formats.zip.writer import ZipWriter
from archiver.git_objects import insert_comment
from archiver.model import Archive

REFUSED = 3
"""Exit status after a ``Refusal``."""

PIPE_BYTES = 1 << 20


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``ports.Converter.convert``, and the process's resources.

    ``spool`` is the descriptor of the file with a zip. The directory of a zip that is written goes
    to a file in ``folder``, of up to ``max_bytes``. A ``comment``, in ASCII, is
    inserted into a tar that git writes to stdin.
    """

    original: Archive
    target: Archive
    root: str
    threads: int
    folder: str
    max_bytes: int
    spool: int | None = None
    client_root: str = ""
    comment: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An ArchiverError, serialized for the parent process."""

    code: str
    message: str


def convert_stream(job: Job, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the converted archive. Raises BadArchive, UnknownSubdir or NoRoom."""
    with ExitStack() as stack:
        members = _member_filter(job, stack)
        if job.comment is not None:
            comment = job.comment.encode()
            chunks = insert_comment(chunks, comment, subdir=job.original.subdir)
        if job.spool is None:
            pieces = repack_tar(chunks, job.original.suffix, members)
        else:
            next(chunks, None)  # stdin stays empty, and ends when the file is complete
            pieces = repack_zip(job.spool, members)
        if job.target.suffix != "zip":
            pieces = compress_tar(pieces, suffix=job.target.suffix, threads=job.threads)
        yield from pieces


def _member_filter(job: Job, stack: ExitStack) -> MemberFilter:
    new_filter = partial(
        MemberFilter,
        original=job.original,
        target=job.target,
        root=job.root,
        client_root=job.client_root,
    )
    if job.target.suffix == "zip":
        workspace = Workspace(folder=Path(job.folder), max_bytes=job.max_bytes)
        return new_filter(writer=ZipWriter(directory=stack.enter_context(workspace.spool())))
    size = ZSTD_PIECE_BYTES if job.target.suffix == "tar.zst" else PIECE_BYTES
    return new_filter(writer=TarWriter(), piece_bytes=size)


def _enlarge(*pipes: BinaryIO) -> None:
    """Enlarge the buffers of *pipes* where the system supports it. Saves context switches."""
    for pipe in pipes:
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def main() -> int:
    # A signal to the process group of a worker leaves it to the worker to end this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _enlarge(sys.stdin.buffer, sys.stdout.buffer)
    keep_freed_memory()
    job = msgspec.json.decode(os.fsencode(sys.argv[1]), type=Job)
    # Whole pieces, because each has a cost, and git writes 10 KiB at a time.
    chunks = iter(partial(sys.stdin.buffer.read, PIPE_BYTES), b"")
    try:
        for piece in convert_stream(job, chunks):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except ArchiverError as exc:
        sys.stderr.buffer.write(msgspec.json.encode(Refusal(code=exc.code, message=exc.message)))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
