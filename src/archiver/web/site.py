"""What every handler knows: where the service stands, who asks, and the service itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypedDict

from starlette.requests import Request

from archiver import __version__
from archiver.health import Heartbeat
from archiver.model import Archive
from archiver.service import Archiver
from archiver.web.answers import Answers
from archiver.web.clients import Clients
from archiver.web.seats import Holding
from archiver.web.waiting import Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where clients find the service. Every URL of our own is made here, none from a Host header.

    ``public_url`` ends without a slash; ``version`` is the answer to ``/__version__``. A hit is
    given from memory for ``hit_ttl``, and told of in the log once ``hits_told_every`` so often.
    """

    public_url: str
    retry_after_s: int
    retry_after_max_s: int = 60
    clients: Clients = field(default_factory=Clients)
    hit_ttl: timedelta = timedelta(seconds=30)
    hits_told_every: timedelta = timedelta(seconds=10)
    holding: Holding = field(default_factory=Holding)
    version: Mapping[str, str] = field(default_factory=lambda: {"version": __version__})

    def status_url(self, archive: Archive) -> str:
        return f"{self.public_url}/archiver/status/{archive.task_id}"


class State(TypedDict):
    """What the application's lifespan gives to each request."""

    archiver: Archiver
    site: Site
    heartbeat: Heartbeat
    answers: Answers
    waiting: Waiting


def client_of(request: Request[State]) -> str:
    """Return whom a request is counted under."""
    return request.state["site"].clients.of(request.scope).group
