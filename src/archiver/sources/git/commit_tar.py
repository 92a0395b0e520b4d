"""The tar that git makes of a commit, in chunks for this process or in a pipe for another one."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from archiver.sources.git.piped_output import PipedOutput
from archiver.sources.git.program import GitFailed
from archiver.sources.git.snapshot import Snapshot


class CommitTar:
    """The tar of *snapshot*, below the directory *root*. A complete one is noted in the mirror."""

    def __init__(self, snapshot: Snapshot, *, root: str) -> None:
        archive = snapshot.archive
        self._mirror = snapshot.mirror
        self._node = archive.node
        self._git = snapshot.git
        paths = (archive.subdir,) if archive.subdir else ()
        options = ("archive", "--format=tar", f"--prefix={root}/")
        self._arguments = (*options, archive.node, "--", *paths)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the tar in chunks of up to 1 MiB. Raises MirrorFailed or NoRoom."""
        with self._translated():
            async with self._git.stream(*self._arguments) as pieces:
                async for piece in pieces:
                    yield piece
        self._mirror.remember(self._node)

    @asynccontextmanager
    async def pipe(self) -> AsyncIterator["CommitPipe"]:
        """Yield a pipe with the tar. Raises MirrorFailed or NoRoom."""
        with self._translated():
            async with self._git.pipe(*self._arguments) as output:
                yield CommitPipe(self, output)

    async def finish(self, output: PipedOutput) -> bool:
        with self._translated():
            complete = await output.finish()
        if complete:
            self._mirror.remember(self._node)
        return complete

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except GitFailed as exc:
            raise self._mirror.translate(exc) from exc


class CommitPipe:
    """Implements ``ports.source.Pipe``."""

    def __init__(self, tar: CommitTar, output: PipedOutput) -> None:
        self.descriptor = output.descriptor
        self.close = output.close
        self._tar = tar
        self._output = output

    async def finish(self) -> bool:
        return await self._tar.finish(self._output)
