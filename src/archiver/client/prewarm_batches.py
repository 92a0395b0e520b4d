"""Sends requests in batches, and those again that a server could not take yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from archiver.client.api_response import LIMITS
from archiver.client.archive_request import ArchiveRequest
from archiver.client.deadline import Deadline
from archiver.client.events import Events
from archiver.client.failures import CommandFailed, RetryLater
from archiver.client.prewarm import BATCH_MAX, Prewarmed
from archiver.client.servers import Servers

NOT_YET = LIMITS | {
    *("not_reached", "too_many_waiters", "engine_full", "engine_unavailable", "source_paused")
}
"""Codes of problems that have nothing to do with the archive, and end with time."""

LONG_PAUSE_S = 10.0
"""Each is reported. Shorter ones are, if their reason is a new one."""


def prewarm(
    servers: Servers, requests: Iterable[ArchiveRequest], events: Events, deadline: Deadline
) -> Iterator[Prewarmed]:
    """Yield the result of each request, unless it is sent again.

    That has no further effect at the server. Raises CommandFailed if no server takes
    batches, or at the end of the *deadline*.
    """
    waiting = [*requests]
    later: list[Prewarmed] = []
    total, told = len(waiting), ""
    while waiting or later:
        if not waiting:
            pause_s, reason = max(result.pause_s for result in later), _reason(later)
            if reason != told or pause_s >= LONG_PAUSE_S:
                events.notice(f"{len(later)} of {total} wait for {pause_s:.0f} s: {reason}")
                told = reason
            deadline.sleep(pause_s)
            waiting, later = [result.request for result in later], []
        batch, waiting = waiting[:BATCH_MAX], waiting[BATCH_MAX:]
        for result in _send(servers, batch, events, deadline):
            if result.failure and result.failure.code in NOT_YET:
                later.append(result)
            else:
                yield result


def _reason(later: Sequence[Prewarmed]) -> str:
    """Return why most of these requests have to wait, in the words of the server."""
    messages = Counter(result.failure.message for result in later if result.failure)
    return messages.most_common(1)[0][0]


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
