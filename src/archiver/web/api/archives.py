"""``/archiver/{source}/{repo}/{rev}``: the location of an archive, or the task that builds it.

With ``?rev=``, the path ends with the repo.
"""

from functools import partial

from archiver.errors import UnknownRepo
from archiver.model import Absent, Pending, Ready
from archiver.names import display_rev
from archiver.web.api.client_request import (
    ClientRequest,
    OnMiss,
    client_request,
    parse_parameters,
    parse_source,
    parse_suffix,
)
from archiver.web.api.hit_response import Render, hit_reply, redirect_to
from archiver.web.api.miss_response import miss_reply
from archiver.web.problems import problem
from archiver.web.reply import Hold, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import split_path

DEFAULT_SUFFIX = "tar.gz"


async def get_archive(context: RequestContext) -> Reply | Hold:
    """Redirect to the archive, or create the task that builds it."""
    request = parse(context)
    return await fulfil(context, request, redirect_to(context, request.archive_request.rev))


async def fulfil(
    context: RequestContext, request: ClientRequest, render: Render, *, repeatable: bool = True
) -> Reply | Hold:
    """Return a hit as *render* shows it, or the reply to a miss. HEAD creates no task.

    Only hits that are *repeatable* are remembered.
    """
    create = context.method != "HEAD" and request.on_miss is not OnMiss.NONE
    find = partial(
        context.state.archiver.request,
        request.archive_request,
        method=context.method,
        share=create,  # otherwise a client could store any number of revs, at no cost to itself
        client=context.client.group,
        client_region=context.client.region,
    )
    try:
        found = await find(create=create)
    except UnknownRepo as exc:
        raise UnknownRepo(f"{exc.message}{_hint(request)}") from exc
    match found:
        case Ready() as ready:
            refind = partial(find, create=False) if repeatable else None
            return hit_reply(ready, request.archive_request.rev, render, refind=refind)
        case Pending() as pending:
            return await miss_reply(context, request, pending, render)
        case Absent():
            return problem(context, "absent", "the archive does not exist; a GET would create it")


def _hint(request: ClientRequest) -> str:
    """Return the other meaning of a path whose repo is unknown: a rev with a slash."""
    folder, slash, end = request.archive_request.repo.rpartition("/")
    if not slash or "rev" in request.query:
        return ""
    rev = display_rev(f"{end}/{request.archive_request.rev}")
    return f"; if {rev} is a revision of {folder}, pass it as {folder}{request.ending}?rev="


def parse(context: RequestContext) -> ClientRequest:
    """Return the parsed request; every 400 of this route arises here.

    Raises:
        InvalidRequest: A part of the path or of the query is invalid.
        UnknownSource: The source is not configured.
    """
    raw = context.parameters["address"]
    source = parse_source(context, raw)
    query = parse_parameters(context, "rev", "subdir", "suffix", "preferred_region")
    suffix = parse_suffix(query.get("suffix", DEFAULT_SUFFIX))
    segments = split_path(raw, rev_in_query="rev" in query)
    return client_request(context, source, segments, suffix, query)
