"""Archiver's server with an application that sends one constant response.

``python -m benchmarks.constant LISTEN``. The response is in ``BENCH_ANSWER``, as JSON: ``status``,
``headers`` (a list of pairs) and ``body``.
"""

import json
import os
import sys
from typing import Any

from archiver.web.address_claim import fleet_identity
from archiver.web.server import serve


def app() -> Any:  # noqa: ANN401 - an ASGI application, to granian
    """Return a minimal ASGI application."""
    response = json.loads(os.environ["BENCH_ANSWER"])
    headers = [(name.encode(), value.encode()) for name, value in response["headers"]]
    start = {"type": "http.response.start", "status": response["status"], "headers": headers}
    body = {"type": "http.response.body", "body": response["body"].encode()}

    async def answer(scope: dict[str, object], receive: Any, send: Any) -> None:  # noqa: ANN401
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send(start)
            await send(body)

    return answer


async def _live(receive: Any, send: Any) -> None:  # noqa: ANN401
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


if __name__ == "__main__":
    serve("benchmarks.constant:app", listen=sys.argv[1], fleet=fleet_identity((), {}))
