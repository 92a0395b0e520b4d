"""``/archiver/archives`` and ``/archiver/tasks``: lists for operators."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.responses import JSONResponse

from archiver.errors import InvalidRequest
from archiver.model import SUFFIXES
from archiver.tasks import TaskState
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.catalogue_json import render_entry
from archiver.upkeep.census import STATES, Wanted
from archiver.upkeep.census_json import render_counts, render_task
from archiver.upkeep.manifest_keys import Cursor
from archiver.web.api.client_request import parse_source, require_one_of
from archiver.web.reply import Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query

ARCHIVES_MAX, ARCHIVES_DEFAULT = 1000, 100

TASKS_MAX, TASKS_DEFAULT = 200, 20
"""In each state. Each waiting task costs a request to the engine."""

RECORDS_MAX = 20_000
"""States that are read for one answer: about 10 MB."""

DAYS_MAX, BYTES_MAX = 36_500, 10**15
PATTERN_CHARS = 1024

_DIGITS = re.compile(r"[0-9]{1,16}")


async def get_archives(context: RequestContext) -> Reply:
    """Return a page of the stored archives, and the cursor of the next one."""
    query = parse_query(
        context.query,
        known=("source", "repo", "suffix", "older", "unused", "min_bytes", "limit", "cursor"),
    )
    source = _operated_source(context, query)
    selection = Selection(
        source=source,
        submodules=context.state.access.may_read_all(context.principal),
        repo=_pattern(query.get("repo", "*")),
        suffix=_one_of(SUFFIXES, query, "suffix"),
        older=_days(query, "older"),
        unused=_days(query, "unused") if "unused" in query else None,
        min_bytes=_number(query, "min_bytes", default=0, most=BYTES_MAX),
    )
    limit = _number(query, "limit", default=ARCHIVES_DEFAULT, least=1, most=ARCHIVES_MAX)
    after = _cursor(query, source)
    page = await context.state.operations.archives(selection, after=after, limit=limit)
    body = {
        "archives": [*map(render_entry, page.entries)],
        "next": str(page.following) if page.following else None,
        "unreadable": page.unreadable,
    }
    return Reply(response=JSONResponse(body))


async def get_tasks(context: RequestContext) -> Reply:
    """Return the number of tasks by state, source, code and client, and some of them."""
    query = parse_query(context.query, known=("source", "state", "limit"))
    state = require_one_of(STATES, query["state"].upper(), "state") if "state" in query else None
    wanted = Wanted(
        source=_operated_source(context, query),
        submodules=context.state.access.may_read_all(context.principal),
        state=TaskState(state) if state else None,
        limit=_number(query, "limit", default=TASKS_DEFAULT, most=TASKS_MAX),
        read_max=RECORDS_MAX,
    )
    overview = await context.state.operations.tasks(wanted)
    body = {"tasks": [*map(render_task, overview.tasks)], **render_counts(overview)}
    return Reply(response=JSONResponse(body))


def _operated_source(context: RequestContext, query: Mapping[str, str]) -> str | None:
    """Return the source to list, or None for all of them.

    Raises InvalidRequest, and the errors of a client that does not operate them.
    """
    name = query.get("source")
    source = None if name is None else parse_source(context, name)
    context.state.access.require_operator(context.principal, source)
    return source


def _cursor(query: Mapping[str, str], source: str | None) -> Cursor | None:
    if "cursor" not in query:
        return None
    cursor = Cursor.parse(query["cursor"])
    if cursor is None or source not in {None, cursor.archive.source}:
        raise InvalidRequest(
            "this is no cursor of this list",
            parameter="cursor",
            allowed="the value of `next` in a response to the same request",
        )
    return cursor


def _pattern(text: str) -> str:
    if not 0 < len(text) <= PATTERN_CHARS:
        raise InvalidRequest(
            f"repo must be a pattern of 1 to {PATTERN_CHARS} characters",
            parameter="repo",
            allowed="a pattern such as projects/*",
        )
    return text


def _one_of(allowed: Sequence[str], query: Mapping[str, str], name: str) -> str | None:
    return require_one_of(allowed, query[name], name) if name in query else None


def _days(query: Mapping[str, str], name: str) -> timedelta:
    return timedelta(days=_number(query, name, default=0, most=DAYS_MAX))


def _number(query: Mapping[str, str], name: str, *, default: int, least: int = 0, most: int) -> int:
    text = query.get(name, str(default))
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        allowed = f"a whole number from {least} to {most}"
        raise InvalidRequest(f"{name} must be {allowed}", parameter=name, allowed=allowed)
    return int(text)
