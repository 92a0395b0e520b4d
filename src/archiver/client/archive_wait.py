"""Locates an archive, and waits until it is built."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.client.api_client import ApiClient
from archiver.client.api_response import Accepted, Located, TaskStatus
from archiver.client.deadline import Deadline
from archiver.client.events import Events
from archiver.client.failures import LimitReached, Unfinished
from archiver.client.task_wait import POLL_MIN_S, wait_for_task


@dataclass(frozen=True)
class ArchiveWait:
    """Waits until the *deadline*, but no longer than *wait_s* for archives that are not there."""

    client: ApiClient
    events: Events
    deadline: Deadline
    wait_s: float | None

    def locate(self, url: str) -> tuple[Located, bool]:
        """Return where the archive of *url* is, and whether its task had to end first.

        Raises:
            Unfinished: The archive is still being built.
            LimitReached: A limit does not allow it yet.
            RetryLater: The server does not respond, or is busy.
            CommandFailed: Archiver cannot build it.
        """
        waited, deadline, limit = False, self.deadline, None
        while not isinstance(location := self._try_locate(url, deadline), Located):
            if deadline is self.deadline and self.wait_s is not None:
                deadline = Deadline(self.wait_s, self._unfinished(), within=self.deadline)
            if isinstance(location, LimitReached):
                if limit is None:
                    self.events.notice(f"{location.message}; waiting")
                limit = location
                if not waited and deadline is not self.deadline:
                    deadline.failure = limit
                deadline.sleep(limit.pause_s)
                continue
            if deadline is not self.deadline:
                deadline.failure = self._unfinished()
            if waited:
                deadline.sleep(POLL_MIN_S)
            waited = True
            wait_for_task(self.client, location, self._report, deadline)
        return location, waited

    def _unfinished(self) -> Unfinished:
        return Unfinished(f"the archive is still being built after {self.wait_s:g} s")

    def _report(self, status: TaskStatus) -> None:
        self.events.update(status.phase or status.state, status.bytes_done)

    def _try_locate(self, url: str, deadline: Deadline) -> Located | Accepted | LimitReached:
        try:
            return self.client.locate(url, deadline)
        except LimitReached as exc:
            return exc
