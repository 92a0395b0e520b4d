"""Converts an archive to another format or to a part of its tree, in a child process."""

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import cast

import msgspec

from archiver.errors import (
    ArchiverError,
    BadArchive,
    ConversionLost,
    InternalError,
    NoRoom,
    UnknownSubdir,
)
from archiver.formats import conversion
from archiver.formats.compression.compress import keep_freed_memory, library_version
from archiver.formats.conversion import REFUSED, Job, Refusal
from archiver.formats.workspace import Spool, Workspace
from archiver.model import Archive
from archiver.ports.source import Pipe, PipedTar
from archiver.runtime.pipes import read_piece
from archiver.runtime.processes import release, started
from archiver.runtime.tasks import cancel_and_wait, complete_despite_cancellation, concurrently
from archiver.runtime.threads import run_in_thread
from archiver.telemetry import METRICS

VERSION = 2
"""Increase it with every change to the bytes of converted archives."""

PIECE_BYTES = 1 << 20
"""Size of the pieces of output: each has a cost for its consumer."""

_REFUSED: tuple[type[ArchiverError], ...] = (NoRoom, UnknownSubdir, *BadArchive.__subclasses__())
_REFUSALS: Mapping[str, type[ArchiverError]] = {error.code: error for error in _REFUSED}


class ProcessConverter:
    """Implements ``ports.Converter``. Each conversion is a process: see ``conversion``.

    A tar is converted as it arrives. The kinds of a zip's members are only in the directory at its
    end, so a zip is stored in the workspace first.
    """

    def __init__(self, *, workspace: Workspace, threads: int) -> None:
        keep_freed_memory()
        self._workspace = workspace
        self._threads = threads

    def version(self, suffix: str) -> str:
        return f"archiver {VERSION}, {library_version(suffix)}"

    def require_room(self, *, original: Archive, target: Archive, size_bytes: int = 0) -> None:
        if original.suffix == "zip":
            self._workspace.require_room(expected_bytes=size_bytes)
        elif target.suffix == "zip":
            self._workspace.require_room()  # for its directory

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        original: Archive,
        target: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,
        piped: PipedTar | None = None,
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with AsyncExitStack() as stack:
            stack.enter_context(_counted(target.suffix))
            spool = None
            if original.suffix == "zip":
                spool = stack.enter_context(self._workspace.spool(expected_bytes=size_bytes))
            job = Job(
                original=original,
                target=target,
                root=root,
                client_root=client_root,
                threads=self._threads,
                folder=str(self._workspace.folder),
                max_bytes=self._workspace.max_bytes,
                spool=spool.descriptor if spool else None,
                comment=piped.comment.decode("ascii") if piped else None,
            )
            pipe = await stack.enter_async_context(piped.open()) if piped else None
            process = await stack.enter_async_context(_start(job, pipe))
            feed = process.follow(pipe) if pipe else process.feed(chunks, spool)
            feeding = await stack.enter_async_context(concurrently(feed))
            yield await stack.enter_async_context(aclosing(process.iter_output(feeding)))


@contextmanager
def _counted(suffix: str) -> Iterator[None]:
    """Count a conversion to *suffix* by the outcome of the block."""
    outcome = "aborted"
    try:
        with METRICS.conversions_running.track_inprogress():
            yield
        outcome = "succeeded"
    except _REFUSED:
        outcome = "refused"
        raise
    except ConversionLost:
        outcome = "lost"
        raise
    except InternalError:
        outcome = "failed"
        raise
    finally:
        METRICS.conversions.labels(suffix=suffix, outcome=outcome).inc()


class _ConversionProcess:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._stdin = process.stdin
        self._stdout = cast("StreamReader", process.stdout)
        self._stderr = cast("StreamReader", process.stderr)

    async def feed(self, chunks: AsyncGenerator[bytes, None], spool: Spool | None) -> bool:
        """Pass on *chunks*. If they fail, kill the process, which would take that for the end."""
        stdin = cast("StreamWriter", self._stdin)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if spool:
                        await run_in_thread(spool.write, chunk)
                        continue
                    with suppress(ConnectionError):  # the exit status says more
                        stdin.write(chunk)
                        await stdin.drain()
        except BaseException:
            self._kill()
            raise
        stdin.close()
        return True

    async def follow(self, pipe: Pipe) -> bool:
        """Return whether everything was written to *pipe*, which the process reads."""
        pipe.close()
        try:
            return await pipe.finish()
        except BaseException:
            self._kill()
            raise

    async def iter_output(self, feeding: asyncio.Task[bool]) -> AsyncGenerator[bytes, None]:
        """Yield the output. Raises the failure of *feeding* or of the process."""
        is_complete = False
        while piece := await read_piece(self._stdout, PIECE_BYTES):
            yield piece
        stderr = await self._stderr.read()
        status = await self._process.wait()
        if status and self._stdin:
            await cancel_and_wait(feeding)
        if status == 0 or not feeding.cancelled():
            is_complete = await feeding  # the writer of a pipe without a reader ends, too
        if status:
            raise _failure(status, stderr)
        if not is_complete:
            raise ConversionLost("the input of a conversion was not read to its end")

    async def close(self) -> None:
        """Kill the process and wait for its end."""
        self._kill()
        if self._stdin:
            self._stdin.close()
        try:
            reading = self._process.communicate()  # unread output keeps the pipes open
            await complete_despite_cancellation(reading)
        finally:
            release(self._process)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


@asynccontextmanager
async def _start(job: Job, pipe: Pipe | None) -> AsyncIterator[_ConversionProcess]:
    """Yield a process that does *job*, and reads *pipe*. It does not outlive the block."""
    try:
        process = await started(
            asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", conversion.__name__, msgspec.json.encode(job)),
                stdin=pipe.descriptor if pipe else PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=PIECE_BYTES,
                pass_fds=() if job.spool is None else (job.spool,),
            )
        )
    except OSError as exc:
        raise ConversionLost("the process of a conversion could not be started") from exc
    running = _ConversionProcess(process)
    try:
        yield running
    finally:
        await running.close()


def _failure(status: int, stderr: bytes) -> ArchiverError:
    """Return the error of a process with this exit status. A refusal is its last line of stderr."""
    if status == REFUSED:
        refusal = msgspec.json.decode(stderr.splitlines()[-1], type=Refusal)
        return _REFUSALS[refusal.code](refusal.message)
    if status < 0:
        return ConversionLost(f"the process of a conversion was killed by signal {-status}")
    failure = InternalError("a conversion crashed")
    failure.__cause__ = RuntimeError(stderr.decode(errors="replace"))
    return failure
