"""``/archiver/status/{task_id}/events``: how far a task is, as it goes (server-sent events)."""

import asyncio
import json
import re
import time
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from archiver.model import Archive
from archiver.status import Status
from archiver.tasks import TaskState
from archiver.web.headers import header
from archiver.web.problems import problem
from archiver.web.site import State, client_of
from archiver.web.status import archive_of, render
from archiver.web.targets import decode, parse_query
from archiver.web.waiting import Waiting
from archiver.web.watches import Leaving, Watch, Woken, leaving

RETRY_MS = 3000
HEARTBEAT_S = 15.0
"""Half of what proxies and phone networks take for a dead connection."""

FIRST_LOOK_S = 10.0
SEND_S = 30.0
"""A client that takes nothing for so long is gone."""

STREAM_S = 3600.0
"""A browser comes back by itself, and says where it was."""

NO_CONTENT = 204
"""What tells a browser not to come back."""

NO_ID = -2
"""Before all others, and even: who has it was not told the end."""

_ID = re.compile(r"[0-9]{1,16}")


async def events(request: Request[State]) -> Response:
    """Tell how far the task is, now and whenever that changes, until it has ended."""
    parse_query(request.scope["query_string"], known=())
    task_id = decode(request.path_params["task_id"].encode("latin-1"), "task_id")
    archive = archive_of(request, task_id)
    if archive is None:
        return problem(request, "no_such_task", "this is the id of no task")
    offered = header(request.scope, b"last-event-id")
    return EventStream(
        waiting=request.state["waiting"],
        archive=archive,
        client=client_of(request),
        last_id=int(offered) if _ID.fullmatch(offered) else NO_ID,
    )


class EventStream(Response):
    """The stream of one client.

    An id is twice the moment of the last change, in ms, plus 1 when the task has ended: it grows,
    and means the same in every process.
    """

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(self, *, waiting: Waiting, archive: Archive, client: str, last_id: int) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._waiting = waiting
        self._archive = archive
        self._client = client
        self._last_id = last_id
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._waiting.stream(self._archive, self._client) as watch, leaving(receive) as left:
            if await watch.first(FIRST_LOOK_S, left) is Woken.LEFT:
                return
            if self._was_told(watch):
                self.status_code = NO_CONTENT
            if self._was_told(watch) or scope["method"] == "HEAD":
                await super().__call__(scope, receive, send)
            else:
                with suppress(TimeoutError):
                    await self._tell(watch, left, send)

    def _was_told(self, watch: Watch) -> bool:
        """Tell whether the client saw the end, and came back all the same."""
        return watch.ended and self._last_id % 2 == 1

    async def _tell(self, watch: Watch, left: Leaving, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await _send(send, f"retry: {RETRY_MS}\n\n".encode())
        until, version = time.monotonic() + STREAM_S, 0
        while time.monotonic() < until:
            match await watch.change(version, HEARTBEAT_S, left):
                case Woken.NEWS:
                    version = watch.version
                    await self._send_event(watch, send)
                case Woken.TIME:
                    await _send(send, b":\n\n")
                case Woken.LEFT:
                    return
            if (watch.ended and version == watch.version) or watch.closing:
                break
        await send({"type": "http.response.body", "body": b""})

    async def _send_event(self, watch: Watch, send: Send) -> None:
        number = _id_of(watch)
        if self._told or number != self._last_id:  # else another process told it
            self._last_id = max(number, _next_id(self._last_id, ended=watch.ended))
            event = watch.once("event", _event)
            await _send(send, b"id: %d\n%b" % (self._last_id, event))
        self._told = True


def _id_of(watch: Watch) -> int:
    task = watch.status.task if watch.status else None
    at = task and (task.updated_at or task.created_at)
    return 2 * (round(at.timestamp() * 1000) if at else 0) + watch.ended


def _next_id(last: int, *, ended: bool) -> int:
    """Return the least id after *last*, which is odd if the task has *ended*, else even."""
    return last + 1 + ((last + 1) % 2 != ended)


def _event(status: Status) -> bytes:
    name = {TaskState.SUCCESS: "done", TaskState.FAILURE: "failed"}.get(
        status.task.state, "progress"
    )
    data = json.dumps({"result": render(status)}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": body, "more_body": True})
