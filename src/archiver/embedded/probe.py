"""Checks over TCP whether a server responds."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The bytes to send to a port, and the text that the first line of the response must have."""

    host: str
    port: int
    send: bytes = b""
    expect: bytes

    async def succeeds(self) -> bool:
        """Return whether the server sends the expected response. Never raises."""
        with suppress(OSError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(TIMEOUT_S):
                return await self._try()
        return False

    async def _try(self) -> bool:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.send)
            return self.expect in await reader.readline()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def http_probe(host: str, port: int, path: str, *, expect: bytes) -> Probe:
    """Return a probe that requests *path* and expects *expect* in the status line."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    return Probe(host=host, port=port, send=request.encode(), expect=expect)
