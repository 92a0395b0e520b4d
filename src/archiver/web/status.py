"""``/archiver/status/{task_id}``: how far a task is, in the words of the original and in ours."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import assert_never

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.errors import UnknownSource
from archiver.model import Archive, parse_task_id
from archiver.status import Status
from archiver.tasks import Failure, Phase, Task, TaskState
from archiver.web.exchange import nobody
from archiver.web.headers import header
from archiver.web.site import State, client_of
from archiver.web.targets import decode, parse_query, whole
from archiver.web.watches import Woken, leaving

UNKNOWN_STATUS = "no status available at this point."
"""The original's words for a task that nobody knows. It calls it PENDING, and so do we."""

WEAK = "W/"
ANYTHING = "*"


async def status(request: Request[State]) -> Response:
    """Tell how far the task is: 200 for whatever could be a task's id.

    With ``wait``, tell it as soon as it is further than the client knows.
    """
    query = parse_query(request.scope["query_string"], known=("wait",))
    task_id = decode(request.path_params["task_id"].encode("latin-1"), "task_id")
    wait_s = whole(query, "wait", "a whole number of seconds") or 0
    archive = archive_of(request, task_id)
    if archive is None:
        return _send(request, _unknown(task_id), tag=None)
    if wait_s and request.method != "HEAD":
        return await _wait(request, archive, wait_s)
    return _answer(request, await request.state["archiver"].status(archive))


def archive_of(request: Request[State], task_id: str) -> Archive | None:
    """Return whose task it is, or None for an id of no archive, or of none of a source here."""
    archive = parse_task_id(task_id)
    with suppress(UnknownSource):
        if archive and request.state["archiver"].source(archive.source):
            return archive
    return None


async def _wait(request: Request[State], archive: Archive, wait_s: float) -> Response:
    waiting, holding = request.state["waiting"], request.state["site"].holding
    until = time.monotonic() + min(wait_s, holding.hold_s)
    with waiting.watch(archive, client_of(request)) as watch, leaving(request.receive) as left:
        seen = watch.version or 1
        woken = await watch.first(_left_s(until), left)
        if watch.status and not watch.ended and not _is_news(request, watch.status):
            woken = await watch.change(seen, _left_s(until), left)
        if woken is Woken.LEFT or watch.status is None:
            return nobody(request)
        return _answer(request, watch.status)


def _left_s(until: float) -> float:
    return max(0, until - time.monotonic())


def _is_news(request: Request[State], status: Status) -> bool:
    """Tell whether the client says what it knows, and *status* is something else."""
    return bool(_known(request)) and not _has(request, _tag(status))


def _answer(request: Request[State], status: Status) -> Response:
    """Return the status. One with links is never the same again."""
    return _send(request, render(status), tag=None if status.urls else _tag(status))


def _send(request: Request[State], result: Mapping[str, object], *, tag: str | None) -> Response:
    """Return *result*, or 304 if the client has it."""
    headers = {"ETag": tag} if tag else {}
    if _has(request, tag):
        return Response(status_code=304, headers=headers)
    return JSONResponse({"result": result}, headers=headers)


def _has(request: Request[State], tag: str | None) -> bool:
    """Tell whether the client has what *tag* stands for, or says that it has whatever there is."""
    known = _known(request)
    return ANYTHING in known or (tag is not None and tag.removeprefix(WEAK) in known)


def _known(request: Request[State]) -> set[str]:
    """Return the tags of ``If-None-Match``, which takes weak and strong ones for the same.

    RFC 9110, 13.1.2. Tags may have commas; none of ours does.
    """
    listed = header(request.scope, b"if-none-match").split(",")
    return {tag.strip().removeprefix(WEAK) for tag in listed} - {""}


def _tag(status: Status) -> str:
    told = repr((status.task, status.copies, status.missing))
    return f'{WEAK}"{hashlib.blake2b(told.encode(), digest_size=12).hexdigest()}"'


def render(status: Status) -> dict[str, object]:
    """Return the keys of the original (``state status src_url s3_urls``), and ours."""
    task, manifest = status.task, status.copies.manifest if status.copies else None
    return {
        "state": task.state,
        "status": _sentence(status),
        "src_url": status.source_url,
        "s3_urls": dict(status.urls),
        "task_id": task.archive.task_id,
        "phase": task.phase,
        "bytes_done": task.bytes_done,
        "attempt": task.attempt,
        "failures": task.failures,
        "error": _error(task.error),
        "node": task.archive.node,
        "sha256": manifest.sha256 if manifest else None,
        "size": manifest.size_bytes if manifest else None,
        "links_outside": manifest.links_outside if manifest else None,
        "regions_missing": list(status.missing),
        "created_at": _iso(task.created_at),
        "started_at": _iso(task.started_at),
        "updated_at": _iso(task.updated_at),
    }


def _unknown(task_id: str) -> dict[str, object]:
    return {
        "state": TaskState.PENDING,
        "status": UNKNOWN_STATUS,
        "src_url": "",
        "s3_urls": {},
        "task_id": task_id,
        "phase": Phase.QUEUED,
        "bytes_done": 0,
        "attempt": 0,
        "failures": 0,
        "error": None,
        "node": None,
        "sha256": None,
        "size": None,
        "links_outside": None,
        "regions_missing": [],
        "created_at": None,
        "started_at": None,
        "updated_at": None,
    }


def _sentence(status: Status) -> str:
    task = status.task
    match task.state:
        case TaskState.PENDING:
            return "Waiting for a worker." if task.created_at else UNKNOWN_STATUS
        case TaskState.STARTED:
            return _progress(task)
        case TaskState.RETRY if task.error is None:
            return "Handed back by a worker that stopped; another one will take it."
        case TaskState.RETRY:
            return f"Attempt {task.attempt} failed, another one will follow. {_reason(task)}"
        case TaskState.SUCCESS:
            return _stored(status)
        case TaskState.FAILURE:
            return f"Given up after attempt {task.attempt}. {_reason(task)}"
        case _:
            assert_never(task.state)


def _progress(task: Task) -> str:
    match task.phase:
        case Phase.FETCHING:
            return f"Fetching and storing: {task.bytes_done:,} bytes so far."
        case Phase.CONVERTING:
            return f"Converting and storing: {task.bytes_done:,} bytes so far."
        case Phase.COMMITTING:
            return "Stored; making it known."
        case Phase.COPYING:
            return "Copying to the regions that lack it."
        case Phase.QUEUED | Phase.CONNECTING | Phase.WAITING | Phase.DONE:
            return "Asking the host for the archive."


def _stored(status: Status) -> str:
    stored, missing = len(status.urls), len(status.missing)
    if missing:
        return f"Stored in {stored} of {stored + missing} regions; the others will follow."
    return f"Stored in {stored} {'region' if stored == 1 else 'regions'}."


def _reason(task: Task) -> str:
    return f"The reason: {task.error.message}." if task.error else "No reason is known."


def _error(error: Failure | None) -> dict[str, str] | None:
    return {"code": error.code, "message": error.message} if error else None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
