"""One HTTP request, and the web process that answers it, as the handlers see them."""

import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import quote, urlencode

from starlette.types import Receive

from archiver import __version__
from archiver.access.access import ANONYMOUS, Access, Principal
from archiver.access.tokens import hide_tokens
from archiver.errors import Unauthenticated
from archiver.health import Heartbeat
from archiver.model import Archive, ArchiveRequest
from archiver.prewarm.hook import Hook
from archiver.prewarm.rules import PrewarmRule
from archiver.service import Archiver
from archiver.upkeep.operations import Operations
from archiver.web.body_budget import BodyBudget
from archiver.web.client_address import Client, ClientResolver
from archiver.web.waiting.waiters import Waiters, WaitLimits

REQUEST_ID_MAX_BYTES = 64

HEADER_MAX_BYTES = 4096
"""A longer header is ignored. Genuine ones have some tens of bytes."""

NO_ROUTE = "none"
NO_SOURCE = "-"

UNKNOWN_HOLDER = "unknown"
"""Clients whose address the server does not know share one set of limits."""

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{REQUEST_ID_MAX_BYTES}}}")

_IDS = random.Random()  # noqa: S311 - no secret; SystemRandom would release the GIL for each id


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """``public_url``, without a slash at its end, starts every URL of the service in a response.

    The Host header of a request has no influence on URLs. ``version`` is the body of
    ``/__version__``. Hits are repeated from memory for ``hit_ttl``, and logged in one line per
    ``hits_log_interval``. Metrics with an address of their own are not served as a route. ``hooks``
    are by name; ``prewarm_rules`` say what to build after a push.
    """

    public_url: str
    retry_after_s: int
    retry_after_max_s: int = 60
    serves_metrics: bool = True
    clients: ClientResolver = field(default_factory=ClientResolver)
    hit_ttl: timedelta = timedelta(seconds=30)
    hits_log_interval: timedelta = timedelta(seconds=10)
    wait_limits: WaitLimits = field(default_factory=WaitLimits)
    version: Mapping[str, str] = field(default_factory=lambda: {"version": __version__})
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    prewarm_rules: Sequence[PrewarmRule] = ()

    def status_url(self, archive: Archive, sha256: str | None = None) -> str:
        """Return the URL of a status, which has no links to other bytes than *sha256*."""
        query = f"?sha256={sha256}" if sha256 else ""
        return f"{self.public_url}/archiver/status/{archive.task_id}{query}"

    def repo_url(self, archive: ArchiveRequest | Archive) -> str:
        """Return the URL of a repo's archives, for requests with ``?rev=``."""
        return f"{self.public_url}/archiver/{archive.source}/{quote(archive.repo)}"

    def archive_url(self, archive: ArchiveRequest | Archive, rev: str) -> str:
        """Return the URL of an archive at *rev*, without its query."""
        return f"{self.repo_url(archive)}/{quote(rev, safe='')}"

    def canonical_url(self, archive: Archive) -> str:
        """Return the URL of an archive by its node, which always means the same archive."""
        query = {"suffix": archive.suffix} | ({"subdir": archive.subdir} if archive.subdir else {})
        query |= dict.fromkeys(archive.flags, "1")
        return f"{self.archive_url(archive, archive.node)}?{urlencode(query, safe='/')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebState:
    """The parts of a running web process that handlers use."""

    access: Access
    archiver: Archiver
    config: WebConfig
    heartbeat: Heartbeat
    operations: Operations
    waiters: Waiters
    bodies: BodyBudget = field(default_factory=BodyBudget)


@dataclass(slots=True, eq=False)
class RequestContext:
    """A request, and what the access log records of it.

    ``principal`` is the client; ``refusal`` is the reason why its credentials were not accepted.
    ``raw_path`` and ``query`` are the bytes that the client sent; ``began`` is a reading of
    ``time.perf_counter``. The router sets ``route`` and ``parameters``. A handler sets ``source``
    once it knows a configured one: the name labels a metric, so clients must not invent values.
    """

    request_id: str
    method: str
    raw_path: bytes
    query: bytes
    headers: Iterable[tuple[bytes, bytes]]
    client: Client
    receive: Receive
    state: WebState
    began: float
    principal: Principal = ANONYMOUS
    refusal: Unauthenticated | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    route: str = NO_ROUTE
    source: str = NO_SOURCE
    outcome: str = "ok"
    status: int | None = None

    @property
    def share_holder(self) -> str:
        """The name that limits count against: the principal, else the address or its network."""
        return self.principal or self.client.group or UNKNOWN_HOLDER

    def may_read(self, source: str, repo: str) -> bool:
        """Return whether the client may read a repo of a source now."""
        return self.state.access.may_read(self.principal, source, repo)

    def require_admin(self, archive: Archive) -> None:
        """Return if the client may remove *archive*, and protect it from that.

        The traces of an archive that was removed do not say which submodules it had. So a client
        that may not read all of them must not learn whether there are traces.

        Raises Unauthenticated or Forbidden.
        """
        self.state.access.require_admin(self.principal, archive.source, archive.repo)
        if archive.submodules:
            self.state.access.require_read_all(self.principal)

    def require_readable(self, archive: Archive) -> None:
        """Return if the client may know that *archive* exists. Raises an error as if it did not."""
        self.state.access.require_source(self.principal, archive.source)
        self.state.access.require_repo(self.principal, archive.source, archive.repo)

    @property
    def age_s(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.began

    def header(self, name: bytes) -> str:
        """Return the values of *name*, joined by commas; empty if they are absent or too long."""
        value = b",".join([value for key, value in self.headers if key == name])
        return value.decode("latin-1") if len(value) <= HEADER_MAX_BYTES else ""

    def has_header(self, name: bytes) -> bool:
        return any(key == name for key, _ in self.headers)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that the client or a proxy sent if it is well-formed, else a random one."""
    for name, value in headers:
        if name == b"x-request-id":
            sent = value[: REQUEST_ID_MAX_BYTES + 1].decode("latin-1")
            if _REQUEST_ID.fullmatch(sent) and hide_tokens(sent) == sent:
                return sent
            break
    return f"{_IDS.getrandbits(64):016x}"
