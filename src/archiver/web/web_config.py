"""The configuration of a web process, as its handlers need it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from archiver import __version__
from archiver.web.client_address import ClientResolver
from archiver.web.waiting.waiters import WaitLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """``public_url``, without a slash at its end, starts every URL of the service in a response.

    The Host header of a request has no influence on URLs. ``version`` is the body of
    ``/__version__``. Hits are repeated from memory for ``hit_ttl``, and logged in one line per
    ``hits_log_interval``.
    """

    public_url: str
    retry_after_s: int
    retry_after_max_s: int = 60
    clients: ClientResolver = field(default_factory=ClientResolver)
    hit_ttl: timedelta = timedelta(seconds=30)
    hits_log_interval: timedelta = timedelta(seconds=10)
    wait_limits: WaitLimits = field(default_factory=WaitLimits)
    version: Mapping[str, str] = field(default_factory=lambda: {"version": __version__})
