"""Settings of the worker processes."""

from pathlib import Path

from pydantic import Field

from archiver.formats.compression.compress import available_cores
from archiver.settings.section import Address, Section


class WorkerSettings(Section):
    """Worker processes."""

    processes: int = Field(default=1, ge=1, le=64)
    """Number of worker processes of `archiver serve`."""
    concurrency: int = Field(default=4, ge=1, le=100)
    """Builds that one process runs at a time."""
    grace_s: float = Field(default=10, ge=0)
    """Seconds for running builds to finish when a worker stops. Then their tasks are handed back.
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
    metrics_listen: Address | None = None
    """Address and port at which a worker serves /metrics and Dockerflow's routes. Not needed with
    `archiver serve`, whose web processes report the metrics of all processes.
    """
