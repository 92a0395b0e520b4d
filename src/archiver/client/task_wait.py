"""Waits for the end of a task, across short outages of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from archiver.client.api_client import ApiClient
from archiver.client.api_response import POLL_MAX_S, Accepted, Located, TaskStatus
from archiver.client.deadline import Deadline
from archiver.client.failures import (
    CommandFailed,
    Declined,
    InvalidUsage,
    NoResponse,
    NotArchiver,
    RetryLater,
    WrongBytes,
)
from archiver.client.text import origin

POLL_MIN_S = 0.2
POLL_GROWTH = 1.5
OUTAGE_MAX_S = 60.0
"""How long to poll a server that no longer responds: it may be restarting."""


def wait_for_task(
    client: ApiClient,
    accepted: Accepted,
    report: Callable[[TaskStatus], None],
    deadline: Deadline,
) -> None:
    """Return when the archive may be requested again; call *report* with each status.

    That is when the task has succeeded. An Archiver that is down for less than a minute is polled
    again. It may have lost the task, so the archive is requested again once it is back. The caller
    sets the deadline.

    Raises:
        RetryLater: Archiver is down, or its status URL is unreachable.
        CommandFailed: The task failed, or something other than Archiver serves the status URL.
    """
    delay_s, status, was_down = POLL_MIN_S, None, False
    responded_at = time.monotonic() if _has_responded(accepted) else None
    while True:
        last = status
        try:
            status = _next_status(client, accepted.status_url, last, deadline)
        except CommandFailed as exc:
            status = None
            was_down |= not isinstance(exc, Declined)
            responded_at = _require_retryable(exc, accepted, responded_at, now=time.monotonic())
        else:
            responded_at = time.monotonic()
            report(status)
            status.raise_if_failed()
            if status.ended:
                return
            if was_down and accepted.requested_url:
                with suppress(RetryLater):
                    if _has_another_task(client, accepted, deadline):
                        return
                    was_down = False
            if status.etag and status is not last:
                continue
        deadline.sleep(delay_s)
        longest_s = max(POLL_MIN_S, min(accepted.retry_after_s, POLL_MAX_S))
        delay_s = min(POLL_GROWTH * delay_s, longest_s)


def _has_another_task(client: ApiClient, accepted: Accepted, deadline: Deadline) -> bool:
    """Request the archive again; return whether it exists, or another task builds it."""
    response = client.locate(accepted.requested_url or "", deadline)
    return isinstance(response, Located) or response.status_url != accepted.status_url


def _next_status(
    client: ApiClient, status_url: str, last: TaskStatus | None, deadline: Deadline
) -> TaskStatus:
    """Return the status, after its next change if the server supports that."""
    if last and last.etag:
        return client.wait_for_change(status_url, last, deadline=deadline)
    return client.fetch_status(status_url, deadline)


def _has_responded(accepted: Accepted) -> bool:
    """Return whether the server of the status URL is the one that accepted the request."""
    requested = accepted.requested_url
    return requested is not None and origin(requested) == origin(accepted.status_url)


def _require_retryable(
    exc: CommandFailed, accepted: Accepted, responded_at: float | None, *, now: float
) -> float:
    """Return when Archiver last responded. Raises *exc* if the poll is not worth repeating."""
    if isinstance(exc, WrongBytes):
        raise exc
    is_archiver = responded_at is not None or not accepted.requested_url
    if isinstance(exc, Declined) or (is_archiver and type(exc) is RetryLater):
        return now
    if responded_at is None:
        kind = NoResponse if isinstance(exc, NoResponse) else NotArchiver
        hint = exc.hint if isinstance(exc, InvalidUsage) else ""
        raise kind(_explain_unreachable(accepted, exc), hint=hint) from exc
    if isinstance(exc, NoResponse) and now - responded_at <= OUTAGE_MAX_S:
        return responded_at
    raise exc


def _explain_unreachable(accepted: Accepted, exc: CommandFailed) -> str:
    """Return what is wrong with a status URL that never returned a status."""
    if not accepted.requested_url:
        return exc.message
    return (
        f"{origin(accepted.status_url)} returns no status ({exc.message}). "
        f"{origin(accepted.requested_url)} sends its clients there: its setting "
        "server.public_url must be a URL that clients can reach"
    )
