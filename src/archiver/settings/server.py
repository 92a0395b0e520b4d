"""Settings of the web processes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from archiver.formats.compression.compress import available_cores
from archiver.settings.section import Address, HttpUrl, Network, Section, SettingsError

EVERY_ADDRESS = ("0.0.0.0:", "[::]:")


class ServerSettings(Section):
    """The web processes."""

    listen: Address = "127.0.0.1:8010"
    """Address and port of the web processes."""
    processes: int = Field(default_factory=available_cores, ge=1, le=256)
    """Number of web processes that share `listen`."""
    public_url: HttpUrl | None = None
    """URL at which clients reach Archiver; every Location begins with it. Default: http:// and
    `listen`. Required if `listen` is every address of the machine.
    """
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies whose X-Forwarded-For header is trusted."""
    aws_ranges: Path | None = None
    """File with the networks of AWS's regions, as published at
    https://ip-ranges.amazonaws.com/ip-ranges.json. Reloaded within a minute of a change.
    """
    google_ranges: Path | None = None
    """File with the networks of Google's regions, as published at
    https://www.gstatic.com/ipranges/cloud.json. Reloaded within a minute of a change.
    """
    presigned_ttl_s: int = Field(default=900, ge=60, le=604_800)
    """Lifetime of a presigned URL in seconds: a download must begin within it."""
    retry_after_s: int = Field(default=3, ge=1, le=300)
    """Seconds in the `Retry-After` of a 202 or 503, with some variation, if neither the queue nor
    recent attempts give an estimate.
    """
    retry_after_max_s: int = Field(default=60, ge=1, le=3600)
    """Largest `Retry-After` in seconds."""
    recheck_s: float = Field(default=600, gt=0, le=86_400)
    """Seconds between background checks that the indexed copies of an archive still exist."""
    hit_ttl_s: float = Field(default=30, ge=0, le=300)
    """Seconds for which a redirect is repeated from memory. An older one is renewed in the
    background. It is never used for more than twice as long, or for more than half of
    `presigned_ttl_s`. 0: redirects are not remembered.
    """
    hold_s: float = Field(default=8, ge=0.1, le=14)
    """Seconds for which one request is held open. `wait` may be nine times as long. Many clients
    time out after 10 s, and pip after 15 s.
    """
    waiters: int = Field(default=5000, ge=0)
    """Requests that one web process may hold open at a time."""
    waiters_per_client: int = Field(default=500, ge=0)
    """Requests that one web process may hold open at a time for one client, which is an address or
    an IPv6 network of 64 bits.
    """
    event_streams: int = Field(default=2000, ge=0)
    """Event streams that one web process may have open at a time."""
    event_streams_per_client: int = Field(default=20, ge=0)
    """Event streams that one web process may have open at a time for one client, which is an
    address or an IPv6 network of 64 bits.
    """

    version_file: Path | None = None
    """JSON file with the keys of `/__version__` (source, version, commit, build), as in
    Dockerflow's images.
    """

    @model_validator(mode="after")
    def _require_public_url(self) -> Self:
        if self.public_url is None and self.listen.startswith(EVERY_ADDRESS):
            raise ValueError("public_url: is required if `listen` is every address of the machine")
        return self

    @property
    def url(self) -> str:
        return self.public_url or f"http://{self.listen}"

    def version(self, installed: str) -> dict[str, str]:
        """Return the body of `/__version__`; *installed* is the version of the package.

        Raises:
            SettingsError: ``version_file`` cannot be read.
        """
        if self.version_file is None:
            return {"version": installed}
        try:
            known = json.loads(self.version_file.read_text())
            return {"version": installed} | {key: str(value) for key, value in known.items()}
        except (OSError, ValueError, AttributeError) as exc:
            raise SettingsError("server.version_file: must be a readable JSON object") from exc

    @property
    def presigned_ttl(self) -> timedelta:
        return timedelta(seconds=self.presigned_ttl_s)

    @property
    def hit_ttl(self) -> timedelta:
        """Age at which a remembered hit is renewed. At twice this age, its link is still valid."""
        return min(timedelta(seconds=self.hit_ttl_s), self.presigned_ttl / 4)
