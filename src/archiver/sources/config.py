"""Configuration of one source."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from archiver.ports.source import ServedFormats


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """How to reach a host, and what it serves.

    ``kind`` names the adapter. ``deadline`` and the minimum rate apply to the transfer of an
    archive; a transfer also fails after ``read_timeout`` without a whole head or any byte of the
    body. A ``trusted`` host is not asked for the last file of an archive.
    """

    kind: str
    name: str
    url_template: str
    served: ServedFormats
    lookup_concurrency: int
    read_timeout: timedelta
    deadline: timedelta
    user_agent: str
    min_rate_bytes_s: int = 0
    min_rate_window: timedelta = timedelta(minutes=1)
    redirect_hosts: tuple[str, ...] = ()
    allow_private_addresses: bool = False
    ca_file: Path | None = None
    trusted: bool = False
