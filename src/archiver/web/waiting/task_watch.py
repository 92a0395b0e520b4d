"""The task of an archive that clients wait for: read once per change, for all of them."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive

from archiver.access.access import Principal
from archiver.errors import (
    ArchiverError,
    EngineUnavailable,
    InternalError,
    TaskFailed,
)
from archiver.model import Archive, ArchiveRequest, Ready, Region
from archiver.service import Archiver
from archiver.status import Status
from archiver.tasks import Failure, Task, TaskState
from archiver.telemetry import describe, log
from archiver.tree_proof import MayRead, everything
from archiver.web.waiting.wake import (
    Departure,
    Sleepers,
    Wake,
    departure_of,
    pause,
    wake_all,
)

JITTER = 0.2
"""Spreads the polls of watches that were notified together."""

LAST_HOLD_S = 1.0
"""How long requests are held by a process that is about to end."""


class Variant(NamedTuple):
    """The properties of a waiting request that its response depends on, beside the archive."""

    archive_request: ArchiveRequest
    url: str
    sha256: str | None
    client_region: Region | None
    principal: Principal


class TaskWatch:
    """One archive and its task, as this process last read them.

    The first reading sets ``status``. ``version`` counts the changes. ``failure`` is why the last
    reading failed. ``status`` shows everything: a client gets ``seen_by``.
    """

    def __init__(self, *, archiver: Archiver, archive: Archive, poll_interval: timedelta) -> None:
        self._archiver = archiver
        self._archive = archive
        self._poll_interval = poll_interval
        self._responses: dict[Variant, Response] = {}
        self._renderings: dict[Failure | None, bytes] = {}
        self.version = 0
        self.status: Status | None = None
        self.failure: ArchiverError | None = None
        self.until_change: Sleepers = set()
        self.until_end: Sleepers = set()
        self.users = 0
        self.closing = False
        self.following: asyncio.Task[None]

    @property
    def ended(self) -> bool:
        return self.status is not None and self.status.ended

    def seen_by(self, may_read: MayRead) -> Status | None:
        """Return the status as a client may know it now; None before the first reading."""
        return self.status.as_seen_by(may_read) if self.status else None

    async def follow(self) -> None:
        """Read the status at each notification, and regularly, until the task has ended."""
        with self._archiver.notifications.listen(self._archive.key_hash) as listener:
            notified = True
            while True:
                await self._refresh(notified=notified)
                if self.ended:
                    return
                jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads a crowd
                notified = await listener.wait(self._poll_interval * jitter)

    async def _refresh(self, *, notified: bool) -> None:
        try:
            status = await self._read_status(notified=notified)
        except ArchiverError as exc:
            log.debug("watch.blind", code=exc.code, cause=describe(exc))
            self._set_failure(exc)
        except Exception:  # noqa: BLE001 - the waiting clients, and other watches, go on
            log.exception("watch.broken", key=self._archive.key)
            self._set_failure(InternalError("Archiver failed; see its log"))
        else:
            self.failure = None
            self._set_status(status)

    async def _read_status(self, *, notified: bool) -> Status:
        """Return the status. Without a notification, reading the task alone may be enough.

        A failure is read twice. While the buckets were read, another client may have created a new
        task, and the failure of the old task must not end the wait for the new one.
        """
        if not notified and self.status and (current := await self._read_task(self.status)):
            return current
        status = await self._archiver.status(self._archive, may_read=everything)
        if status.task.state is TaskState.FAILURE:
            return await self._read_task(status) or status
        return status

    async def _read_task(self, known: Status) -> Status | None:
        """Return *known* with the task as it is now; None if the task has ended or is unknown.

        The end of a task follows its commit. Before that, index and buckets have not changed.
        """
        try:
            task = await self._archiver.task(self._archive)
        except EngineUnavailable:
            return None
        if task is None or task.state.terminal:
            return None
        return replace(known, task=task)

    def close(self) -> None:
        """Stop reading, and end all pauses: the process is about to end."""
        self.closing = True
        self.following.cancel()
        for sleepers in (self.until_change, self.until_end):
            wake_all(sleepers, Wake.TIMEOUT)

    def _set_failure(self, failure: ArchiverError) -> None:
        self.failure = failure.without_frames()
        if self.status is None:
            wake_all(self.until_change)

    def _set_status(self, status: Status) -> None:
        if self.status and comparable(self.status) == comparable(status):
            return
        known, self.status = self.status, status
        self.version += 1
        self._renderings.clear()
        if self.ended or _fails_in_part(known, status):
            wake_all(self.until_end)
        wake_all(self.until_change)

    def render_once(self, render: Callable[[Status], bytes], seen: Status) -> bytes:
        """Return what *render*, always the same, makes of the status that ``seen_by`` has returned.

        It is called once for each version of the status, and for each part that is hidden from a
        client: the error then names the part.
        """
        error = seen.task.error
        if error not in self._renderings:
            self._renderings[error] = render(seen)
        return self._renderings[error]

    async def wait_for_status(self, timeout_s: float, departure: Departure) -> Wake:
        """Return when there is a status, or when the client has left.

        Raises ArchiverError if the status cannot be read, or not in time.
        """
        wake = Wake.CHANGED
        if self.status is None and self.failure is None:
            wake = await pause(self.until_change, timeout_s, departure)
        if self.status is None and wake is not Wake.CLIENT_LEFT:
            if self.failure:
                raise self.failure.without_frames()
            raise EngineUnavailable("the engine takes too long to answer")
        return wake

    async def wait_for_change(self, since: int, timeout_s: float, departure: Departure) -> Wake:
        """Return when ``version`` exceeds *since*, when time is up, or when the client has left."""
        if self.version > since:
            return Wake.CHANGED
        return await pause(self.until_change, timeout_s, departure)

    async def wait_for_response(
        self,
        variant: Variant,
        render: Callable[[Ready], Response],
        *,
        may_read: MayRead,
        timeout_s: float,
        receive: Receive,
    ) -> Response | Wake:
        """Return what *render* makes of the archive once it is there, else why the wait ended.

        All requests of one variant get the same response object. Raises TaskFailed.
        """
        if self.closing:
            timeout_s = min(timeout_s, LAST_HOLD_S)
        ended = await self._wait_for_end(may_read, timeout_s, receive)
        if isinstance(ended, Wake):
            return ended
        _require_success(ended)
        if variant not in self._responses:
            found = await self._archiver.request(
                replace(variant.archive_request, rev=self._archive.node),
                may_read=may_read,
                create=False,
                share=False,
                client="",  # a node needs no question to the host
                client_region=variant.client_region,
            )
            if not isinstance(found, Ready):
                return Wake.TIMEOUT
            _require_success(self.seen_by(may_read))  # its token may have been removed meanwhile
            self._responses[variant] = render(found)
        return self._responses[variant]

    async def _wait_for_end(
        self, may_read: MayRead, timeout_s: float, receive: Receive
    ) -> Status | Wake:
        """Return the status once the task has ended for the client, or why the wait ended."""
        until = time.monotonic() + timeout_s
        with departure_of(receive) as departure:
            while True:
                status = self.seen_by(may_read)
                if status and status.ended:
                    return status
                left_s = max(0.0, until - time.monotonic())
                wake = await pause(self.until_end, left_s, departure)
                if wake is not Wake.CHANGED:
                    return wake


def _fails_in_part(known: Status | None, status: Status) -> bool:
    """Return whether there is a new error in a part: to some clients, it is the end."""
    error = status.task.error
    return bool(error and error.origins) and (known is None or known.task.error != error)


def _require_success(status: Status | None) -> None:
    if status and status.task.state is TaskState.FAILURE:
        raise _task_failed(status.task)


def _task_failed(task: Task) -> TaskFailed:
    if task.error:
        return TaskFailed(task.error.message, code=task.error.code)
    return TaskFailed("the task failed for an unknown reason", code="internal_error")


def comparable(status: Status) -> tuple[object, ...]:
    """Return the parts of a status that make a change: not its URLs, signed at each reading."""
    return status.task, status.copies, status.missing, status.pinned
