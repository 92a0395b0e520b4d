"""Every error as ``application/problem+json`` (RFC 9457), and the one table of their statuses."""

import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver import errors
from archiver.errors import (
    ArchiverError,
    BadArchive,
    ConversionLost,
    EngineUnavailable,
    InternalError,
    InvalidRequest,
    NoRoom,
    NotFound,
    NoWorker,
    SourceBusy,
    SourceError,
    SourceTimeout,
    StorageUnavailable,
    TaskFailed,
    TooManyWaiters,
)
from archiver.web.exchange import exchange

_STATUS: dict[type[ArchiverError], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    SourceTimeout: 504,
    SourceBusy: 503,
    SourceError: 502,
    BadArchive: 502,
    NoRoom: 503,
    ConversionLost: 503,
    StorageUnavailable: 503,
    EngineUnavailable: 503,
    NoWorker: 503,
    TooManyWaiters: 503,
    ArchiverError: 500,
}

_OF_THE_WEB = {
    "no_such_route": 404,
    "method_not_allowed": 405,
    "target_too_long": 414,
    "absent": 404,
    "no_such_task": 404,
    "not_ready_yet": 503,
}

METHOD_NOT_ALLOWED = 405
UNAVAILABLE = 503


def statuses() -> dict[str, int]:
    """Return every code that a problem may have, and the status that goes with it."""
    classes = [kind for kind in vars(errors).values() if _has_code(kind)]
    return {kind.code: _status(kind) for kind in classes} | _OF_THE_WEB


def _has_code(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ArchiverError) and "code" in vars(kind)


def _status(kind: type[ArchiverError]) -> int:
    return next(_STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in _STATUS)


_STATUS_OF_CODE = statuses()


async def answer(request: Request[Any], exc: Exception) -> Response:
    """Return the problem that *exc* is to a client. Nothing of an unexpected one is shown."""
    match exc:
        case InvalidRequest():
            return problem(
                request, exc.code, exc.message, parameter=exc.parameter, allowed=exc.allowed
            )
        case TaskFailed():
            return problem(request, exc.failed_with, exc.message)
        case SourceBusy(retry_after=delay) | TooManyWaiters(retry_after=delay) if delay:
            return problem(request, exc.code, exc.message, retry_after_s=delay.total_seconds())
        case ArchiverError():
            return problem(request, exc.code, exc.message)
        case HTTPException():
            return _misdirected(request, exc.status_code)
        case _:
            return problem(request, InternalError.code, "Archiver failed; its log says how")


def _misdirected(request: Request[Any], status: int) -> Response:
    if status != METHOD_NOT_ALLOWED:
        return problem(request, "no_such_route", "there is nothing at this path")
    response = problem(request, "method_not_allowed", "only GET and HEAD are understood here")
    response.headers["Allow"] = "GET, HEAD"
    return response


def problem(
    request: Request[Any],
    code: str,
    detail: str,
    *,
    retry_after_s: float | None = None,
    **members: str,
) -> Response:
    """Return the problem *code*; a 503 says when to come back."""
    status = _STATUS_OF_CODE.get(code, 500)
    told = exchange(request)
    told.outcome = code
    response = JSONResponse(
        {
            "type": f"urn:archiver:problem:{code}",
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": told.request_id,
            **members,
        },
        status_code=status,
        media_type="application/problem+json",
    )
    if status == UNAVAILABLE:
        delay = retry_after_s or request.state["site"].retry_after_s
        response.headers["Retry-After"] = str(max(1, math.ceil(delay)))
    return response
