"""What is to be told of a request once it is answered."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

_SCOPE_KEY = "archiver.exchange"

NO_SOURCE = "-"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and its answer, as far as they went.

    ``source`` is a configured one, or ``-``: it labels a metric, which clients must not let grow.
    ``outcome`` is hit, miss, joined, absent, ok, or an error's code.
    """

    request_id: str
    source: str = NO_SOURCE
    outcome: str = "ok"
    status: int | None = None

    def bind(self, scope: Scope) -> None:
        scope[_SCOPE_KEY] = self


def exchange(request: Request[Any]) -> Exchange:
    """Return the exchange that *request* belongs to."""
    bound: Exchange = request.scope[_SCOPE_KEY]
    return bound
