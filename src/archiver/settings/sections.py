"""The sections of the configuration: each setting with its default, its bounds and its meaning."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from archiver.formats.packing import cores
from archiver.model import Limits, Served
from archiver.networks import parse_network
from archiver.telemetry import LogFormat

Suffix = Literal["tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip"]
SERVED_BY_HGWEB: tuple[Suffix, ...] = ("tar.gz", "tar.bz2", "zip")
PORT_MAX = 65_535
PARTS_MAX_BYTES = 48 << 30
EVERY_ADDRESS = ("0.0.0.0:", "[::]:")

_LISTEN = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-f:]+\]):(?P<port>\d{1,5})")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_LIMITS = Limits()


class SettingsError(Exception):
    """The configuration is not one. The text names each setting that is wrong, and why."""


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


def _address(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if not match or int(match["port"]) > PORT_MAX:
        raise ValueError("must be host:port")
    return value


def _network(value: str) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24 or 2001:db8::/32") from None


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class ServerSettings(Section):
    """The web processes."""

    listen: Address = Field(
        default="127.0.0.1:8010", description="Address and port of the web processes."
    )
    processes: int = Field(
        default_factory=cores,
        ge=1,
        le=256,
        description="Web processes that share `listen`. Default: one per core.",
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
        "anew, behind the backs of those who ask; it is never given for more than twice as long. "
        "0: each is made anew.",
    )
    hold_s: float = Field(
        default=10,
        ge=0.1,
        le=14,
        description="Seconds that one request is held open. `wait` may be eight times as much. "
        "More than 14 and pip, the first to do so, hangs up.",
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
    def _clients_can_follow(self) -> Self:
        if self.public_url is None and self.listen.startswith(EVERY_ADDRESS):
            raise ValueError("public_url: must be set if `listen` is every address of the machine")
        return self

    @property
    def url(self) -> str:
        return self.public_url or f"http://{self.listen}"

    def version(self, installed: str) -> dict[str, str]:
        """Return what is known of the version that runs, of which *installed* is the number.

        Raises:
            SettingsError: ``version_file`` cannot be read.
        """
        if self.version_file is None:
            return {"version": installed}
        try:
            known = json.loads(self.version_file.read_text())
            return {"version": installed} | {key: str(value) for key, value in known.items()}
        except (OSError, ValueError, AttributeError) as exc:
            raise SettingsError("server.version_file: is no JSON object that can be read") from exc

    @property
    def presigned_ttl(self) -> timedelta:
        return timedelta(seconds=self.presigned_ttl_s)

    @property
    def hit_ttl(self) -> timedelta:
        """How old a hit may become before it is made anew: its link keeps half of its life."""
        return min(timedelta(seconds=self.hit_ttl_s), self.presigned_ttl / 4)


class EngineSettings(Section):
    """NATS JetStream."""

    url: str | None = Field(
        default=None,
        description="NATS servers, separated by commas. None: `archiver serve` starts one.",
    )
    user: str | None = Field(default=None, description="User name for NATS.")
    password: SecretStr | None = Field(default=None, description="Password for NATS.")
    credentials_file: Path | None = Field(
        default=None,
        description="NATS credentials file (JWT and seed), instead of user and password.",
    )
    replicas: Literal[1, 3, 5] = Field(
        default=1, description="On how many servers of a cluster each stream lies."
    )
    lease_s: float = Field(
        default=20,
        ge=2,
        le=600,
        description="Seconds after which a silent worker's task is given to another one.",
    )

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(server.strip() for server in (self.url or "").split(",") if server.strip())


class RegionSettings(Section):
    """One region: one bucket."""

    bucket: str = Field(description="Name of the bucket.", min_length=3, max_length=63)
    endpoint: HttpUrl | None = Field(
        None, description="URL of an S3 server that is not AWS's. Default: AWS's in this region."
    )
    public_endpoint: HttpUrl | None = Field(
        None,
        description="URL of the same S3 server as clients reach it; links are signed for it, and "
        "nothing is sent there. Default: `endpoint`.",
    )
    aws_region: str | None = Field(
        None, description="The region to sign for. Default: the name of this region."
    )
    access_key_id: str | None = Field(
        None, description="Default: what the environment or the machine's role provides."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Goes with `access_key_id`."
    )
    virtual_hosted: bool = Field(
        default=False, description="Whether the bucket's name is part of the host's, not the path."
    )

    networks: tuple[Network, ...] = Field(
        (),
        description="Networks of the clients that are nearest to this region. "
        "Of networks that lie in one another the smallest counts. "
        "They count more than those that clouds publish.",
    )
    aws_regions: tuple[str, ...] = Field(
        (),
        description="AWS's regions that are near, besides `aws_region`: their machines are sent "
        "here, by `server.aws_ranges`.",
    )
    google_regions: tuple[str, ...] = Field(
        (),
        description="Google's regions that are near, besides the one of this name, if there is "
        "one: their machines are sent here, by `server.google_ranges`.",
    )
    nearest: tuple[str, ...] = Field(
        (),
        description="Other regions, the nearest one first: where to send who is near this one when "
        "it has no copy. Default: the order of the file.",
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self


class SourceSettings(Section):
    """One version-control host."""

    kind: Literal["hgweb"] = Field(default="hgweb", description="What the host runs.")
    url_template: str = Field(
        description="The host's archive URL, with {repo}, {rev}, {suffix} and {subdir}."
    )
    suffixes: tuple[Suffix, ...] = Field(
        default=SERVED_BY_HGWEB,
        min_length=1,
        description="Formats that the host serves. Every other one is made of the first of them.",
    )
    fetch_suffix: Suffix | None = Field(
        default=None,
        description="The one format to fetch, and only if nothing is there that an archive can be "
        "made of. None: each of `suffixes` is fetched, and kept as the host sends it.",
    )
    subdirs: bool = Field(
        default=True,
        description="Whether the host can send a part of a tree. If not, it is cut out here.",
    )
    concurrency: int = Field(
        default=8,
        ge=2,
        le=100,
        description="Attempts at a time that may use the host, in the whole fleet. "
        "A quarter is kept for low priority.",
    )
    lookup_concurrency: int = Field(
        default=2, ge=1, le=100, description="Questions at a time (lookup, known) of one process."
    )
    read_timeout_s: float = Field(
        default=120,
        gt=0,
        description="Seconds of silence after which a transfer is given up: "
        "of neither a whole head nor anything of the body.",
    )
    deadline_s: float = Field(
        default=3600, gt=0, description="Seconds that one fetch may take in all."
    )
    min_rate_bytes_s: int = Field(
        default=4096,
        ge=0,
        description="Bytes a second that the host must send while it is waited for.",
    )
    min_rate_window_s: float = Field(
        default=60,
        gt=0,
        description="Seconds of waiting over which `min_rate_bytes_s` is measured: "
        "hgweb pauses for some while it reads a large manifest.",
    )
    max_bytes: int = Field(
        default=_LIMITS.packed_bytes,
        gt=0,
        le=PARTS_MAX_BYTES,
        description="Bytes that an archive may have; no more than S3 takes in parts, 48 GiB.",
    )
    max_unpacked_bytes: int = Field(
        default=_LIMITS.unpacked_bytes,
        gt=0,
        description="Bytes that an archive may have when it is unpacked.",
    )
    max_ratio: int = Field(
        default=_LIMITS.ratio,
        gt=0,
        description="How many times as large a large archive may become when it is unpacked.",
    )
    max_members: int = Field(
        default=_LIMITS.members, gt=0, description="Members that an archive may have."
    )
    redirect_hosts: tuple[str, ...] = Field(
        (), description="Hosts besides its own to which the host may redirect."
    )
    allow_private_addresses: bool = Field(
        default=False,
        description="Whether the host's name may resolve to a private or loopback address. "
        "An address that stands in `url_template` itself may always be contacted.",
    )

    @model_validator(mode="after")
    def _template_is_whole(self) -> Self:
        url = urlsplit(self.url_template)
        if url.scheme not in {"http", "https"} or not url.hostname or {"{", "@"} & {*url.netloc}:
            raise ValueError(
                "url_template: must be an http or https URL with a fixed host, no more"
            )
        for name in ("{repo}", "{rev}", "{suffix}", *(("{subdir}",) if self.subdirs else ())):
            if self.url_template.count(name) != 1:
                raise ValueError(f"url_template: must contain {name} once")
        for host in self.redirect_hosts:
            if not _HOST.fullmatch(host):
                raise ValueError("redirect_hosts: each must be host or host:port")
        if self.subdirs and not self.url_template.endswith("/{subdir}"):
            raise ValueError("url_template: must end in /{subdir}, unless subdirs is false")
        return self

    @property
    def limits(self) -> Limits:
        return Limits(
            packed_bytes=self.max_bytes,
            unpacked_bytes=self.max_unpacked_bytes,
            ratio=self.max_ratio,
            members=self.max_members,
        )

    @property
    def served(self) -> Served:
        return Served(
            suffixes=(self.fetch_suffix,) if self.fetch_suffix else self.suffixes,
            subdirs=self.subdirs,
            verbatim=self.fetch_suffix is None,
        )


class WorkerSettings(Section):
    """Worker processes."""

    processes: int = Field(
        default=1, ge=1, le=64, description="Worker processes of `archiver serve`."
    )
    concurrency: int = Field(
        default=4, ge=1, le=100, description="Builds at a time of one process."
    )
    grace_s: float = Field(
        default=10,
        ge=0,
        description="Seconds that running builds get to end before they are handed back.",
    )
    max_failures: int = Field(
        default=5,
        ge=1,
        le=50,
        description="Failed attempts after which a retryable error is final.",
    )
    retry_base_s: float = Field(
        default=1,
        gt=0,
        le=60,
        description="Seconds before the first retry; doubles with each, up to 60.",
    )
    repair_interval_s: float = Field(
        default=30, gt=0, description="Seconds between two looks for regions that lack a copy."
    )
    work_dir: Path | None = Field(
        default=None,
        description="Folder in which zips wait to be converted. Default: `work` in `data_dir`.",
    )
    work_max_bytes: int = Field(
        default=32 << 30,
        gt=0,
        description="Bytes that may lie in `work_dir` at a time, of one process.",
    )
    compression_threads: int = Field(
        default_factory=cores,
        ge=1,
        le=256,
        description="Blocks that one process compresses at a time. Default: one per core.",
    )
    metrics_listen: Address | None = Field(
        default=None, description="Address and port on which a worker serves /metrics, if any."
    )


class LogSettings(Section):
    """The log, on standard error."""

    format: LogFormat = Field(default=LogFormat.CONSOLE, description="console, json or mozlog.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level."
    )
    hits_interval_s: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="Seconds over which hits, and misses that join a task, are told of in one line "
        "for each source. "
        "0: each has a line of its own.",
    )
