"""Settings of the web processes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from archiver.formats.packing import cores
from archiver.settings.section import Address, HttpUrl, Network, Section, SettingsError

EVERY_ADDRESS = ("0.0.0.0:", "[::]:")


class ServerSettings(Section):
    """The web processes."""

    listen: Address = Field(
        default="127.0.0.1:8010", description="Address and port of the web processes."
    )
    processes: int = Field(
        default_factory=cores,
        ge=1,
        le=256,
        description="Web processes that share `listen`.",
    )
    public_url: HttpUrl | None = Field(
        default=None,
        description="The URL that clients see; every Location is made from it. "
        "Default: http:// and `listen`, unless that is every address of the machine.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks of the proxies that are believed when they say, in X-Forwarded-For, "
        "whom they forward.",
    )
    aws_ranges: Path | None = Field(
        default=None,
        description="File with the networks of AWS's regions, as AWS publishes it: "
        "https://ip-ranges.amazonaws.com/ip-ranges.json. Read again within a minute of a change.",
    )
    google_ranges: Path | None = Field(
        default=None,
        description="File with the networks of Google's regions, as Google publishes it: "
        "https://www.gstatic.com/ipranges/cloud.json. Read again within a minute of a change.",
    )
    presigned_ttl_s: int = Field(
        default=900,
        ge=60,
        le=604_800,
        description="Seconds in which a download from a presigned URL must begin.",
    )
    retry_after_s: int = Field(
        default=3,
        ge=1,
        le=300,
        description="Seconds that a client with a 202 or 503 is asked to wait, more or less, if "
        "neither the queue nor what attempts took of late tells better.",
    )
    retry_after_max_s: int = Field(
        default=60, ge=1, le=3600, description="Seconds that it is asked to wait at most."
    )
    recheck_s: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds after which it is looked, in the background, whether the copies that "
        "the index names are still in the buckets.",
    )
    hit_ttl_s: float = Field(
        default=30,
        ge=0,
        le=300,
        description="Seconds for which a redirect is given again from memory before it is made "
        "anew, behind the backs of those who ask; it is never given for more than twice as long, "
        "and at most for half of `presigned_ttl_s`. 0: each is made anew.",
    )
    hold_s: float = Field(
        default=8,
        ge=0.1,
        le=14,
        description="Seconds that one request is held open. `wait` may be nine times as much. "
        "Many clients have a timeout of 10 s, and pip one of 15 s.",
    )
    waiters: int = Field(
        default=5000, ge=0, description="Requests that one process holds open at a time."
    )
    waiters_per_client: int = Field(
        default=500,
        ge=0,
        description="How many of them may be of one client's address, or IPv6 network of 64 bits.",
    )
    event_streams: int = Field(
        default=2000, ge=0, description="Streams of events that one process has open at a time."
    )
    event_streams_per_client: int = Field(
        default=20,
        ge=0,
        description="How many of them may be of one client's address, or IPv6 network of 64 bits.",
    )

    version_file: Path | None = Field(
        default=None,
        description="JSON file whose keys (source, version, commit, build) `/__version__` answers "
        "with, as Dockerflow has images made.",
    )

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
