"""The body of a put: iterators that own nothing, since obstore closes none that it gives up."""

from collections.abc import AsyncIterator


class Counted:
    """Chunks, and how many bytes they were."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.size_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self.size_bytes += len(chunk)
        return chunk


class _Resumed:
    """Chunks that were read ahead, and the rest."""

    def __init__(self, read: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._read = read[::-1]
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._read.pop() if self._read else await anext(self._rest)


async def whole_if_small(
    chunks: AsyncIterator[bytes], part_bytes: int
) -> bytes | AsyncIterator[bytes]:
    """Return all bytes if they are less than one part: a request then does for three."""
    read: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        read.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= part_bytes:
            return _Resumed(read, chunks)
    return b"".join(read)
