"""Settings of the processes: web processes, workers, and the log of all."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from archiver.runtime.threads import available_cores
from archiver.settings.section import Address, HttpUrl, Network, Section, SettingsError
from archiver.telemetry import LogFormat

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
    metrics_listen: Address | None = None
    """Address and port for the metrics of the web processes, without access control, instead of
    `/metrics` at `listen`.
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
    avoid_failing_regions: bool = True
    """Whether new redirects avoid a region that Archiver itself cannot reach, if another one has a
    copy.
    """
    hold_s: float = Field(default=8, ge=0.1, le=14)
    """Seconds for which one request is held open. `wait` may be nine times as long. Many clients
    time out after 10 s, and pip after 15 s.
    """
    waiters: int = Field(default=5000, ge=0)
    """Requests that one web process may hold open at a time."""
    waiters_per_client: int = Field(default=500, ge=0)
    """Requests that one web process may hold open at a time for one client, as `limits` count them.
    """
    event_streams: int = Field(default=2000, ge=0)
    """Event streams that one web process may have open at a time."""
    event_streams_per_client: int = Field(default=20, ge=0)
    """Event streams that one web process may have open at a time for one client, as `limits` count
    them.
    """
    connections_per_client: int = Field(default=1000, ge=0)
    """Connections that one web process may have open for one address or IPv6 network of 64 bits,
    but no more than half of all that it accepts. Those of `trusted_proxies` do not count. 0: no
    limit. Only on Linux.
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

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def version(self, installed: str) -> dict[str, str]:
        """Return the body of `/__version__`. Raises SettingsError for a bad ``version_file``."""
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


class WorkerSettings(Section):
    """Worker processes."""

    processes: int = Field(default=1, ge=1, le=64)
    """Number of worker processes of `archiver serve`."""
    concurrency: int = Field(default=4, ge=1, le=100)
    """Builds that one process runs at a time."""
    grace_s: float = Field(default=10, ge=0)
    """Seconds for running builds to finish when a worker stops. Then, or after a second signal,
    their tasks are handed back.
    """
    max_failures: int = Field(default=5, ge=1, le=50)
    """Number of failed attempts after which a retryable error is final."""
    retry_base_s: float = Field(default=1, gt=0, le=60)
    """Seconds before the first retry. The delay doubles with each retry, up to 60 s."""
    repair_interval_s: float = Field(default=30, gt=0)
    """Seconds between searches for archives that lack a copy in a region."""
    work_dir: Path | None = None
    """Folder for zips that wait for their conversion. 256 MiB of its disk stay free. Default:
    `work` in `data_dir`.
    """
    work_max_bytes: int = Field(default=32 << 30, gt=0)
    """Bytes that one process may use in `work_dir`."""
    compression_threads: int = Field(default_factory=available_cores, ge=1, le=256)
    """Blocks that one conversion compresses at a time."""
    sources: tuple[str, ...] = ()
    """Names of the sources whose tasks this worker claims. If empty, all."""
    mirror_dir: Path | None = None
    """Folder for mirrors: local copies of the repositories of git hosts, which all worker processes
    of a machine share, and for files of Git LFS. 256 MiB of its disk stay free. Default: `mirrors`
    in `data_dir`.
    """
    mirror_max_bytes: int = Field(default=32 << 30, ge=1 << 30)
    """Bytes that all mirrors may use, at least 1 GiB. The mirrors that were not used for the
    longest time are removed first.
    """
    lfs_max_bytes: int = Field(default=20 << 30, ge=1 << 30)
    """Bytes that all files of Git LFS in `mirror_dir` may use, at least 1 GiB, and so the most that
    one archive may have. The files that were not used for the longest time are removed first.
    """
    metrics_listen: Address | Literal["off"] | None = None
    """Address and port at which a worker serves /metrics and Dockerflow's routes. Default: the
    first free port from 8011 to 8030 of 127.0.0.1, which `worker.started` names in the log. `off`:
    nowhere. The workers of `archiver serve` need none: its web processes report the metrics of all
    processes.
    """


class LogSettings(Section):
    """The log, on standard error."""

    format: LogFormat = LogFormat.CONSOLE
    """`console`, `json` or `mozlog`."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level to log."""
    hits_interval_s: float = Field(default=10, ge=0, le=3600)
    """Seconds over which hits, and misses that join a task, are counted in one line per source. 0:
    one line per request.
    """
