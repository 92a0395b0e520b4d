"""``/archiver/status/{task_id}``: the state of a task, with the original's fields and ours."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import assert_never

from starlette.responses import JSONResponse, Response

from archiver.errors import UnknownSource
from archiver.model import Archive, Node, parse_task_id
from archiver.status import Status
from archiver.tasks import Failure, Phase, Task, TaskState
from archiver.web.api.archive_reply import require_sha256
from archiver.web.api.client_request import parse_sha256
from archiver.web.reply import Reply, client_left
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_number, parse_query
from archiver.web.waiting.task_watch import comparable
from archiver.web.waiting.wake import Wake, departure_of

UNKNOWN_STATUS = "no status available at this point."
"""The original's text for an unknown task. Like the original, we call its state PENDING."""

WEAK = "W/"
ANYTHING = "*"


async def get_status(context: RequestContext) -> Reply:
    """Return the status of a task, with 200 for any id.

    With ``wait``, return it as soon as it differs from the one that the client knows. Raises
    OtherBytes if the archive does not have the bytes that the client insists on.
    """
    query = parse_query(context.query, known=("wait", "sha256"))
    sha256 = parse_sha256(query)
    task_id = context.parameters["task_id"]
    wait_s = parse_number(query, "wait", "a whole number of seconds") or 0
    archive = find_archive(context, task_id)
    if archive is None:
        return _result_reply(context, _render_unknown(task_id), etag=None)
    if wait_s and context.method != "HEAD":
        status = await _wait_for_change(context, archive, wait_s)
    else:
        status = await context.state.archiver.status(archive, may_read=context.may_read)
    if status is None:
        return client_left()
    if sha256 and status.copies:
        require_sha256(sha256, status.copies.manifest)
    return _status_reply(context, status)


def find_archive(context: RequestContext, task_id: str) -> Archive | None:
    """Return the archive of a task.

    None if the id is malformed, if its source has no such nodes, or if the client may not know.
    """
    archive = parse_task_id(task_id)
    with suppress(UnknownSource):
        if archive and context.may_read(archive.source, archive.repo):
            source = context.state.archiver.source(archive.source)
            return archive if len(archive.node) in source.node_digits else None
    return None


async def _wait_for_change(
    context: RequestContext, archive: Archive, wait_s: float
) -> Status | None:
    """Return the status after its next change, if that is in time; None if the client has left."""
    state = context.state
    until = time.monotonic() + min(wait_s, state.config.wait_limits.hold_s)
    with (
        state.waiters.watch(archive, context.share_holder) as watch,
        departure_of(context.receive) as departure,
    ):
        seen = watch.version or 1
        wake = await watch.wait_for_status(_left_s(until), departure)
        status = watch.seen_by(context.may_read)
        if status and not status.ended and not _is_new(context, status):
            wake = await watch.wait_for_change(seen, _left_s(until), departure)
            status = watch.seen_by(context.may_read)
        if wake is Wake.CLIENT_LEFT or status is None:
            return None
        context.require_readable(archive)  # its token may have been removed during the wait
        return status


def _left_s(until: float) -> float:
    return max(0, until - time.monotonic())


def _is_new(context: RequestContext, status: Status) -> bool:
    """Return whether the client names the status it knows, and *status* is another one."""
    return bool(_known_etags(context)) and not _is_known(context, _etag(status))


def _status_reply(context: RequestContext, status: Status) -> Reply:
    """Return the status. With URLs it has no ETag, because each reading signs them again."""
    return _result_reply(context, render(status), etag=None if status.urls else _etag(status))


def _result_reply(
    context: RequestContext, result: Mapping[str, object], *, etag: str | None
) -> Reply:
    """Return *result*, or 304 if the client knows it."""
    headers = {"ETag": etag} if etag else {}
    if _is_known(context, etag):
        return Reply(response=Response(status_code=304, headers=headers))
    return Reply(response=JSONResponse({"result": result}, headers=headers))


def _is_known(context: RequestContext, etag: str | None) -> bool:
    """Return whether the client sent *etag*, or ``*`` for any status."""
    known = _known_etags(context)
    return ANYTHING in known or (etag is not None and etag.removeprefix(WEAK) in known)


def _known_etags(context: RequestContext) -> set[str]:
    """Return the ETags in ``If-None-Match``, whose comparison is weak (RFC 9110, 13.1.2).

    Commas always separate, because our ETags contain none.
    """
    listed = context.header(b"if-none-match").split(",")
    return {etag.strip().removeprefix(WEAK) for etag in listed} - {""}


def _etag(status: Status) -> str:
    content = repr(comparable(status)).encode()
    return f'{WEAK}"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def render(status: Status) -> dict[str, object]:
    """Return the original's fields (``state status src_url s3_urls``) and ours."""
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
        "error": _render_error(task.error) if task.error else None,
        "node": task.archive.node,
        "sha256": manifest.sha256 if manifest else None,
        "size": manifest.size_bytes if manifest else None,
        "links_outside": manifest.links_outside if manifest else None,
        "regions_missing": list(status.missing),
        "pinned": status.pinned,
        "created_at": _iso(task.created_at),
        "started_at": _iso(task.started_at),
        "updated_at": _iso(task.updated_at),
    }


def _render_error(error: Failure) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def _render_unknown(task_id: str) -> dict[str, object]:
    """Return the fields of a task that no request has created, and that has no archive."""
    any_archive = Archive(source="x", repo="x", node=Node("0" * 40), subdir="", suffix="tar")
    task = Task(archive=any_archive, state=TaskState.PENDING, phase=Phase.QUEUED)
    return render(Status(task=task, source_url="")) | {"task_id": task_id, "node": None}


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
            return "Stored; committing."
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


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
