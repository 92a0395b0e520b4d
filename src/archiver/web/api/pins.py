"""``/archiver/status/{task_id}/pin``: pins an archive, and unpins it."""

from starlette.responses import Response

from archiver.model import Archive
from archiver.web.api.client_request import require_reason
from archiver.web.api.status import find_archive
from archiver.web.problems import problem
from archiver.web.reply import NO_CONTENT, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query


async def put_pin(context: RequestContext) -> Reply:
    """Return 204 once every region has a pin of the archive. An earlier pin stays."""
    archive = _find_operated(context)
    if archive is None:
        return _no_such_task(context)
    reason = require_reason(parse_query(context.query, known=("reason",)))
    pins = context.state.archiver.pins
    pinned = await pins.pin(archive, principal=context.principal, reason=reason)
    return _no_content() if pinned else problem(context, "absent", "no region has this archive")


async def delete_pin(context: RequestContext) -> Reply:
    """Return 204 once no region has a pin of the archive."""
    archive = _find_operated(context)
    if archive is None:
        return _no_such_task(context)
    parse_query(context.query, known=())
    pins = context.state.archiver.pins
    unpinned = await pins.unpin(archive, principal=context.principal)
    return _no_content() if unpinned else problem(context, "absent", "the archive has no pin")


def _find_operated(context: RequestContext) -> Archive | None:
    """Return the archive of the task; None if there is none, or the client may not know it.

    Raises Unauthenticated or Forbidden if the client may read it only.
    """
    archive = find_archive(context, context.parameters["task_id"])
    if archive:
        context.source = archive.source
        context.require_admin(archive)
    return archive


def _no_content() -> Reply:
    return Reply(response=Response(status_code=NO_CONTENT))


def _no_such_task(context: RequestContext) -> Reply:
    return problem(context, "no_such_task", "not a task id of this service")
