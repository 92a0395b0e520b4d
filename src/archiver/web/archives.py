"""``/archiver/{source}/{repo}/{rev}``: where an archive is, or the task that brings it there.

With ``?rev=``, the path ends with the repo.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from archiver.errors import UnknownRepo
from archiver.model import Absent, Pending, Ready
from archiver.names import display_rev
from archiver.web import fastlane
from archiver.web.asks import (
    Ask,
    OnMiss,
    archive_path,
    ask,
    parse_parameters,
    parse_source,
    parse_suffix,
    place,
    repo_path,
    want,
)
from archiver.web.misses import outwait
from archiver.web.problems import problem
from archiver.web.redirects import REDIRECT, Form, hit
from archiver.web.site import State, client_of
from archiver.web.targets import split_place

DEFAULT_SUFFIX = "tar.gz"


async def archive(request: Request[State]) -> Response:
    """Redirect to the archive, or accept the task of bringing it."""
    return await fulfil(request, parse(request), REDIRECT)


async def fulfil(request: Request[State], asked: Ask, form: Form) -> Response:
    """Answer with what is asked for, or on a miss as asked; HEAD brings nothing about."""
    wanted, method = asked.wanted, request.method
    create = method != "HEAD" and asked.on_miss is not OnMiss.NONE
    look = partial(
        request.state["archiver"].request,
        wanted,
        method=method,
        share=create,  # else a stranger could have any number of revs stored, at no cost
        client=client_of(request),
        client_region=fastlane.region(request.scope),
    )
    try:
        found = await look(create=create)
    except UnknownRepo as exc:
        raise UnknownRepo(f"{exc.message}{_hint(asked)}") from exc
    match found:
        case Ready() as ready:
            return hit(request, ready, wanted, form, look=partial(look, create=False))
        case Pending() as pending:
            return await outwait(request, asked, pending, form.render)
        case Absent():
            return problem(request, "absent", "the archive is not there; a GET would bring it")


def _hint(asked: Ask) -> str:
    """Return what else a path may mean whose repo is unknown: a rev with a slash."""
    folder, slash, end = asked.wanted.repo.rpartition("/")
    if not slash or "rev" in asked.query:
        return ""
    rev = display_rev(f"{end}/{asked.wanted.rev}")
    return f"; if {rev} is a revision of {folder}, give it as ?rev= behind {folder}{asked.ending}"


def parse(request: Request[State]) -> Ask:
    """Return what is asked for; every 400 of this route arises here.

    Raises:
        InvalidRequest: A part of the path or of the query is not what it has to be.
        UnknownSource: There is no such source.
    """
    raw = request.path_params["address"]
    source = parse_source(request, raw)
    query = parse_parameters(request, "rev", "subdir", "suffix", "preferred_region")
    suffix = parse_suffix(query.get("suffix", DEFAULT_SUFFIX))
    repo, rev = place(split_place(raw, rev_in_query="rev" in query), query)
    wanted = want(source, repo, rev, suffix, query)
    path = repo_path(wanted) if "rev" in query else archive_path(wanted, rev)
    return ask(request, wanted, query, path=path)
