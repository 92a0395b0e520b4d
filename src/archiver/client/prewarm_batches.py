"""Sends requests in batches, and those again that a server could not take yet."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from archiver.client.api_response import LIMITS
from archiver.client.archive_request import ArchiveRequest
from archiver.client.deadline import Deadline
from archiver.client.events import Events
from archiver.client.failures import CommandFailed, RetryLater
from archiver.client.prewarm import BATCH_MAX, Prewarmed
from archiver.client.servers import Servers

NOT_REACHED = "not_reached"

NOT_YET = LIMITS | {
    *(NOT_REACHED, "too_many_waiters", "engine_full", "engine_unavailable", "source_paused")
}
"""Codes of problems that have nothing to do with the archive, and end with time."""

NOTICE_S = 30.0
"""A pause is reported if its reason is a new one, or if the last report is as old as this."""

REASONS_MAX = 3
"""In one report."""


def prewarm(
    servers: Servers, requests: Iterable[ArchiveRequest], events: Events, deadline: Deadline
) -> Iterator[Prewarmed]:
    """Yield the result of each request, unless it is sent again.

    That has no further effect at the server. Raises CommandFailed if no server takes
    batches, or at the end of the *deadline*.
    """
    waiting = [*requests]
    later: list[Prewarmed] = []
    report = _Report(events, total=len(waiting))
    while waiting or later:
        if not waiting:
            pause_s = max(result.pause_s for result in later)
            report.pause(later, pause_s)
            deadline.sleep(pause_s)
            waiting, later = [result.request for result in later], []
        report.send()
        batch, waiting = waiting[:BATCH_MAX], waiting[BATCH_MAX:]
        for result in _send(servers, batch, events, deadline):
            if result.failure and result.failure.code in NOT_YET:
                later.append(result)
            else:
                report.count(result)
                yield result


@dataclass
class _Report:
    """Reports how many of *total* requests have a result, and why the others wait."""

    events: Events
    total: int
    _accepted: int = 0
    _refused: int = 0
    _codes: Sequence[str] = ()
    _next_at: float = field(default_factory=time.monotonic)

    def count(self, result: Prewarmed) -> None:
        if result.failure:
            self._refused += 1
        else:
            self._accepted += 1

    def send(self) -> None:
        self.events.update("sending", self._accepted + self._refused, self.total)

    def pause(self, later: Sequence[Prewarmed], pause_s: float) -> None:
        self.events.update("waiting", self._accepted + self._refused, self.total)
        reasons = _reasons(later)
        codes, now = [code for code, _ in reasons], time.monotonic()
        if codes == self._codes and now < self._next_at:
            return
        self._codes, self._next_at = codes, now + NOTICE_S
        counts = [f"{self._accepted} of {self.total} stored or with a task"]
        if self._refused:
            counts.append(f"{self._refused} refused")
        counts.append(f"{len(later)} waiting")
        why = "; ".join(message for _, message in reasons)
        self.events.notice(f"{', '.join(counts)}; next try in {math.ceil(pause_s)} s: {why}")


def _reasons(later: Sequence[Prewarmed]) -> list[tuple[str, str]]:
    """Return codes and messages of these refusals, the most frequent first.

    Requests that the server did not reach come last, because others held it up.
    """
    failures = [result.failure for result in later if result.failure]
    messages = {each.code: each.message for each in failures}
    counts = Counter(each.code for each in failures)
    codes = sorted(counts, key=lambda code: (code == NOT_REACHED, -counts[code], code))
    return [(code, messages[code]) for code in codes[:REASONS_MAX]]


def _send(
    servers: Servers, batch: Sequence[ArchiveRequest], events: Events, deadline: Deadline
) -> Sequence[Prewarmed]:
    """Return the results of the first server that responds."""
    failure: CommandFailed = RetryLater("there is no server to ask")
    for client in servers:
        try:
            results = client.prewarm(batch, deadline)
        except CommandFailed as exc:  # noqa: PERF203 - a request costs more
            if not exc.elsewhere:
                raise
            failure = exc
            if len(servers) > 1:
                events.notice(exc.message)
        else:
            servers.prefer(client)
            return results
    raise failure
