"""``/archiver/status/{task_id}/events``: the progress of a task as server-sent events."""

import asyncio
import json
import re
import time
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from archiver.model import Archive
from archiver.status import Status
from archiver.tasks import TaskState
from archiver.web.api.status import find_archive, render
from archiver.web.problems import problem
from archiver.web.reply import NO_CONTENT, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query
from archiver.web.waiting.task_watch import TaskWatch
from archiver.web.waiting.wake import Departure, Wake, departure_of

RETRY_MS = 3000
HEARTBEAT_S = 15.0
"""Half of the idle timeout of common proxies and phone networks."""

FIRST_STATUS_S = 10.0
SEND_S = 30.0
"""A client that takes no bytes for this long counts as gone."""

STREAM_S = 3600.0
"""A browser reconnects by itself, and sends the id of the last event."""

NO_ID = -2
"""Less than all other ids, and even: its client has not seen the end of the task."""

_ID = re.compile(r"[0-9]{1,16}")


async def get_events(context: RequestContext) -> Reply:
    """Send the status of the task now and at each change, until the task has ended."""
    parse_query(context.query, known=())
    archive = find_archive(context, context.parameters["task_id"])
    if archive is None:
        return problem(context, "no_such_task", "no task has this id")
    last_id = context.header(b"last-event-id")
    stream = EventStream(context, archive, int(last_id) if _ID.fullmatch(last_id) else NO_ID)
    return Reply(response=stream)


class EventStream(Response):
    """The stream of one client.

    An id is twice the time of the last change in ms, plus 1 if the task has ended. Ids grow, and
    mean the same in every process.
    """

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(self, context: RequestContext, archive: Archive, last_id: int) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._context = context
        self._archive = archive
        self._last_id = last_id
        self._has_sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waiters, client = self._context.state.waiters, self._context.share_holder
        with (
            waiters.watch(self._archive, client, stream=True) as watch,
            departure_of(receive) as departure,
        ):
            if await watch.wait_for_status(FIRST_STATUS_S, departure) is Wake.CLIENT_LEFT:
                return
            if self._end_was_sent(watch):
                self.status_code = NO_CONTENT  # a browser does not reconnect after it
            if self._end_was_sent(watch) or scope["method"] == "HEAD":
                await super().__call__(scope, receive, send)
            else:
                with suppress(TimeoutError):
                    await self._stream(watch, departure, send)

    def _end_was_sent(self, watch: TaskWatch) -> bool:
        """Return whether the client has seen the end of the task, and reconnected nevertheless."""
        status = watch.seen_by(self._context.may_read)
        return status is not None and status.ended and self._last_id % 2 == 1

    async def _stream(self, watch: TaskWatch, departure: Departure, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await _send(send, f"retry: {RETRY_MS}\n\n".encode())
        until, version = time.monotonic() + STREAM_S, 0
        while time.monotonic() < until:
            wake = await watch.wait_for_change(version, HEARTBEAT_S, departure)
            if not self._is_readable():  # its token was removed, or has expired
                break
            status = watch.seen_by(self._context.may_read)
            match wake:
                case Wake.CHANGED:
                    assert status  # noqa: S101 - for mypy
                    version = watch.version
                    await self._send_event(watch, status, send)
                case Wake.TIMEOUT:
                    await _send(send, b":\n\n")
                case Wake.CLIENT_LEFT:
                    return
            has_ended = status is not None and status.ended
            if (has_ended and version == watch.version) or watch.closing:
                break
        await send({"type": "http.response.body", "body": b""})

    def _is_readable(self) -> bool:
        return self._context.may_read(self._archive.source, self._archive.repo)

    async def _send_event(self, watch: TaskWatch, status: Status, send: Send) -> None:
        event_id = _event_id(status)
        if self._has_sent or event_id != self._last_id:  # else another process has sent it
            self._last_id = max(event_id, _next_id(self._last_id, ended=status.ended))
            event = watch.render_once(_render_event, status)
            await _send(send, b"id: %d\n%b" % (self._last_id, event))
        self._has_sent = True


def _event_id(status: Status) -> int:
    at = status.task.updated_at or status.task.created_at
    return 2 * (round(at.timestamp() * 1000) if at else 0) + status.ended


def _next_id(last: int, *, ended: bool) -> int:
    """Return the least id after *last*: odd if the task has *ended*, else even."""
    return last + 1 + ((last + 1) % 2 != ended)


def _render_event(status: Status) -> bytes:
    name = {TaskState.SUCCESS: "done", TaskState.FAILURE: "failed"}.get(
        status.task.state, "progress"
    )
    data = json.dumps({"result": render(status)}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": body, "more_body": True})
