"""Settings of the worker processes."""

from pathlib import Path

from pydantic import Field

from archiver.formats.packing import cores
from archiver.settings.section import Address, Section


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
        default_factory=cores,
        ge=1,
        le=256,
        description="Blocks that one conversion compresses at a time.",
    )
    metrics_listen: Address | None = Field(
        default=None,
        description="Address and port on which a worker serves /metrics and Dockerflow's routes, "
        "if any. `archiver serve` needs none: its web processes report on all processes.",
    )
