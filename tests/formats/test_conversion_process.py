"""The process of a conversion, and how it ends."""

import asyncio
import gc
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from prometheus_client import REGISTRY

from archiver.errors import (
    ArchiverError,
    ConversionLost,
    CorruptArchive,
    InternalError,
    MirrorFailed,
    TruncatedArchive,
)
from archiver.formats.convert import ProcessConverter
from archiver.formats.workspace import Workspace
from archiver.ports.source import PipedTar
from tests.formats import tar_blocks
from tests.formats.samples import ROOT, an_archive
from tests.formats.trees import RICH, Item, pack, tar_of
from tests.parts.process import descendants, wait_until

NOISE = Random(7).randbytes(30_000_000)  # noqa: S311 - twice as much as can be buffered
TAR = tar_of([Item(path="noise", content=NOISE)])
Pieces = AsyncGenerator[bytes, None]


def conversions(pid: int) -> list[int]:
    """Return the running conversions that *pid* has started."""
    return [child for child, command in descendants(pid).items() if "conversion" in command]


def convert(
    chunks: Pieces, folder: Path, *, given: str = "tar", threads: int = 1
) -> AbstractAsyncContextManager[Pieces]:
    workspace = Workspace(folder=folder, max_bytes=1 << 30)
    return ProcessConverter(workspace=workspace, threads=threads).convert(
        chunks, original=an_archive(given), target=an_archive("tar.gz"), root=ROOT
    )


async def endless() -> Pieces:
    yield TAR[: len(TAR) // 2]
    await asyncio.Event().wait()


def test_a_killed_conversion_is_retryable(tmp_path: Path) -> None:
    async def chunks() -> Pieces:
        yield TAR[:1000]
        (process,) = conversions(os.getpid())
        os.kill(process, signal.SIGKILL)
        yield TAR[1000:]

    async def play() -> None:
        async with convert(chunks(), tmp_path) as pieces:
            async for _ in pieces:
                pass

    with pytest.raises(ConversionLost, match="signal 9") as raised:
        asyncio.run(play())
    assert raised.value.retryable


GIT_TAR = tar_blocks.pax(tar_blocks.record(b"comment", b"0" * 40), kind=b"g") + tar_of(RICH)
"""As git writes it: a global header, then the members."""


class WrittenPipe:
    """Implements ``ports.source.Pipe``: *data*, from a program that ended as *ending* says."""

    def __init__(self, data: bytes, ending: bool | Exception) -> None:  # noqa: FBT001
        with tempfile.TemporaryFile() as file:  # is read like a pipe, and has room for more
            file.write(data)
            file.seek(0)
            self.descriptor = os.dup(file.fileno())
        self._ending = ending

    def close(self) -> None:
        os.close(self.descriptor)

    async def finish(self) -> bool:
        if isinstance(self._ending, Exception):
            raise self._ending
        return self._ending


async def convert_piped(
    data: bytes, folder: Path, *, ending: bool | Exception = True, comment: bytes = b""
) -> bytes:
    @asynccontextmanager
    async def open_pipe() -> AsyncIterator[WrittenPipe]:
        yield WrittenPipe(data, ending)

    workspace = Workspace(folder=folder, max_bytes=1 << 30)
    async with ProcessConverter(workspace=workspace, threads=1).convert(
        endless(),
        original=an_archive("tar"),
        target=an_archive("tar"),
        root=ROOT,
        piped=PipedTar(open=open_pipe, comment=comment),
    ) as pieces:
        return b"".join([piece async for piece in pieces])


@pytest.mark.parametrize("comment", (b"", b"the record"))
def test_a_pipe_is_converted_in_place_of_the_chunks(tmp_path: Path, comment: bytes) -> None:
    made = asyncio.run(convert_piped(GIT_TAR, tmp_path, comment=comment))

    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
    assert len(members) == len(RICH)
    # Python reads the headers of a member over the global ones.
    assert members[0].pax_headers["comment"] == (comment.decode() or "0" * 40)


@pytest.mark.parametrize(
    ("data", "ending", "expected"),
    (
        (GIT_TAR, MirrorFailed("git failed at the end"), MirrorFailed),
        (GIT_TAR[:3000], MirrorFailed("git failed"), MirrorFailed),
        (GIT_TAR[:3000], True, TruncatedArchive),
        (GIT_TAR[:3000], False, TruncatedArchive),
        (GIT_TAR, False, ConversionLost),
        (b"x" * 2000, False, CorruptArchive),
    ),
)
def test_a_failure_of_the_writer_of_a_pipe_comes_first(
    tmp_path: Path,
    data: bytes,
    ending: bool | Exception,  # noqa: FBT001
    expected: type[ArchiverError],
) -> None:
    with pytest.raises(expected):
        asyncio.run(convert_piped(data, tmp_path, ending=ending))
    assert conversions(os.getpid()) == []


def test_a_crashed_conversion_is_an_internal_error_with_its_cause(tmp_path: Path) -> None:
    async def chunks() -> Pieces:
        yield TAR

    async def play() -> None:
        async with convert(chunks(), tmp_path, threads=0) as pieces:
            async for _ in pieces:
                pass

    with pytest.raises(InternalError, match="crashed") as raised:
        asyncio.run(play())
    assert "ValueError: max_workers" in str(raised.value.__cause__)


@pytest.mark.parametrize("given", ("tar", "zip"))
def test_a_conversion_ends_with_its_caller(given: str, tmp_path: Path) -> None:
    async def chunks() -> Pieces:
        yield TAR if given == "tar" else pack(RICH, "zip")
        fed.set()
        await asyncio.Event().wait()

    async def ask() -> None:
        async with convert(chunks(), tmp_path, given=given) as pieces:
            async for _ in pieces:
                pass

    async def play() -> list[int]:
        asking = asyncio.create_task(ask())
        await fed.wait()
        started = conversions(os.getpid())
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return started

    fed = asyncio.Event()
    assert len(asyncio.run(play())) == 1
    assert conversions(os.getpid()) == []


def test_the_original_may_fail_after_the_reader_has_left(tmp_path: Path) -> None:
    async def chunks() -> Pieces:
        yield TAR[:1000]
        broken.set()
        raise CorruptArchive("broken off")

    async def play() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(context["message"]))
        async with convert(chunks(), tmp_path):
            await broken.wait()
        gc.collect()
        await asyncio.sleep(0)

    broken = asyncio.Event()
    unseen: list[str] = []
    asyncio.run(play())

    assert unseen == []


def test_a_conversion_ends_when_its_reader_leaves(tmp_path: Path) -> None:
    async def play() -> bytes:
        async with convert(endless(), tmp_path) as pieces:
            return await anext(pieces)

    assert asyncio.run(play())
    assert conversions(os.getpid()) == []


def test_a_conversion_ignores_signals(tmp_path: Path) -> None:
    """Signals may go to the whole process group of a worker, which ends conversions itself."""

    async def chunks() -> Pieces:
        yield TAR[: len(TAR) // 2]
        await begun.wait()
        (process,) = conversions(os.getpid())
        for stop in (signal.SIGINT, signal.SIGTERM):
            os.kill(process, stop)
        yield TAR[len(TAR) // 2 :]

    async def play() -> int:
        size_bytes = 0
        async with convert(chunks(), tmp_path) as pieces:
            async for piece in pieces:
                begun.set()
                size_bytes += len(piece)
        return size_bytes

    begun = asyncio.Event()
    assert asyncio.run(play()) > len(NOISE)


@pytest.mark.thorough
def test_a_conversion_ends_with_its_worker_however_that_ends(tmp_path: Path) -> None:
    script = """if True:
        import asyncio, sys
        from pathlib import Path
        from tests.formats.test_conversion_process import convert, endless
        async def play():
            async with convert(endless(), Path(sys.argv[1])) as pieces:
                async for piece in pieces:
                    print(len(piece), flush=True)
        asyncio.run(play())
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout
        try:
            worker.stdout.readline()
            (process,) = conversions(worker.pid)
        finally:
            worker.kill()
    wait_until(lambda: not Path(f"/proc/{process}").exists(), what="the conversion's end")


@pytest.mark.parametrize(
    ("data", "ending", "outcome"),
    (
        (GIT_TAR, True, "succeeded"),
        (b"x" * 2000, False, "refused"),
        (GIT_TAR, False, "lost"),
        (GIT_TAR, MirrorFailed("git failed at the end"), "aborted"),
    ),
)
def test_conversions_are_counted_by_their_outcome(
    tmp_path: Path,
    data: bytes,
    ending: bool | Exception,  # noqa: FBT001
    outcome: str,
) -> None:
    def count() -> float:
        labels = {"suffix": "tar", "outcome": outcome}
        return REGISTRY.get_sample_value("archiver_conversions_total", labels) or 0

    before = count()
    with suppress(ArchiverError):
        asyncio.run(convert_piped(data, tmp_path, ending=ending))
    assert count() == before + 1
    assert REGISTRY.get_sample_value("archiver_conversions_running") == 0
