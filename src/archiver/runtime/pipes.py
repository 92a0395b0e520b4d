"""Reading from the pipes of child processes."""

from asyncio import IncompleteReadError, StreamReader


async def read_piece(stream: StreamReader, size_bytes: int) -> bytes:
    """Return the next *size_bytes*, or fewer at the end of the stream."""
    try:
        return await stream.readexactly(size_bytes)
    except IncompleteReadError as exc:
        return exc.partial
