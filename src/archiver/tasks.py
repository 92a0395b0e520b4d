"""Tasks: the state of a build, and the length of a queue."""

from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from archiver.errors import ArchiverError, InternalError, PartOrigin, SubmoduleRefused, shown_url
from archiver.model import Archive
from archiver.record_versions import is_word
from archiver.tree_proof import MayRead, first_hidden


class TaskState(StrEnum):
    """States named as in Celery, which clients of the original service know."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"

    @property
    def terminal(self) -> bool:
        return self in {TaskState.SUCCESS, TaskState.FAILURE}


class Phase(StrEnum):
    """The current step of an attempt. One of a later release is read as CONNECTING."""

    QUEUED = "queued"
    CONNECTING = "connecting"
    FETCHING = "fetching"
    CONVERTING = "converting"
    COMMITTING = "committing"
    COPYING = "copying"
    WAITING = "waiting"
    DONE = "done"

    @classmethod
    def _missing_(cls, value: object) -> "Phase | None":
        return cls.CONNECTING if is_word(value) else None


class Priority(StrEnum):
    """The lane of a task.

    Clients' tasks have the first two. Tasks that need no host have the last: repairs, and archives
    that are made of stored ones while the host is away.
    """

    HIGH = "hi"
    MIDDLE = "mid"
    LOW = "lo"


class Urgency(StrEnum):
    """Why a client causes a task: its archive is requested now, or may be later."""

    NOW = "now"
    LATER = "later"
    """The task is deferred: it waits while its source has other tasks."""

    ANNOUNCED = "announced"
    """As LATER. The host itself has announced the changeset, so it is there, or soon will be."""


LIGHT_MAX = 4
"""A client with fewer open tasks is light: its next task is of high priority."""

PROMOTED_WITHIN = timedelta(minutes=1)
"""In this time, a client's open tasks and the tasks of others that are built sooner because it has
joined them are together at most LIGHT_MAX."""

TURNS = (*(Priority.HIGH,) * 3, Priority.MIDDLE, *(Priority.HIGH,) * 3, Priority.LOW)
"""Two tasks in eight that a worker takes are of the other priorities, so that those go on while the
worker is busy."""


def preferred(taken: int) -> Priority:
    """Return the priority of a worker's next task, after *taken* ones, if one of it waits."""
    return TURNS[taken % len(TURNS)]


ORIGINS_MAX = 256
ORIGINS_MAX_BYTES = 40 << 10
"""Of the origins of a failure, which may be those of all submodules of an archive."""


def _size(origin: PartOrigin) -> int:
    """Return the size of *origin* in a record, some more than that of its texts."""
    return 100 + sum(len(text.encode()) for text in astuple(origin))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed: a code of ``errors.py`` and a message.

    ``origins`` are those of the error, at most ORIGINS_MAX: see ``ArchiverError``. Their URLs are
    as in messages.
    """

    code: str
    message: str
    origins: tuple[PartOrigin, ...] = ()

    @classmethod
    def of(cls, error: ArchiverError) -> "Failure":
        """Return the failure by *error*: an empty one if its origins do not fit into a record."""
        origins = tuple(replace(each, url=shown_url(each.url)) for each in error.origins)
        if len(origins) > ORIGINS_MAX or sum(map(_size, origins)) > ORIGINS_MAX_BYTES:
            return cls(
                code=InternalError.code,
                message="the archive has too many submodules to say who may know its failure",
            )
        return cls(code=error.code, message=error.message, origins=origins)

    @classmethod
    def refusal(cls, hidden: PartOrigin) -> "Failure":
        """Return the failure for clients that may not read a part: no source serves its URL."""
        return cls.of(SubmoduleRefused.of(hidden.path, hidden.url))

    def first_hidden(self, may_read: MayRead) -> PartOrigin | None:
        """Return the first of its origins that a client may not read, if any."""
        return first_hidden(self.origins, may_read)

    def as_seen_by(self, may_read: MayRead) -> "Failure":
        """Return the failure as a client may know it."""
        hidden = self.first_hidden(may_read)
        return self if hidden is None else Failure.refusal(hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The state of "build this archive".

    ``attempt`` is the number of the latest attempt, from 1. ``failures`` counts failed attempts.
    """

    archive: Archive
    state: TaskState
    phase: Phase
    bytes_done: int = 0
    attempt: int = 0
    failures: int = 0
    error: Failure | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The waiting and running tasks of a source.

    ``mean`` is the recent mean duration of builds that clients may have waited for, if any. If the
    task in question is ``parked``, another client that joins it may have it built earlier.
    """

    waiting: int
    running: int
    mean: timedelta | None = None
    parked: bool = False

    def estimate_wait(self, default_mean: timedelta) -> timedelta:
        """Return the time until the last task is done. *default_mean* is used without a ``mean``.

        Tasks wait only while all workers are busy, so the number of running tasks stays the same.
        """
        before = max(0, self.waiting - 1)
        return (self.mean or default_mean) * (1 + before / max(1, self.running))
