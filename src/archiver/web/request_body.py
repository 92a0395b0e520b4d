"""Reads the body of a request, which may be too large, too slow, or never end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from archiver.web.problems import Misdirected
from archiver.web.request_context import RequestContext

BODY_TIME = timedelta(seconds=10)
"""A body of some megabytes takes a second. A client that sends slower occupies memory."""


class Disconnected(Exception):
    """The client left before it had sent its whole request."""


@asynccontextmanager
async def receive_body(context: RequestContext, *, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the whole body of a request, which occupies the process's budget during the block.

    Raises Misdirected if it has more than *max_bytes*, or takes longer than BODY_TIME; Disconnected
    if the client leaves; and TooManyWaiters if the process has no room for it.
    """
    stated = context.header(b"content-length")
    if stated.isdecimal() and (len(stated) > len(str(max_bytes)) or int(stated) > max_bytes):
        raise _too_large(max_bytes)
    body = bytearray()
    with context.state.bodies.grant(context.share_holder) as grant:
        try:
            async with asyncio.timeout(BODY_TIME.total_seconds()):
                more = True
                while more:
                    piece, more = await _receive(context)
                    if len(body) + len(piece) > max_bytes:
                        raise _too_large(max_bytes)
                    grant.extend(len(piece))
                    body += piece
        except TimeoutError as exc:
            seconds = BODY_TIME // timedelta(seconds=1)
            raise Misdirected("body_too_slow", f"the body took longer than {seconds} s") from exc
        whole = bytes(body)
        body.clear()
        yield whole


async def _receive(context: RequestContext) -> tuple[bytes, bool]:
    """Return the next piece of the body, and whether more will follow. Raises Disconnected."""
    message = await context.receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


def _too_large(max_bytes: int) -> Misdirected:
    return Misdirected("body_too_large", f"the body has more than {max_bytes} bytes")


def require_json(context: RequestContext) -> None:
    """Return if the body is said to be JSON. Raises Misdirected.

    A page of another site cannot send this type without a question of the browser first.
    """
    if context.header(b"content-type").partition(";")[0].strip().lower() != "application/json":
        raise Misdirected(
            "unsupported_media_type", "send JSON, with the header Content-Type: application/json"
        )
