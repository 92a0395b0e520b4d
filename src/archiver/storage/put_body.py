"""The body of an S3 put.

Bodies are iterators without resources of their own, since obstore never closes an iterator that it
abandons.
"""

from collections.abc import AsyncIterator


class _Resumed:
    """Chunks that were read already, followed by the rest."""

    def __init__(self, chunks: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._chunks = chunks[::-1]
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._chunks.pop() if self._chunks else await anext(self._rest)


async def join_if_small(
    chunks: AsyncIterator[bytes], part_bytes: int
) -> bytes | AsyncIterator[bytes]:
    """Return all bytes if they are less than one part. This takes one request instead of three."""
    head: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        head.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= part_bytes:
            return _Resumed(head, chunks)
    return b"".join(head)
