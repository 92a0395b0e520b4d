"""``DELETE /archiver/{source}/{repo}/{node}``: removes every trace of an archive."""

from starlette.responses import Response

from archiver.errors import InvalidRequest
from archiver.model import FLAGS, NODE_ALLOWED, SUFFIXES, Archive, parse_node
from archiver.names import display_rev
from archiver.purge import PurgeOrder
from archiver.web.api.archives import DEFAULT_SUFFIX
from archiver.web.api.client_request import (
    parse_flag,
    parse_source,
    require_one_of,
    require_reason,
)
from archiver.web.problems import problem
from archiver.web.reply import NO_CONTENT, Reply
from archiver.web.request_context import RequestContext
from archiver.web.request_target import parse_query, split_path


async def delete_archive(context: RequestContext) -> Reply:
    """Return 204 once the archive is gone everywhere, or ``absent`` if it did not exist."""
    archive, reason = _parse_address(context)
    order = PurgeOrder(principal=context.principal, reason=reason)
    if await context.state.archiver.purge(archive, order):
        return Reply(response=Response(status_code=NO_CONTENT))
    return problem(context, "absent", "no region has this archive")


def _parse_address(context: RequestContext) -> tuple[Archive, str]:
    """Return the archive that the URL names, and the reason for its purge.

    Raises InvalidRequest, and the errors of a client that may not purge it.
    """
    raw, access = context.parameters["address"], context.state.access
    source = parse_source(context, raw)
    query = parse_query(context.query, known=("rev", "subdir", "suffix", *FLAGS, "reason"))
    segments = split_path(raw, rev_in_query="rev" in query)
    repo, rev = (segments, query["rev"]) if "rev" in query else (segments[:-1], segments[-1])
    access.require_repo(context.principal, source, "/".join(repo))
    access.require_admin(context.principal, source, "/".join(repo))
    node = parse_node(rev)
    if node is None:
        raise InvalidRequest(
            f"'{display_rev(rev)}' may move: a purge needs the node",
            parameter="rev",
            allowed=NODE_ALLOWED,
        )
    suffix = require_one_of(SUFFIXES, query.get("suffix", DEFAULT_SUFFIX), "suffix")
    archive = Archive(
        source=source,
        repo="/".join(repo),
        node=node,
        subdir=query.get("subdir", ""),
        suffix=suffix,
        submodules=parse_flag(query, "submodules"),
        lfs=parse_flag(query, "lfs"),
    )
    context.require_admin(archive)
    return archive, require_reason(query)
