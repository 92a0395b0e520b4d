"""What is to be told of a request once it is answered."""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

_SCOPE_KEY = "archiver.exchange"

REQUEST_ID_MAX_BYTES = 64

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{REQUEST_ID_MAX_BYTES}}}")

_IDS = random.Random()  # noqa: S311 - no secret; the system's own would give up the lock each time

NO_SOURCE = "-"

ON_EVERY_ANSWER = {
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
RAW_ON_EVERY_ANSWER = tuple(
    (name.lower().encode(), value.encode()) for name, value in ON_EVERY_ANSWER.items()
)

CLIENT_LEFT = 499
"""nginx's number for a client that did not wait for the answer."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and its answer, as far as they went.

    ``source`` is a configured one, or ``-``: it labels a metric, which clients must not let grow.
    ``outcome`` is hit, waited, held, sent_to_host, miss, joined, client_left, or a problem's code;
    ok where no archive was asked for.
    """

    request_id: str
    source: str = NO_SOURCE
    outcome: str = "ok"
    status: int | None = None

    def bind(self, scope: Scope) -> None:
        scope[_SCOPE_KEY] = self


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that the client, or a proxy, gave to the request if it is a sane one."""
    for name, value in headers:
        if name == b"x-request-id":
            offered = value[: REQUEST_ID_MAX_BYTES + 1].decode("latin-1")
            if _REQUEST_ID.fullmatch(offered):
                return offered
            break
    return f"{_IDS.getrandbits(64):016x}"


def exchange(request: Request[Any]) -> Exchange:
    """Return the exchange that *request* belongs to."""
    bound: Exchange = request.scope[_SCOPE_KEY]
    return bound


def nobody(request: Request[Any]) -> Response:
    """Return the answer to a client that is not there any more. It is for the log."""
    exchange(request).outcome = "client_left"
    return Response(status_code=CLIENT_LEFT)
