"""Settings of the other sections: each with its default, its bounds and its meaning."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from archiver.formats.compression.compress import available_cores
from archiver.settings.section import Address, CaFile, HttpUrl, Network, Section
from archiver.telemetry import LogFormat


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
    ca_file: CaFile | None = Field(
        default=None,
        description="PEM file with authorities to trust besides the system's, for `endpoint`.",
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
        description="Folder in which zips wait to be converted. 256 MiB of its disk stay free. "
        "Default: `work` in `data_dir`.",
    )
    work_max_bytes: int = Field(
        default=32 << 30,
        gt=0,
        description="Bytes that may lie in `work_dir` at a time, of one process.",
    )
    compression_threads: int = Field(
        default_factory=available_cores,
        ge=1,
        le=256,
        description="Blocks that one conversion compresses at a time.",
    )
    metrics_listen: Address | None = Field(
        default=None,
        description="Address and port on which a worker serves /metrics and Dockerflow's routes, "
        "if any. `archiver serve` needs none: its web processes report on all processes.",
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
