"""Makes an archive of another one of the same tree: in another format, or a part of it."""

import asyncio
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
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
from archiver.formats.compression.compress import keep_freed_memory, library
from archiver.formats.conversion import REFUSED, Job, Refusal
from archiver.formats.workspace import Spool, Workspace
from archiver.model import Archive
from archiver.runtime.tasks import cancel_and_wait, uninterrupted
from archiver.runtime.threads import run_in_thread

VERSION = 2
"""To be raised by whoever changes the bytes that come out."""

PIECE_BYTES = 1 << 20
"""What is handed on at a time: whoever reads it on has a price for each piece."""

_REFUSED: tuple[type[ArchiverError], ...] = (NoRoom, UnknownSubdir, *BadArchive.__subclasses__())
_REFUSALS: Mapping[str, type[ArchiverError]] = {error.code: error for error in _REFUSED}


class Converter:
    """Implements ``ports.Converter``. Each conversion is a process: see ``conversion``.

    Tars are converted as they come. A zip tells only at its end what its members are, so it has to
    be there whole: in the workspace.
    """

    def __init__(self, *, workspace: Workspace, threads: int) -> None:
        keep_freed_memory()
        self._workspace = workspace
        self._threads = threads

    def version(self, suffix: str) -> str:
        return f"archiver {VERSION}, {library(suffix)}"

    def require_room(self, *, given: Archive, wanted: Archive, size_bytes: int = 0) -> None:
        if given.suffix == "zip":
            self._workspace.try_out(expected_bytes=size_bytes)
        elif wanted.suffix == "zip":
            self._workspace.try_out()  # for the list of its members

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        client_root: str = "",
        size_bytes: int = 0,
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with AsyncExitStack() as stack:
            spool = None
            if given.suffix == "zip":
                spool = stack.enter_context(self._workspace.spool(expected_bytes=size_bytes))
            job = Job(
                given=given,
                wanted=wanted,
                root=root,
                client_root=client_root,
                threads=self._threads,
                folder=str(self._workspace.folder),
                most_bytes=self._workspace.most_bytes,
                spool=spool.descriptor if spool else None,
            )
            running = await stack.enter_async_context(_started(job))
            feeding = asyncio.create_task(running.feed(chunks, spool))
            feeding.add_done_callback(_seen)
            stack.push_async_callback(cancel_and_wait, feeding)
            yield await stack.enter_async_context(aclosing(running.pieces(feeding)))


class _Running:
    """The process of a conversion."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stdin = cast("StreamWriter", process.stdin)
        self._stdout = cast("StreamReader", process.stdout)
        self._stderr = cast("StreamReader", process.stderr)

    async def feed(self, chunks: AsyncGenerator[bytes, None], spool: Spool | None) -> None:
        """Hand on *chunks*. When they break off, kill it, lest it take that for their end."""
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if spool:
                        await run_in_thread(spool.write, chunk)
                    else:
                        await self._write(chunk)
        except BaseException:
            self._kill()
            raise
        self._stdin.close()

    async def _write(self, chunk: bytes) -> None:
        with suppress(ConnectionError):  # how it ended tells more than that it did
            self._stdin.write(chunk)
            await self._stdin.drain()

    async def pieces(self, feeding: asyncio.Task[None]) -> AsyncGenerator[bytes, None]:
        """Yield what it makes. Raises what *feeding* ended with, or what it was refused for."""
        while piece := await _read(self._stdout):
            yield piece
        said = await self._stderr.read()
        status = await self._process.wait()
        if status:
            await cancel_and_wait(feeding)
        if status == 0 or not feeding.cancelled():
            await feeding
        if status:
            raise _failure(status, said)

    async def end(self) -> None:
        self._kill()
        self._stdin.close()
        await uninterrupted(
            self._process.communicate()
        )  # what is left in its pipes keeps them open

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


@asynccontextmanager
async def _started(job: Job) -> AsyncIterator[_Running]:
    """Yield the process that does *job*; at the end of the block it has ended, too."""
    command = (sys.executable, "-P", "-m", conversion.__name__, msgspec.json.encode(job))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=PIECE_BYTES,
            pass_fds=() if job.spool is None else (job.spool,),
        )
    except OSError as exc:
        raise ConversionLost("the process of a conversion could not be started") from exc
    running = _Running(process)
    try:
        yield running
    finally:
        await running.end()


def _seen(feeding: asyncio.Task[None]) -> None:
    """Take note of what it failed with: whoever left before would not."""
    if not feeding.cancelled():
        feeding.exception()


async def _read(stream: StreamReader) -> bytes:
    try:
        return await stream.readexactly(PIECE_BYTES)
    except IncompleteReadError as exc:
        return exc.partial


def _failure(status: int, said: bytes) -> ArchiverError:
    """Return what a process ended with that *said* why on its last line, if it could."""
    if status == REFUSED:
        refusal = msgspec.json.decode(said.splitlines()[-1], type=Refusal)
        return _REFUSALS[refusal.code](refusal.message)
    if status < 0:
        return ConversionLost(f"the process of a conversion was killed by signal {-status}")
    failure = InternalError("a conversion crashed")
    failure.__cause__ = RuntimeError(said.decode(errors="replace"))
    return failure
