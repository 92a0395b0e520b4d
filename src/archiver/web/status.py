"""``/archiver/status/{task_id}``: how far a task is, in the words of the original and in ours."""

from datetime import datetime
from typing import assert_never

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.errors import UnknownSource
from archiver.model import Failure, Phase, Task, TaskState, parse_task_id
from archiver.service import Status
from archiver.web.site import State
from archiver.web.targets import decode, parse_query

UNKNOWN_STATUS = "no status available at this point."
"""The original's words for a task that nobody knows. It calls it PENDING, and so do we."""


async def status(request: Request[State]) -> Response:
    """Tell how far the task is: 200 for whatever could be a task's id."""
    parse_query(request.scope["query_string"], known=())
    task_id = decode(request.path_params["task_id"].encode("latin-1"), "task_id")
    found = await _find(request, task_id)
    return JSONResponse({"result": render(found) if found else _unknown(task_id)})


async def _find(request: Request[State], task_id: str) -> Status | None:
    """Return the status, or None for an id that names no archive, or none of a source here."""
    archive = parse_task_id(task_id)
    if archive is None:
        return None
    try:
        return await request.state["archiver"].status(archive)
    except UnknownSource:
        return None


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
