"""Reports the progress of one attempt."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from archiver.errors import ArchiverError
from archiver.tasks import Phase

Report = Callable[[Phase, int], None]
"""Called with the current phase and the bytes processed in it."""


class Progress:
    """Progress of one attempt. ``broken`` is true if the input stream ended early."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._receiving = False
        self.broken = False

    def start(self) -> None:
        """Report that fetching has started, before the first byte arrives."""
        self._report(Phase.FETCHING, 0)

    async def receive(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        self._receiving = True
        size_bytes = 0
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    self._report(Phase.FETCHING, size_bytes)
                    yield chunk
        except ArchiverError:
            self.broken = True
            raise
        self._receiving = False

    async def convert(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield *pieces* of output. They are reported once the whole input has arrived."""
        size_bytes = 0
        async for piece in pieces:
            size_bytes += len(piece)
            if not self._receiving:
                self._report(Phase.CONVERTING, size_bytes)
            yield piece
