"""After how long a client that was turned away had best come back."""

import random
from datetime import timedelta

from starlette.requests import Request

from archiver.web.site import State

JITTER = 0.2
"""Those who came together do not come back together."""


async def retry_after_s(request: Request[State], source: str) -> int:
    """Return ``Retry-After`` for an archive of *source*: when its task will be done, as things are.

    Without a queue to be seen, it is ``server.retry_after_s``.
    """
    site = request.state["site"]
    unknown = timedelta(seconds=site.retry_after_s)
    backlog = await request.state["archiver"].backlog(source)
    outlook = backlog.outlook(unknown) if backlog else unknown
    delay_s = outlook.total_seconds() * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return max(1, min(round(delay_s), site.retry_after_max_s))
