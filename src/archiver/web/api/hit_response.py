"""The response to a hit, and what is needed to repeat and renew it."""

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

from starlette.responses import Response

from archiver.model import Absent, Archive, Pending, Ready, rev_hash
from archiver.web.api.urls import canonical_url, status_url
from archiver.web.reply import HIT, Repeatable, Reply
from archiver.web.request_context import RequestContext
from archiver.web.web_config import WebConfig

Render: TypeAlias = Callable[[Ready], Response]
"""Makes the response to a hit."""

Find: TypeAlias = Callable[[], Awaitable[Ready | Pending | Absent | None]]
"""Looks the archive up and creates nothing."""


def hit_reply(ready: Ready, rev: str, render: Render, *, refind: Find | None) -> Reply:
    """Return the reply to a hit of *rev*. With *refind*, which renews it, it is repeatable."""
    response = render(ready)
    repeatable = partial(_repeatable, response, ready, rev, render, refind) if refind else None
    return Reply(response=response, outcome=HIT, repeatable=repeatable)


def _repeatable(
    response: Response, ready: Ready, rev: str, render: Render, refind: Find
) -> Repeatable:
    """Return the response, which is true until its archive or its rev changes."""
    topics, good_until = [ready.archive.key_hash], math.inf
    if ready.good_until:
        topics.append(rev_hash(ready.archive.source, ready.archive.repo, rev))
        left = ready.good_until - datetime.now(UTC)
        good_until = time.monotonic() + left.total_seconds()

    async def renew() -> Repeatable | None:
        found = await refind()
        if not isinstance(found, Ready):
            return None
        return _repeatable(render(found), found, rev, render, refind)

    return Repeatable(
        response=response, outcome=HIT, topics=tuple(topics), good_until=good_until, renew=renew
    )


def redirect_to(context: RequestContext, rev: str) -> Render:
    """Return a function that makes the redirect to the archive at *rev*.

    It is a 302 even though archives never change: the first clients understand nothing else, and
    Bazel gives up at a 308.
    """
    return partial(_redirect, context.state.config, rev)


def _redirect(config: WebConfig, rev: str, ready: Ready) -> Response:
    headers = {
        b"location": ready.url,
        b"cache-control": "private, no-store",
        b"link": ", ".join(_links(ready.archive, rev, config)),
        b"archiver-cache": HIT,
        b"archiver-node": ready.archive.node,
        b"archiver-sha256": ready.manifest.sha256,
        b"archiver-size": str(ready.manifest.size_bytes),
        b"archiver-region": ready.region,
    }
    if ready.wanted not in {None, ready.region}:
        headers[b"archiver-region-fallback"] = str(ready.wanted)
    response = Response(status_code=302)
    response.raw_headers += [(name, text.encode("latin-1")) for name, text in headers.items()]
    return response


def _links(archive: Archive, rev: str, config: WebConfig) -> list[str]:
    links = [f'<{status_url(config, archive)}>; rel="describedby"']
    if rev != archive.node:
        links.append(f'<{canonical_url(config, archive)}>; rel="canonical"')
    return links
