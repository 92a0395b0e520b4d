"""``Retry-After``: when a client should come back for an archive."""

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from archiver.web.request_context import RequestContext

JITTER = 0.2
"""Spreads the return of clients that came together."""


async def retry_after(context: RequestContext, source: str) -> Callable[[], int]:
    """Return a function that draws ``Retry-After`` for each client of an archive of *source*.

    It draws near the time at which the task should be done. If the queue cannot be read, it draws
    near ``server.retry_after_s``.
    """
    config = context.state.config
    unknown = timedelta(seconds=config.retry_after_s)
    backlog = await context.state.archiver.backlog(source)
    outlook = backlog.estimate_wait(unknown) if backlog else unknown
    return partial(_draw, outlook.total_seconds(), config.retry_after_max_s)


def _draw(outlook_s: float, most_s: int) -> int:
    delay_s = outlook_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return max(1, min(round(delay_s), most_s))
