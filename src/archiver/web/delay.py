"""After how long a client that was turned away had best come back."""

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from starlette.requests import Request

from archiver.web.site import State

JITTER = 0.2
"""Those who came together do not come back together."""


async def retry_after(request: Request[State], source: str) -> Callable[[], int]:
    """Return what draws the ``Retry-After`` of each who asks for an archive of *source* now.

    It is when the task will be done, as things are; without a queue to be seen,
    ``server.retry_after_s``.
    """
    site = request.state["site"]
    unknown = timedelta(seconds=site.retry_after_s)
    backlog = await request.state["archiver"].backlog(source)
    outlook = backlog.estimate_wait(unknown) if backlog else unknown
    return partial(_draw, outlook.total_seconds(), site.retry_after_max_s)


def _draw(outlook_s: float, most_s: int) -> int:
    delay_s = outlook_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return max(1, min(round(delay_s), most_s))
