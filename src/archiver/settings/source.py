"""Settings of one version-control host."""

import re
from base64 import b64encode
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from archiver.model import Limits
from archiver.ports.source import ServedFormats
from archiver.settings.section import CaFile, Pattern, Section, SettingsError, require_plain_http
from archiver.sources.git.complete.submodule_url import RepoTemplate

Suffix = Literal["tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip"]
SERVED_BY_HGWEB: tuple[Suffix, ...] = ("tar.gz", "tar.bz2", "zip")

MULTIPART_MAX_BYTES = 48 << 30

TOKEN_FILE_MAX_BYTES = 8 << 10
"""Twice the longest token, so that white space around it does no harm."""

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_LIMITS = Limits()

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_ROOT = re.compile(r"[A-Za-z0-9._+{}-]{1,200}")
_TOKEN = re.compile(r"[!-~]{1,4096}")
_USER = re.compile(r"[!-9;-~]{1,255}")

_HGWEB_ONLY = frozenset({"suffixes", "fetch_suffix", "subdirs", "completeness"})
_GIT_ONLY = frozenset(
    {
        *("archive_url_template", "root", "attributes", "reachable", "lfs_hosts"),
        *("submodule_urls", "submodule_concurrency", "max_submodules", "max_submodule_depth"),
        *("token", "token_file", "token_user"),
    }
)


class SourceSettings(Section):
    """One version-control host."""

    kind: Literal["hgweb", "git"] = "hgweb"
    """`hgweb`, or `git` for every host that serves git's smart HTTP protocol, version 2."""
    url_template: str
    """`hgweb`: the host's archive URL, with {repo}, {rev}, {suffix} and {subdir}. `git`: the URL of
    a repository, with {repo}, from which git would clone.
    """
    archive_url_template: str | None = None
    """`git`: the host's own URL of archives, with {repo}, {node} and {suffix}, and {subdir} if it
    serves parts of a tree. Clients are sent there only with `on_miss=redirect`.
    """
    root: str = "{basename}-{node}"
    """`git`: name of an archive's root directory, with {basename}, {repo}, {node} or {node12}. A
    slash in {repo} becomes a hyphen. Changes apply to later archives.
    """
    attributes: Literal["honour", "ignore"] = "honour"
    """`git`: whether the `.gitattributes` of a commit change its archives (`export-ignore`,
    `export-subst`, `eol` and others), as on most hosts. With `ignore`, archives have exactly the
    files of the commit. Changes apply to later archives.
    """
    reachable: bool = False
    """`git`: whether a full commit id must be that of a branch or a tag. Hosts such as GitHub also
    return commits of forks.
    """
    submodule_urls: tuple[str, ...] = ()
    """`git`: further URLs with {repo} by which submodules may name repositories of this host, such
    as `ssh://git@ssh.example.com:2222/{repo}.git` or `git@git.example.com:{repo}`. Nothing is ever
    sent there. URLs of the host of `url_template` need no entry, with any protocol and user.
    """
    max_submodules: int = Field(default=500, ge=1, le=10_000)
    """`git`: submodules that an archive may have, all in all."""
    max_submodule_depth: int = Field(default=10, ge=1, le=50)
    """`git`: how deep these submodules may be inside each other."""
    token: SecretStr | None = None
    """`git`: password or access token, sent to the host of `url_template` only."""
    token_file: Path | None = None
    """`git`: file with the token, read when a process starts."""
    token_user: str = "x-access-token"  # noqa: S105 - a user name, not a secret
    """`git`: user name that goes with the token. Most hosts accept any."""
    private: bool = False
    """Whether nothing of this source is shown to clients without a token that covers it, not even
    that it exists.
    """
    anonymous: Literal["none", "read", "create"] | None = None
    """Permission of clients without credentials for this source, instead of `access.anonymous`."""
    repos: tuple[Pattern, ...] = ("*",)
    """Patterns of the repos that are served; `*` includes slashes. To everybody, other repos seem
    not to exist.
    """
    repos_denied: tuple[Pattern, ...] = ()
    """Patterns of repos that are not served although `repos` has them. Case, and `.git` at the end,
    make no difference.
    """
    suffixes: tuple[Suffix, ...] = Field(default=SERVED_BY_HGWEB, min_length=1)
    """`hgweb`: formats that the host serves. Other formats are converted from the first of them."""
    fetch_suffix: Suffix | None = None
    """`hgweb`: the only format to fetch, and only if no stored archive can be converted. If not
    set, each of `suffixes` is fetched, and stored as the host sends it. For hg.mozilla.org: `zip`.
    """
    subdirs: bool = True
    """`hgweb`: whether the host can send a part of a tree. If not, Archiver extracts the part."""
    concurrency: int = Field(default=8, ge=3, le=100)
    """Attempts of the whole fleet that may use the host at a time. A quarter is reserved for
    clients with few tasks, and a quarter for low priority.
    """
    submodule_concurrency: int = Field(default=4, ge=1, le=100)
    """`git`: fetches of submodules that the whole fleet may send to this host at a time, beside
    `concurrency`. Each may download four LFS files at a time.
    """
    queue_max: int = Field(default=10_000, ge=1)
    """Tasks of clients that may wait for the host. The last tenth is kept for clients with few
    tasks.
    """
    lookup_concurrency: int = Field(default=2, ge=1, le=100)
    """Lookups that one process may send at a time. A worker may list half as many folders besides,
    and at least one.
    """
    breaker_failures: int = Field(default=10, ge=0, le=1000)
    """Consecutive failures of the host, anywhere in the fleet, after which it is not asked for a
    while: see [Paused sources](../what-happens-when.md#paused-sources). 0: only when the host asks
    for a pause.
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
    """`hgweb`: how to detect that the host cut an archive off, because such a zip may be valid.
    `verify`: ask the host for the last file of each archive, and reject an archive that is not
    proven complete. `trust`: do not ask.
    """
    links: Literal["serve", "refuse"] = "serve"
    """Whether to `serve` archives that have absolute symbolic links or links above the root, and
    count these links, or to `refuse` such archives. Applies to later fetches.
    """
    redirect_hosts: tuple[str, ...] = ()
    """Other hosts to which the host may redirect."""
    lfs_hosts: tuple[str, ...] = ()
    """`git`: other hosts from which files of Git LFS may come, as `host` or `host:port`, such as
    the object storage of the forge. They must use https, unless `url_template` is http.
    """
    ca_file: CaFile | None = None
    """PEM file with certificate authorities to trust besides the system's, for this host,
    `redirect_hosts` and `lfs_hosts`.
    """
    allow_private_addresses: bool = False
    """Whether the host's name may resolve to a private or loopback address. An address in
    `url_template` itself is always allowed, and so is `localhost`.
    """

    @model_validator(mode="after")
    def _require_valid_templates(self) -> Self:
        if self.kind == "git" and not _HTTP.match(self.url_template):
            raise ValueError("url_template: use the https URL of the repository; SSH does not work")
        _require_fixed_host("url_template", self.url_template)
        if self.kind == "git":
            self._require_git_templates()
        else:
            self._require_hgweb_template()
        return self

    def _require_hgweb_template(self) -> None:
        for name in ("{repo}", "{rev}", "{suffix}", *(("{subdir}",) if self.subdirs else ())):
            if self.url_template.count(name) != 1:
                raise ValueError(f"url_template: must contain {name} exactly once")
        if self.subdirs and not self.url_template.endswith("/{subdir}"):
            raise ValueError("url_template: must end in /{subdir}, unless subdirs is false")

    def _require_git_templates(self) -> None:
        if _PLACEHOLDER.findall(self.url_template) != ["{repo}"]:
            raise ValueError("url_template: must contain {repo} exactly once, and no other braces")
        if "?" in self.url_template or "#" in self.url_template:
            raise ValueError("url_template: must be the URL of a repository, without a query")
        if template := self.archive_url_template:
            _require_fixed_host("archive_url_template", template)
            names = _PLACEHOLDER.findall(template)
            required = {"{repo}", "{node}", "{suffix}"}
            if not required <= set(names) <= required | {"{subdir}", "{basename}"}:
                raise ValueError(
                    "archive_url_template: must contain {repo}, {node} and {suffix}, and may "
                    "contain {basename} and {subdir}"
                )
        for name in self.submodule_urls:
            self._require_submodule_url(name)
        names = _PLACEHOLDER.findall(self.root)
        if not _ROOT.fullmatch(self.root) or self.root.startswith("."):
            raise ValueError("root: must consist of letters, digits, . _ + - and placeholders")
        if not set(names) <= {"{basename}", "{repo}", "{node}", "{node12}"}:
            raise ValueError("root: may contain {basename}, {repo}, {node} and {node12}")

    @staticmethod
    def _require_submodule_url(template: str) -> None:
        if _PLACEHOLDER.findall(template) != ["{repo}"]:
            raise ValueError("submodule_urls: must contain {repo} exactly once, no other braces")
        try:
            RepoTemplate(template, any_protocol=False)
        except ValueError as exc:
            raise ValueError(f"submodule_urls: {exc}") from None

    @model_validator(mode="after")
    def _require_valid_hosts(self) -> Self:
        for name in ("redirect_hosts", "lfs_hosts"):
            if not all(map(_HOST.fullmatch, getattr(self, name))):
                raise ValueError(f"{name}: must be a list of host or host:port")
        return self

    @model_validator(mode="after")
    def _require_settings_of_kind(self) -> Self:
        kind = "hgweb" if self.kind == "git" else "git"
        fields = type(self).model_fields
        for name in sorted(self.settings_of_other_kinds & self.model_fields_set):
            if getattr(self, name) != fields[name].default:
                raise ValueError(f'{name}: applies only to kind = "{kind}"')
        return self

    @model_validator(mode="after")
    def _require_consistent_access(self) -> Self:
        if self.private and self.anonymous not in {None, "none"}:
            raise ValueError("anonymous: must not be set for a private source")
        return self

    @property
    def settings_of_other_kinds(self) -> frozenset[str]:
        """The names of the settings that do not apply to this source."""
        return _HGWEB_ONLY if self.kind == "git" else _GIT_ONLY

    @model_validator(mode="after")
    def _require_valid_token(self) -> Self:
        if self.token and self.token_file:
            raise ValueError("token_file: must not be set together with token")
        if self.token and not _TOKEN.fullmatch(self.token.get_secret_value()):
            raise ValueError("token: must be 1 to 4096 printable ASCII characters without spaces")
        if not _USER.fullmatch(self.token_user):
            raise ValueError("token_user: must be printable ASCII without spaces and colons")
        if self.token_file or self.token:
            self._require_safe_transport()
        return self

    def _require_safe_transport(self) -> None:
        url = urlsplit(self.url_template.replace("{repo}", "repo"))
        if url.scheme != "https" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise ValueError("url_template: must be https, because a token is sent there")

    def read_authorization(self, name: str) -> str:
        """Return the value of the Authorization header of the source *name*; empty without a token.

        Reads ``token_file``. Raises SettingsError if it has no token.
        """
        try:
            token = self._read_token()
        except ValueError as exc:
            raise SettingsError(f"sources.{name}.token_file: {exc}") from None
        if not token:
            return ""
        return "Basic " + b64encode(f"{self.token_user}:{token}".encode()).decode()

    def _read_token(self) -> str:
        """Return the token, if any. Raises ValueError, whose text has nothing of the file."""
        if self.token:
            return self.token.get_secret_value()
        if not self.token_file:
            return ""
        try:
            with self.token_file.open("rb") as file:
                token = file.read(TOKEN_FILE_MAX_BYTES + 1)
        except OSError as exc:
            raise ValueError(f"cannot be read: {exc.strerror}") from None
        text = token.decode("latin-1").strip()
        if len(token) > TOKEN_FILE_MAX_BYTES or not _TOKEN.fullmatch(text):
            raise ValueError("must contain one token and nothing else")
        return text

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
        if self.kind == "git":
            return ServedFormats(suffixes=("tar",), verbatim=False, parts_of_whole=False)
        return ServedFormats(
            suffixes=(self.fetch_suffix,) if self.fetch_suffix else self.suffixes,
            subdirs=self.subdirs,
            verbatim=self.fetch_suffix is None,
            fallback=self.suffixes,
        )


def _require_fixed_host(name: str, template: str) -> None:
    try:
        require_plain_http(template)
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from None
    if "{" in urlsplit(template).netloc:
        raise ValueError(f"{name}: must have a fixed host")
