"""All errors, as one tree. ``web/problems.py`` maps them to HTTP.

ArchiverError
├── InvalidRequest          invalid_request       names the parameter and the allowed values
├── Unauthenticated         unauthenticated
├── Forbidden               forbidden
├── NotFound
│   ├── UnknownSource       unknown_source
│   ├── UnknownRepo         unknown_repo
│   ├── UnknownRev          unknown_rev
│   ├── UnknownSubdir       unknown_subdir
│   ├── EmptyTree           empty_tree
│   ├── SubmoduleMissing    submodule_missing
│   └── LfsFileMissing      lfs_file_missing
├── SourceError
│   ├── SourceUnavailable   source_unavailable    retryable
│   ├── SourceTimeout       source_timeout        retryable
│   ├── SourceTooSlow       source_too_slow       retryable
│   ├── SourceBusy          source_busy           retryable, may have a retry_after
│   ├── SourcePaused        source_paused         retryable, has a retry_after
│   ├── SourceRefused       source_refused
│   ├── SuffixRefused       suffix_refused
│   ├── NotPackable         not_packable
│   ├── UnprovenArchive     unproven_archive      retryable
│   ├── ForbiddenAddress    forbidden_address
│   ├── UnsupportedHost     unsupported_host
│   ├── BadPack             bad_pack              retryable
│   ├── ShadowedNode        shadowed_node
│   ├── BadGitmodules       bad_gitmodules
│   ├── SubmoduleRefused    submodule_refused
│   ├── LfsRefused          lfs_refused
│   └── BadLfsFile          bad_lfs_file          retryable
├── BadArchive
│   ├── NotAnArchive        not_an_archive        retryable
│   ├── TruncatedArchive    truncated_archive     retryable
│   ├── IncompleteArchive   incomplete_archive    retryable
│   ├── CorruptArchive      corrupt_archive       retryable
│   ├── ArchiveTooLarge     archive_too_large
│   ├── UnsafeMember        unsafe_member
│   ├── NotConvertible      not_convertible
│   ├── BytesChanged        bytes_changed
│   ├── WrongRoot           wrong_root
│   ├── WrongNode           wrong_node            retryable
│   └── WrongTree           wrong_tree            retryable
├── MirrorFailed            mirror_failed         retryable
├── NoRoom                  no_room               retryable, ours
├── ConversionLost          conversion_lost       retryable
├── StorageUnavailable      storage_unavailable   retryable, ours
│   ├── UnreadableManifest  unreadable_manifest   retryable, not ours
│   └── PurgeUnfinished     purge_unfinished      retryable, not ours
├── PinnedArchive           pinned
├── OtherBytes              other_bytes           has the sha256 of the archive
├── EngineUnavailable       engine_unavailable    retryable, ours
│   └── EngineFull          engine_full           retryable, ours, has a retry_after
├── NoWorker                no_worker             retryable
├── TooManyWaiters          too_many_waiters      retryable, has a retry_after
├── LimitReached
│   ├── TooManyTasks        too_many_tasks        retryable, has a retry_after
│   ├── TooManyNewTasks     too_many_new_tasks    retryable, has a retry_after
│   ├── TooManyLookups      too_many_lookups      retryable, has a retry_after
│   └── QueueFull           queue_full            retryable, has a retry_after
├── TaskFailed              task_failed           has the code of the task's error
├── LeaseLost               lease_lost
├── WorkersLost             workers_lost
└── InternalError           internal_error

A message is Archiver's own text and may be shown to any client. A library's text stays in
``__cause__``.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Self, TypedDict, Unpack

URL_SHOWN_MAX_CHARS = 500
"""Of the URL of a submodule in a message. The bucket of task states has little room."""


def shown_url(url: str) -> str:
    """Return *url* for a message, cut if it is too long. A second cut changes nothing."""
    return url if len(url) <= URL_SHOWN_MAX_CHARS else f"{url[: URL_SHOWN_MAX_CHARS - 1]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOrigin:
    """Where the files of a submodule come from.

    ``path`` is that of the submodule in the archive's repo; ``url`` is the one in ``.gitmodules``,
    fit for display. ``source`` and ``repo`` are what the URL means.
    """

    path: str
    url: str
    source: str
    repo: str


class _Attributes(TypedDict, total=False):
    code: str
    retryable: bool
    ours: bool


class ArchiverError(Exception):
    """Base of the tree. ``code`` is public and stable. ``retryable`` errors may be temporary.

    ``ours`` marks an outage of Archiver's own parts, unrelated to the archive or its host. Tasks
    wait for its end, and it does not count as a failure. An error in a submodule has the
    ``origins`` of that submodule and of those around it, the outermost first: only clients that may
    read them all may learn about it. If it is known to be of one submodule, that is its ``part``.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False
    ours: ClassVar[bool] = False

    def __init_subclass__(cls, **attributes: Unpack[_Attributes]) -> None:
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.origins: tuple[PartOrigin, ...] = ()
        self.part: PartOrigin | None = None

    def within(self, *origins: PartOrigin) -> Self:
        """Return this error, which is in a submodule of these *origins*, the outermost first."""
        self.origins = (*origins, *self.origins)
        return self

    def in_part(self, *origins: PartOrigin) -> Self:
        """Return this error, which is that of the ``part`` with the last of these *origins*."""
        self.part = origins[-1]
        if self.part.path not in self.message:
            self.message = f"the submodule {self.part.path}: {self.message}"
        return self.within(*origins)

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields for a log line: the code; S3's code if S3 caused the error; its submodule."""
        part = self.part
        submodule = {"submodule": part.path, "submodule_source": part.source} if part else {}
        s3_code = {"s3_code": code} if (code := _s3_code(self)) else {}
        return {"code": self.code, **s3_code, **submodule}

    @property
    def reason(self) -> str:
        """The text for operators: the message, and S3's code if S3 caused the error."""
        code = _s3_code(self)
        return f"{self.message} ({code})" if code else self.message

    def without_frames(self) -> Self:
        """Return a copy without traceback and cause, to be stored or raised again.

        A raised error keeps alive every frame that it passed through, with their variables.
        """
        same = type(self).__new__(type(self), *self.args)
        vars(same).update(vars(self))
        return same


def _s3_code(exc: BaseException | None) -> str | None:
    """Return the first S3 code of *exc* and its causes, which may form a circle."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        if isinstance(exc, StorageUnavailable) and exc.s3_code:
            return exc.s3_code
        exc = exc.__cause__
    return None


class InvalidRequest(ArchiverError, code="invalid_request"):
    """A request that cannot be parsed. ``allowed`` describes the values of the parameter."""

    def __init__(self, message: str, *, parameter: str, allowed: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.allowed = allowed


class Unauthenticated(ArchiverError, code="unauthenticated"):
    """The credentials are missing or not valid. ``reason`` is for the log alone."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.log_reason = reason


class Forbidden(ArchiverError, code="forbidden"):
    """The client's token does not have the scope that this needs."""


class NotFound(ArchiverError):
    """The requested item does not exist, according to the host or the configuration."""


class UnknownSource(NotFound, code="unknown_source"): ...


class UnknownRepo(NotFound, code="unknown_repo"): ...


class UnknownRev(NotFound, code="unknown_rev"): ...


class UnknownSubdir(NotFound, code="unknown_subdir"): ...


class EmptyTree(NotFound, code="empty_tree"):
    """The changeset exists but has no files, so it has no archives."""


class SubmoduleMissing(NotFound, code="submodule_missing"):
    """The repository of a submodule does not have the commit that the tree around it names."""


class LfsFileMissing(NotFound, code="lfs_file_missing"):
    """The host does not have a file of Git LFS that the commit has a pointer to."""


class SourceError(ArchiverError):
    """A version-control host did not deliver."""


class SourceUnavailable(SourceError, code="source_unavailable", retryable=True): ...


class SourceTimeout(SourceError, code="source_timeout", retryable=True): ...


class SourceTooSlow(SourceError, code="source_too_slow", retryable=True):
    """The host sends below the minimum rate, which would block a worker."""


class SourceBusy(SourceError, code="source_busy", retryable=True):
    """The host is overloaded (429, 503); ``retry_after`` is the delay it requested, if any."""

    def __init__(self, message: str, *, retry_after: timedelta | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourcePaused(SourceError, code="source_paused", retryable=True):
    """The breaker of the source is open, so its host was not asked. Health checks name no delay."""

    def __init__(self, message: str, *, retry_after: timedelta | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceRefused(SourceError, code="source_refused"): ...


class SuffixRefused(SourceError, code="suffix_refused"): ...


class NotPackable(SourceError, code="not_packable"):
    """The host cannot pack this tree in this format."""


class UnprovenArchive(SourceError, code="unproven_archive", retryable=True):
    """The host does not list its files, so the completeness of an archive cannot be proven."""


class ForbiddenAddress(SourceError, code="forbidden_address"):
    """A redirect or a DNS answer led to an address that no setting allows."""


class UnsupportedHost(SourceError, code="unsupported_host"):
    """The host does not speak git's smart HTTP protocol, version 2."""


class BadPack(SourceError, code="bad_pack", retryable=True):
    """The host sent a pack that git rejects, or that lacks objects of the commit."""


class ShadowedNode(SourceError, code="shadowed_node"):
    """The first 12 digits of this node resolve to another changeset on the host."""


class BadGitmodules(SourceError, code="bad_gitmodules"):
    """The commit's ``.gitmodules`` is malformed, or has no usable URL for a submodule."""


class SubmoduleRefused(SourceError, code="submodule_refused"):
    """No source serves the URL of a submodule, or none that the client may read."""

    @classmethod
    def of(cls, path: str, url: str) -> Self:
        """Return the error for a submodule at *path* with this *url*, both fit for display."""
        return cls(
            f"the submodule {path} has the URL {shown_url(url)}, and no source that you may read "
            "serves it, or has this repository: url_template, submodule_urls and repos of a source "
            "say which URLs it serves"
        )


class LfsRefused(SourceError, code="lfs_refused"):
    """The host serves no Git LFS, or sends a client to a host that no setting allows."""


class BadLfsFile(SourceError, code="bad_lfs_file", retryable=True):
    """The host sent other bytes than the pointer of a Git LFS file names."""


class BadArchive(ArchiverError):
    """The bytes are not the whole requested archive."""


class NotAnArchive(BadArchive, code="not_an_archive", retryable=True): ...


class TruncatedArchive(BadArchive, code="truncated_archive", retryable=True): ...


class IncompleteArchive(BadArchive, code="incomplete_archive", retryable=True):
    """A well-formed archive that ends before the last file of the tree."""


class CorruptArchive(BadArchive, code="corrupt_archive", retryable=True): ...


class ArchiveTooLarge(BadArchive, code="archive_too_large"):
    """The archive exceeds a limit of its source: bytes, unpacked bytes, ratio or members."""


class UnsafeMember(BadArchive, code="unsafe_member"):
    """Extracting a member would leave the archive's root."""


class NotConvertible(BadArchive, code="not_convertible"):
    """A member cannot be represented in the requested format."""


class BytesChanged(BadArchive, code="bytes_changed"):
    """All copies are lost, and the rebuilt bytes differ from their manifest."""


class WrongRoot(BadArchive, code="wrong_root"): ...


class WrongNode(BadArchive, code="wrong_node", retryable=True): ...


class WrongTree(BadArchive, code="wrong_tree", retryable=True):
    """The archive's files are not those of its commit."""


class MirrorFailed(ArchiverError, code="mirror_failed", retryable=True):
    """Git failed on a worker's copy of the repository, which is then removed and fetched again."""


class NoRoom(ArchiverError, code="no_room", retryable=True, ours=True):
    """A worker's disk has no room: for an archive to convert, or for a repository to fetch.

    Or, if it is not *of_disk*, the worker has too many open files or processes.
    """

    def __init__(self, message: str, *, of_disk: bool = True) -> None:
        super().__init__(message)
        self.of_disk = of_disk


class ConversionLost(ArchiverError, code="conversion_lost", retryable=True):
    """The conversion process was killed, or could not be started.

    Not ``ours``: the most likely reason is that this archive needs too much memory.
    """


class StorageUnavailable(ArchiverError, code="storage_unavailable", retryable=True, ours=True):
    """A region failed. ``s3_code`` is S3's code for the reason, if known.

    Health checks, worker reports and the log show the code. Responses to clients do not.
    """

    def __init__(self, message: str, *, s3_code: str | None = None) -> None:
        super().__init__(message)
        self.s3_code = s3_code


class UnreadableManifest(StorageUnavailable, code="unreadable_manifest", ours=False):
    """A region's manifest of this archive is invalid, and no region has a valid one.

    Not ``ours``: other archives are not affected, so tasks do not wait for the end of an outage.
    """


class PurgeUnfinished(StorageUnavailable, code="purge_unfinished", ours=False):
    """A purge of this archive has begun and has not ended; ``purge`` is its id.

    Not ``ours``, as for UnreadableManifest.
    """

    def __init__(self, message: str, *, purge: str = "") -> None:
        super().__init__(message)
        self.purge = purge


class PinnedArchive(ArchiverError, code="pinned"):
    """The archive has a pin, so it is not purged."""


class OtherBytes(ArchiverError, code="other_bytes"):
    """The archive has other bytes than the client asked for; ``sha256`` is theirs."""

    def __init__(self, message: str, *, sha256: str) -> None:
        super().__init__(message)
        self.sha256 = sha256


class EngineUnavailable(ArchiverError, code="engine_unavailable", retryable=True, ours=True): ...


class EngineFull(EngineUnavailable, code="engine_full"):
    """The engine works, but a stream or its server is at a limit, and nothing new is stored."""

    retry_after = timedelta(seconds=30)


class NoWorker(ArchiverError, code="no_worker", retryable=True):
    """No worker responds, so tasks wait. Only health checks report it."""


class TooManyWaiters(ArchiverError, code="too_many_waiters", retryable=True):
    """A limit on waiting requests is reached. ``retry_after`` is the delay to suggest."""

    def __init__(self, message: str, *, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LimitReached(ArchiverError):
    """A limit does not allow another lookup or task now.

    ``policy`` names the limit, *quota* is its value, per ``window`` if there is one. *retry_after*
    is the time until the next window, or a delay to suggest.
    """

    policy: ClassVar[str]
    window: ClassVar[timedelta | None] = None

    def __init__(self, message: str, *, quota: int, retry_after: timedelta) -> None:
        super().__init__(message)
        self.quota = quota
        self.retry_after = retry_after


class TooManyTasks(LimitReached, code="too_many_tasks", retryable=True):
    """Too many tasks of the client have not ended."""

    policy = "open-tasks"


class TooManyNewTasks(LimitReached, code="too_many_new_tasks", retryable=True):
    """The client has had too many tasks created within a minute."""

    policy = "tasks"
    window = timedelta(minutes=1)


class TooManyLookups(LimitReached, code="too_many_lookups", retryable=True):
    """The client has caused too many lookups within a minute."""

    policy = "lookups"
    window = timedelta(minutes=1)


class QueueFull(LimitReached, code="queue_full", retryable=True):
    """Too many tasks of all clients wait for the source."""

    policy = "queue"


class TaskFailed(ArchiverError, code="task_failed"):
    """The archive's task recently failed for good; ``failed_with`` is the code of its error."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.failed_with = code


class LeaseLost(ArchiverError, code="lease_lost"):
    """Another worker holds the task now. This attempt must end without a report."""


class WorkersLost(ArchiverError, code="workers_lost"):
    """Every worker that claimed the task vanished. It is not handed out again."""


class InternalError(ArchiverError, code="internal_error"):
    """A bug in Archiver. The log has the details."""
