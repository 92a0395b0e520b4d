"""The values that handlers return. The application sends, remembers and logs them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.responses import Response

from archiver.web.request_context import RequestContext

OK = "ok"
"""The outcome of requests that are not for an archive."""

HIT = "hit"
MISS = "miss"
JOINED = "joined"

WAITED = "waited"
"""The client waited until the archive was there."""

HELD = "held"
"""The client waited and was redirected here again, to wait on."""

SENT_TO_HOST = "sent_to_host"
CLIENT_LEFT = "client_left"

NO_CONTENT = 204
"""A plain number, because the log shows a member of ``HTTPStatus`` with its name."""

CLIENT_LEFT_STATUS = 499
"""nginx's code for a client that left before the response."""

Headers = Sequence[tuple[bytes, bytes]]

EVERY_RESPONSE: Headers = (
    (b"x-robots-tag", b"noindex, nofollow"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable:
    """A response that other clients may get too, until a notification of one of its ``topics``.

    ``good_until`` is a reading of ``time.monotonic``. ``retry_after`` draws the header of that
    name for each client. ``renew`` returns a successor, or None if the response is no longer true;
    without it, the response expires. ``archive`` is the key hash of the archive that it leads to.
    Requests that have the header ``unless_header`` do not get it.
    """

    response: Response
    outcome: str
    topics: tuple[str, ...]
    good_until: float = float("inf")
    retry_after: Callable[[], int] | None = None
    renew: "Renew | None" = None
    archive: str | None = None
    unless_header: bytes | None = None


Renew: TypeAlias = Callable[[], Awaitable[Repeatable | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A response, and its outcome: one of the constants above, or the code of a problem.

    ``repeatable`` makes the value to remember. It is called only if the request was seen before.
    """

    response: Response
    outcome: str = OK
    repeatable: Callable[[], Repeatable] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A request that waits for its own client. Identical requests do not wait for its reply."""

    wait: Callable[[], Awaitable[Reply]]


Handler: TypeAlias = Callable[[RequestContext], Awaitable[Reply | Hold]]


def client_left() -> Reply:
    """Return the reply to a client that has left, for the log."""
    return Reply(response=Response(status_code=CLIENT_LEFT_STATUS), outcome=CLIENT_LEFT)


def with_standard_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* with those of every response; without ``Cache-Control``, no-store."""
    complete = [*headers, *EVERY_RESPONSE]
    if all(name != b"cache-control" for name, _ in complete):
        complete.append((b"cache-control", b"no-store"))
    return complete
