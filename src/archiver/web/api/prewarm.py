"""``POST /archiver/tasks``: has archives built that clients will request later."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import msgspec
from starlette.responses import JSONResponse

from archiver.errors import ArchiverError, InvalidRequest
from archiver.model import SUFFIXES, ArchiveRequest, Pending, Stored
from archiver.names import require_name
from archiver.telemetry import METRICS, log
from archiver.upkeep.catalogue_json import render_name
from archiver.web.api.archives import DEFAULT_SUFFIX
from archiver.web.api.client_request import require_one_of
from archiver.web.problems import problem, reply_to
from archiver.web.reply import HIT, Reply, client_left
from archiver.web.request_body import Disconnected, receive_body, require_json
from archiver.web.request_context import RequestContext

REQUESTS_MAX = 500
BODY_MAX_BYTES = 4 << 20
"""Room for as many requests with the longest names."""

AT_A_TIME = 16
"""Requests of a batch that are looked up at a time. Their lookups take turns at the host."""

BATCH_TIME = timedelta(seconds=20)
"""Shorter than clients and proxies wait for a response. A repeated batch goes on where it ended."""

ORIGIN = "batch"

Result: TypeAlias = dict[str, object]


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[msgspec.Raw]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """A request, with the names of the parameters of ``GET /archiver/…``."""

    source: str
    repo: str
    rev: str
    suffix: str = DEFAULT_SUFFIX
    subdir: str = ""
    submodules: bool = False
    lfs: bool = False


ITEM_ALLOWED = (
    "an object with the strings source, repo and rev, and perhaps the strings suffix and subdir "
    "and the booleans submodules and lfs"
)


async def post_tasks(context: RequestContext) -> Reply:
    """Return for each request of the batch whether its archive is stored, or its task, or why not.

    The results are in the order of the requests.
    """
    require_json(context)
    try:
        async with receive_body(context, max_bytes=BODY_MAX_BYTES) as body:
            results = await _Prewarming(context).run(_parse(body))
    except Disconnected:
        return client_left()
    return Reply(response=JSONResponse({"results": results}))


def _parse(body: bytes) -> Sequence[msgspec.Raw]:
    """Raises InvalidRequest."""
    try:
        requests = msgspec.json.decode(body, type=Batch).requests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        requests = []
    if not 0 < len(requests) <= REQUESTS_MAX:
        allowed = f'{{"requests": [...]}} with 1 to {REQUESTS_MAX} requests'
        raise InvalidRequest(f"the body must be {allowed}", parameter="body", allowed=allowed)
    return requests


@dataclass(frozen=True, slots=True)
class _Prewarming:
    """Runs the requests of one batch. A request that fails does not affect the others."""

    context: RequestContext

    async def run(self, requests: Sequence[msgspec.Raw]) -> list[Result]:
        waiting = enumerate(requests)
        results: dict[int, Result] = {}

        async def work() -> None:
            for number, raw in waiting:
                results[number] = await self._result(raw)

        workers = [asyncio.create_task(work()) for _ in range(min(AT_A_TIME, len(requests)))]
        try:
            await asyncio.wait(workers, timeout=BATCH_TIME.total_seconds())
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results.get(number) or self._not_reached() for number in range(len(requests))]

    async def _result(self, raw: msgspec.Raw) -> Result:
        try:
            found = await self._prewarm(_parse_item(raw))
        except Exception as exc:  # noqa: BLE001 - each request has a result of its own
            if not isinstance(exc, ArchiverError):
                log.exception("request.crashed", route=self.context.route)
            return _refused(reply_to(self.context, exc))
        outcome = HIT if isinstance(found, Stored) else str(found.outcome)
        METRICS.prewarmed.labels(origin=ORIGIN, outcome=outcome).inc()
        return {
            "outcome": outcome,
            **render_name(found.archive),
            "status_url": self.context.state.config.status_url(found.archive),
        }

    async def _prewarm(self, wanted: ArchiveRequest) -> Stored | Pending:
        context, access = self.context, self.context.state.access
        access.require_source(context.principal, wanted.source)
        context.state.archiver.source(wanted.source)
        access.require_repo(context.principal, wanted.source, wanted.repo)
        access.require_create(context.principal, wanted.source, wanted.repo)
        return await context.state.archiver.prewarm(
            wanted,
            may_read=context.may_read,
            client=f"prewarm:{context.share_holder}",
            limited=not access.is_admin(context.principal, wanted.source, wanted.repo),
        )

    def _not_reached(self) -> Result:
        detail = "the batch took too long; send this request again"
        return _refused(problem(self.context, "not_reached", detail))


def _parse_item(raw: msgspec.Raw) -> ArchiveRequest:
    """Raises InvalidRequest."""
    try:
        item = msgspec.json.decode(raw, type=Item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(
            f"a request must be {ITEM_ALLOWED}", parameter="requests", allowed=ITEM_ALLOWED
        ) from None
    return ArchiveRequest(
        source=require_name(item.source, "source"),
        repo=item.repo,
        rev=item.rev,
        subdir=item.subdir,
        suffix=require_one_of(SUFFIXES, item.suffix, "suffix"),
        submodules=item.submodules,
        lfs=item.lfs,
    )


def _refused(reply: Reply) -> Result:
    """Return a problem as a result, with its ``Retry-After`` as a member."""
    METRICS.prewarmed.labels(origin=ORIGIN, outcome="refused").inc()
    body = json.loads(bytes(reply.response.body))
    if delay_s := reply.response.headers.get("Retry-After"):
        body["retry_after"] = int(delay_s)
    return {"outcome": "problem", "problem": body}
