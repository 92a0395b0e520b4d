"""Everything that can go wrong, as one tree. No HTTP in it: ``web/problems.py`` maps it.

ArchiverError
├── InvalidRequest          invalid_request       names the parameter and what it may be
├── NotFound
│   ├── UnknownSource       unknown_source
│   ├── UnknownRepo         unknown_repo
│   ├── UnknownRev          unknown_rev
│   ├── UnknownSubdir       unknown_subdir
│   └── EmptyTree           empty_tree
├── SourceError
│   ├── SourceUnavailable   source_unavailable    retryable
│   ├── SourceTimeout       source_timeout        retryable
│   ├── SourceTooSlow       source_too_slow       retryable
│   ├── SourceBusy          source_busy           retryable, may say after how long
│   ├── SourceRefused       source_refused
│   ├── SuffixRefused       suffix_refused
│   ├── NotPackable         not_packable
│   ├── UnprovenArchive     unproven_archive      retryable
│   ├── ForbiddenAddress    forbidden_address
│   └── ShadowedNode        shadowed_node
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
│   └── WrongNode           wrong_node            retryable
├── NoRoom                  no_room               retryable, ours
├── ConversionLost          conversion_lost       retryable
├── StorageUnavailable      storage_unavailable   retryable, ours
│   └── UnreadableManifest  unreadable_manifest   retryable, not ours
├── EngineUnavailable       engine_unavailable    retryable, ours
├── NoWorker                no_worker             retryable
├── TooManyWaiters          too_many_waiters      retryable, says after how long
├── TaskFailed              task_failed           says what the task failed with
├── LeaseLost               lease_lost
├── WorkersLost             workers_lost
└── InternalError           internal_error

A message is our own text and may be shown to anyone. What a library said stays in ``__cause__``.
"""

from datetime import timedelta
from typing import ClassVar, Self


class ArchiverError(Exception):
    """Base of the tree. ``code`` is public and stable; ``retryable`` says whether to try again.

    ``ours`` marks an outage of Archiver's own parts. It says nothing about the archive or its host,
    so a task waits for its end and no failure is counted.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False
    ours: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def log_fields(self) -> dict[str, str]:
        """What a line of the log says of it: its code and, if S3 gave the reason, S3's code."""
        return {"code": self.code} | ({"s3_code": code} if (code := _s3_code(self)) else {})

    @property
    def reason(self) -> str:
        """What an operator reads of it: its message and, if S3 gave the reason, S3's code."""
        code = _s3_code(self)
        return f"{self.message} ({code})" if code else self.message

    def without_frames(self) -> Self:
        """Return the same error without frames or causes: to be kept, or raised more than once.

        An error that was raised holds every frame that it went through, with all that is in them.
        """
        same = type(self).__new__(type(self), *self.args)
        vars(same).update(vars(self))
        return same


def _s3_code(exc: BaseException | None) -> str | None:
    """Return the first code of S3 among *exc* and its causes."""
    while exc is not None:
        if isinstance(exc, StorageUnavailable) and exc.s3_code:
            return exc.s3_code
        exc = exc.__cause__
    return None


class InvalidRequest(ArchiverError):
    """The text is not a request. ``allowed`` says what the parameter may be."""

    code = "invalid_request"

    def __init__(self, message: str, *, parameter: str, allowed: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.allowed = allowed


class NotFound(ArchiverError):
    """What was asked for does not exist, on the word of the one who would know."""


class UnknownSource(NotFound):
    code = "unknown_source"


class UnknownRepo(NotFound):
    code = "unknown_repo"


class UnknownRev(NotFound):
    code = "unknown_rev"


class UnknownSubdir(NotFound):
    code = "unknown_subdir"


class EmptyTree(NotFound):
    """The changeset exists and has no files, so no archive of it can."""

    code = "empty_tree"


class SourceError(ArchiverError):
    """A version-control host did not give what it was asked for."""


class SourceUnavailable(SourceError):
    code = "source_unavailable"
    retryable = True


class SourceTimeout(SourceError):
    code = "source_timeout"
    retryable = True


class SourceTooSlow(SourceError):
    """The host sends, but so little at a time that it would hold a worker for ever."""

    code = "source_too_slow"
    retryable = True


class SourceBusy(SourceError):
    """The host asks to be left alone (429, 503), for ``retry_after`` if it said how long."""

    code = "source_busy"
    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceRefused(SourceError):
    code = "source_refused"


class SuffixRefused(SourceError):
    code = "suffix_refused"


class NotPackable(SourceError):
    """The host's own packer has no words for something in this tree, in this format."""

    code = "not_packable"


class UnprovenArchive(SourceError):
    """The host does not list its files, so that nothing proves an archive to be complete."""

    code = "unproven_archive"
    retryable = True


class ForbiddenAddress(SourceError):
    """A redirect or a DNS answer led to a place that no setting names."""

    code = "forbidden_address"


class ShadowedNode(SourceError):
    """On the host, the 12-digit name of this node means another changeset."""

    code = "shadowed_node"


class BadArchive(ArchiverError):
    """The host's bytes are not the whole archive that was asked for."""


class NotAnArchive(BadArchive):
    code = "not_an_archive"
    retryable = True


class TruncatedArchive(BadArchive):
    code = "truncated_archive"
    retryable = True


class IncompleteArchive(BadArchive):
    """A sound archive that ends before the tree does."""

    code = "incomplete_archive"
    retryable = True


class CorruptArchive(BadArchive):
    code = "corrupt_archive"
    retryable = True


class ArchiveTooLarge(BadArchive):
    """It has more bytes, packed or unpacked, or more members, than its source's limits allow."""

    code = "archive_too_large"


class UnsafeMember(BadArchive):
    """A member would lead whoever extracts it out of the archive's root."""

    code = "unsafe_member"


class NotConvertible(BadArchive):
    """It has something that the wanted format has no words for."""

    code = "not_convertible"


class BytesChanged(BadArchive):
    """Every copy was lost, and what could replace them is not what their manifest promises."""

    code = "bytes_changed"


class WrongRoot(BadArchive):
    code = "wrong_root"


class WrongNode(BadArchive):
    code = "wrong_node"
    retryable = True


class NoRoom(ArchiverError):
    """A worker's working directory has no room for an archive that is to be converted."""

    code = "no_room"
    retryable = True
    ours = True


class ConversionLost(ArchiverError):
    """The process that was to convert an archive was killed, or could not be started.

    Not ``ours``: the likeliest reason is that this very archive needs too much memory.
    """

    code = "conversion_lost"
    retryable = True


class StorageUnavailable(ArchiverError):
    """A region did not do what it was asked to. ``s3_code`` is its reason, if it is known.

    Health checks, workers' reports and the log show it; answers to clients do not.
    """

    code = "storage_unavailable"
    retryable = True
    ours = True

    def __init__(self, message: str, *, s3_code: str | None = None) -> None:
        super().__init__(message)
        self.s3_code = s3_code


class UnreadableManifest(StorageUnavailable):
    """A region answers, and its manifest of this archive cannot be believed; no region has another.

    Not ``ours``: the other archives are stored and given out, so this one must not wait for long.
    """

    code = "unreadable_manifest"
    ours = False


class EngineUnavailable(ArchiverError):
    code = "engine_unavailable"
    retryable = True
    ours = True


class NoWorker(ArchiverError):
    """No worker answers, so that tasks wait. Only health checks report it."""

    code = "no_worker"
    retryable = True


class TooManyWaiters(ArchiverError):
    """As many requests are held open as may be. Whoever comes back later may find room."""

    code = "too_many_waiters"
    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TaskFailed(ArchiverError):
    """The archive's task failed for good a moment ago, with this code."""

    code = "task_failed"

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.failed_with = code


class LeaseLost(ArchiverError):
    """Another worker holds the task now; this attempt must end and say nothing."""

    code = "lease_lost"


class WorkersLost(ArchiverError):
    """Every worker that took the task vanished; it is not given to another one."""

    code = "workers_lost"


class InternalError(ArchiverError):
    """A fault of Archiver itself. Its details are in the log."""

    code = "internal_error"
