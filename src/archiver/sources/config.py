"""Configuration of one source."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from archiver.access.patterns import RepoFilter
from archiver.model import Limits
from archiver.ports.source import ServedFormats


class Attributes(StrEnum):
    """Whether the ``.gitattributes`` of a commit change its archives, as they do on most hosts."""

    HONOUR = "honour"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitConfig:
    """How archives of a git host are made.

    ``root_template`` names the root directory, with {basename}, {repo}, {node} and {node12}.
    ``archive_url_template`` is the host's own archive URL, with {repo}, {node}, {suffix} and
    {subdir}; empty if it has none. With ``reachable``, a node must be that of a ref.

    Submodules come only from ``repos`` of a source, by its URL template and by those in
    ``submodule_urls``. An archive has at most ``max_submodules``, so deep inside each other.
    ``open`` is whether everybody may read all of ``repos``.
    {subdir}; empty if it has none. With ``reachable``, a node must be that of a ref. ``lfs_hosts``
    are hosts besides its own from which files of Git LFS come.
    """

    root_template: str = "{basename}-{node}"
    archive_url_template: str = ""
    attributes: Attributes = Attributes.HONOUR
    reachable: bool = False
    repos: RepoFilter = field(default_factory=RepoFilter)
    open: bool = True
    submodule_urls: tuple[str, ...] = ()
    max_submodules: int = 500
    max_submodule_depth: int = 10
    lfs_hosts: tuple[str, ...] = ()


_LIMITS = Limits()
_GIT = GitConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """How to reach a host, and what it serves.

    ``kind`` names the adapter. ``deadline`` and the minimum rate apply to the transfer of an
    archive; a transfer also fails after ``read_timeout`` without a whole head or any byte of the
    body. A ``trusted`` host is not asked for the last file of an archive. ``authorization`` is the
    value of that header, a secret that only the host of ``url_template`` receives.
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
    limits: Limits = _LIMITS
    authorization: str = field(default="", repr=False)
    git: GitConfig = _GIT
