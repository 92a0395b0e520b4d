"""Tasks: how far the building of an archive is, and how many wait for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from archiver.model import Archive


class TaskState(StrEnum):
    """Celery's names, which the clients of the original service know."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"

    @property
    def terminal(self) -> bool:
        return self in {TaskState.SUCCESS, TaskState.FAILURE}


class Phase(StrEnum):
    """What an attempt is busy with."""

    QUEUED = "queued"
    CONNECTING = "connecting"
    FETCHING = "fetching"
    CONVERTING = "converting"
    COMMITTING = "committing"
    COPYING = "copying"
    WAITING = "waiting"
    DONE = "done"


class Priority(StrEnum):
    HIGH = "hi"
    LOW = "lo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt ended without an archive: a code of ``errors.py`` and a text for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How far "build this archive" is.

    ``attempt`` counts runs by workers from 1; ``failures`` those of them that ended in an error.
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
    """How much of a source is asked for and not there: tasks that wait, and that are begun.

    ``mean`` is how long it took of late to make what clients may have waited for, if any was made.
    """

    waiting: int
    running: int
    mean: timedelta | None = None

    def estimate_wait(self, mean: timedelta) -> timedelta:
        """Return when the last of them will be done; *mean* is for want of a better one.

        Tasks wait because all who could work on them do, so as many run at a time as run now.
        """
        before = max(0, self.waiting - 1)
        return (self.mean or mean) * (1 + before / max(1, self.running))
