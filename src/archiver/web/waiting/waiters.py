"""The requests of a process that wait for an archive or follow its task."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

from starlette.responses import Response
from starlette.types import Receive

from archiver.errors import TaskFailed
from archiver.model import Archive, Ready
from archiver.service import Archiver
from archiver.tasks import TaskState
from archiver.telemetry import METRICS
from archiver.web.waiting.admission import Admission, WaitLimits
from archiver.web.waiting.task_watch import TaskWatch, TaskWatches, Variant, open_task_watches
from archiver.web.waiting.wake import Wake, departure_of, pause

LAST_HOLD_S = 1.0
"""How long requests are held by a process that is about to end."""


class Waiters:
    """Admits requests that wait, and event streams, to the watches of their archives."""

    def __init__(
        self, *, watches: TaskWatches, admission: Admission, stream_admission: Admission
    ) -> None:
        self._watches = watches
        self._admission = admission
        self._stream_admission = stream_admission

    async def wait_for_archive(
        self,
        archive: Archive,
        variant: Variant,
        *,
        render: Callable[[Ready], Response],
        timeout_s: float,
        client: str,
        receive: Receive,
    ) -> Response | Wake:
        """Return the response once *archive* is there, else why the wait ended.

        Other clients with the same variant get the same response object.

        Raises:
            TaskFailed: The archive's task has failed for good.
            TooManyWaiters: No more requests may wait.
        """
        with self.watch(archive, client) as watch:
            if watch.closing:
                timeout_s = min(timeout_s, LAST_HOLD_S)
            with departure_of(receive) as departure:
                wake = await pause(watch.until_end, timeout_s, departure)
            if wake is not Wake.CHANGED:
                return wake
            _raise_failure(watch)
            return await watch.response(variant, render) or Wake.TIMEOUT

    def close(self) -> None:
        """End all waits: the process is about to end."""
        self._watches.close()

    @contextmanager
    def watch(self, archive: Archive, client: str) -> Iterator[TaskWatch]:
        """Yield the watch of *archive*. Raises TooManyWaiters."""
        with self._admission.admit(client), self._watches.watch(archive) as watch:
            yield watch

    @contextmanager
    def stream(self, archive: Archive, client: str) -> Iterator[TaskWatch]:
        """Yield the watch of *archive*, for an event stream. Raises TooManyWaiters."""
        with self._stream_admission.admit(client), self._watches.watch(archive) as watch:
            yield watch


def _raise_failure(watch: TaskWatch) -> None:
    task = watch.status.task if watch.status else None
    if task and task.state is TaskState.FAILURE:
        code, message = (
            (task.error.code, task.error.message)
            if task.error
            else ("internal_error", "the task failed for an unknown reason")
        )
        raise TaskFailed(message, code=code)


@asynccontextmanager
async def open_waiters(archiver: Archiver, limits: WaitLimits) -> AsyncIterator[Waiters]:
    """Yield the waiters of a process that is starting."""
    retry_within = timedelta(seconds=limits.hold_s)
    async with open_task_watches(archiver) as watches:
        yield Waiters(
            watches=watches,
            admission=Admission(
                total=limits.waiters,
                per_client=limits.waiters_per_client,
                retry_within=retry_within,
                gauge=METRICS.waiters,
            ),
            stream_admission=Admission(
                total=limits.event_streams,
                per_client=limits.event_streams_per_client,
                retry_within=retry_within,
                gauge=METRICS.event_streams,
            ),
        )
