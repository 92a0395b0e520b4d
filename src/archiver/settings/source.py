"""Settings of one version-control host."""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from archiver.model import Limits
from archiver.ports.source import ServedFormats
from archiver.settings.section import CaFile, Section, require_plain_http

Suffix = Literal["tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip"]
SERVED_BY_HGWEB: tuple[Suffix, ...] = ("tar.gz", "tar.bz2", "zip")

MULTIPART_MAX_BYTES = 48 << 30

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_LIMITS = Limits()


class SourceSettings(Section):
    """One version-control host."""

    kind: Literal["hgweb"] = "hgweb"
    """Software of the host."""
    url_template: str
    """The host's archive URL, with {repo}, {rev}, {suffix} and {subdir}."""
    suffixes: tuple[Suffix, ...] = Field(default=SERVED_BY_HGWEB, min_length=1)
    """Formats that the host serves. Other formats are converted from the first of them."""
    fetch_suffix: Suffix | None = None
    """The only format to fetch, and only if no stored archive can be converted. If not set, each of
    `suffixes` is fetched, and stored as the host sends it. For hg.mozilla.org: `zip`.
    """
    subdirs: bool = True
    """Whether the host can send a part of a tree. If not, Archiver extracts the part."""
    concurrency: int = Field(default=8, ge=2, le=100)
    """Attempts of the whole fleet that may use the host at a time. A quarter is reserved for low
    priority.
    """
    lookup_concurrency: int = Field(default=2, ge=1, le=100)
    """Lookups that one process may send at a time. A worker may list half as many folders besides,
    and at least one.
    """
    read_timeout_s: float = Field(default=120, gt=0)
    """Seconds of silence after which a transfer fails: neither complete response headers nor any
    bytes of the body.
    """
    deadline_s: float = Field(default=3600, gt=0)
    """Seconds that one fetch may take."""
    min_rate_bytes_s: int = Field(default=4096, ge=0)
    """Bytes per second that the host must send while Archiver waits for it."""
    min_rate_window_s: float = Field(default=60, gt=0)
    """Seconds of waiting over which `min_rate_bytes_s` is measured. hgweb pauses while it reads a
    large manifest.
    """
    max_bytes: int = Field(default=_LIMITS.packed_bytes, gt=0, le=MULTIPART_MAX_BYTES)
    """Largest size of an archive in bytes. 48 GiB is the most that S3 takes in parts."""
    max_unpacked_bytes: int = Field(default=_LIMITS.unpacked_bytes, gt=0)
    """Largest unpacked size of an archive in bytes."""
    max_ratio: int = Field(default=_LIMITS.ratio, gt=0)
    """Largest ratio of unpacked to packed size. It applies above 256 MiB unpacked."""
    max_members: int = Field(default=_LIMITS.members, gt=0)
    """Largest number of members of an archive."""
    completeness: Literal["verify", "trust"] = "verify"
    """How to detect that the host cut an archive off, because such a zip may be valid. `verify`:
    ask the host for the last file of each archive, and reject an archive that is not proven
    complete. `trust`: do not ask.
    """
    links: Literal["serve", "refuse"] = "serve"
    """Whether to `serve` archives that have absolute symbolic links or links above the root, and
    count these links, or to `refuse` such archives. Applies to later fetches.
    """
    redirect_hosts: tuple[str, ...] = ()
    """Other hosts to which the host may redirect."""
    ca_file: CaFile | None = None
    """PEM file with certificate authorities to trust besides the system's, for this host and
    `redirect_hosts`.
    """
    allow_private_addresses: bool = False
    """Whether the host's name may resolve to a private or loopback address. An address in
    `url_template` itself is always allowed.
    """

    @model_validator(mode="after")
    def _require_complete_template(self) -> Self:
        try:
            require_plain_http(self.url_template)
        except ValueError as exc:
            raise ValueError(f"url_template: {exc}") from None
        if "{" in urlsplit(self.url_template).netloc:
            raise ValueError("url_template: must have a fixed host")
        for name in ("{repo}", "{rev}", "{suffix}", *(("{subdir}",) if self.subdirs else ())):
            if self.url_template.count(name) != 1:
                raise ValueError(f"url_template: must contain {name} exactly once")
        for host in self.redirect_hosts:
            if not _HOST.fullmatch(host):
                raise ValueError("redirect_hosts: must be a list of host or host:port")
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
    def served(self) -> ServedFormats:
        return ServedFormats(
            suffixes=(self.fetch_suffix,) if self.fetch_suffix else self.suffixes,
            subdirs=self.subdirs,
            verbatim=self.fetch_suffix is None,
            fallback=self.suffixes,
        )
