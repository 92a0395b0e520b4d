"""Errors as ``application/problem+json`` (RFC 9457), and the one table of their statuses."""

import math
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus

from starlette.responses import JSONResponse

from archiver import errors
from archiver.errors import ArchiverError
from archiver.web.reply import Reply
from archiver.web.request_context import RequestContext

_STATUS: dict[type[ArchiverError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.SourceTimeout: 504,
    errors.SourceBusy: 503,
    errors.SourcePaused: 503,
    errors.SourceError: 502,
    errors.BadArchive: 502,
    errors.PinnedArchive: 409,
    errors.OtherBytes: 409,
    errors.NoRoom: 503,
    errors.ConversionLost: 503,
    errors.StorageUnavailable: 503,
    errors.EngineUnavailable: 503,
    errors.NoWorker: 503,
    errors.TooManyWaiters: 503,
    errors.QueueFull: 503,
    errors.LimitReached: 429,
    ArchiverError: 500,
}

CHALLENGE = 'Basic realm="Archiver", charset="UTF-8"'
"""Programs such as wget send the credentials in netrc only after this challenge."""

_WEB_STATUS = {
    "no_such_route": 404,
    "method_not_allowed": 405,
    "target_too_long": 414,
    "bad_signature": 403,
    "body_too_large": 413,
    "body_too_slow": 408,
    "unsupported_media_type": 415,
    "absent": 404,
    "no_such_task": 404,
    "not_ready_yet": 503,
    "not_reached": 503,
}


class Misdirected(Exception):
    """No route accepts the request. ``code`` is that of the problem.

    ``allow`` lists the methods that the path has, if it has others.
    """

    def __init__(self, code: str, detail: str, *, allow: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.allow = allow
        self.detail = detail


def _has_code(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, ArchiverError) and "code" in vars(kind)


STATUSES: Mapping[str, int] = {
    kind.code: next(_STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in _STATUS)
    for kind in vars(errors).values()
    if _has_code(kind)
} | _WEB_STATUS
"""The status of every code that a problem may have."""


def reply_to(context: RequestContext, exc: Exception) -> Reply:
    """Return the problem for *exc*. The text of an unexpected exception is not shown."""
    match exc:
        case errors.InvalidRequest() | errors.OtherBytes():
            return problem(context, exc.code, exc.message, retry_after_s=None, **_members(exc))
        case errors.TaskFailed():
            return problem(context, exc.failed_with, exc.message)
        case (
            errors.SourceBusy()
            | errors.SourcePaused()
            | errors.TooManyWaiters()
            | errors.LimitReached()
            | errors.EngineFull()
        ) if exc.retry_after:
            delay_s = exc.retry_after.total_seconds()
            reply = problem(context, exc.code, exc.message, retry_after_s=delay_s)
            if isinstance(exc, errors.LimitReached) and not isinstance(exc, errors.QueueFull):
                reply.response.headers.update(_limit_headers(exc))
            return reply
        case ArchiverError():
            return problem(context, exc.code, exc.message)
        case Misdirected():
            reply = problem(context, exc.code, exc.detail)
            if exc.allow:
                reply.response.headers["Allow"] = exc.allow
            return reply
        case _:
            return problem(context, errors.InternalError.code, "Archiver failed; see its log")


def _members(exc: errors.InvalidRequest | errors.OtherBytes) -> Mapping[str, str]:
    if isinstance(exc, errors.OtherBytes):
        return {"sha256": exc.sha256}
    return {"parameter": exc.parameter, "allowed": exc.allowed}


def _limit_headers(exc: errors.LimitReached) -> Mapping[str, str]:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers-10."""
    window = f";w={exc.window // timedelta(seconds=1)}" if exc.window else ""
    reset_s = _whole_seconds(exc.retry_after.total_seconds())
    return {
        "RateLimit-Policy": f'"{exc.policy}";q={exc.quota}{window}',
        "RateLimit": f'"{exc.policy}";r=0;t={reset_s}',
    }


def _whole_seconds(delay_s: float) -> int:
    return max(1, math.ceil(delay_s))


def problem(
    context: RequestContext,
    code: str,
    detail: str,
    *,
    retry_after_s: float | None = None,
    **members: str,
) -> Reply:
    """Return the problem *code*. A 429 or 503 has ``Retry-After``, and a 401 a challenge."""
    status = STATUSES.get(code, 500)
    response = JSONResponse(
        {
            "type": f"urn:archiver:problem:{code}",
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": context.request_id,
            **members,
        },
        status_code=status,
        media_type="application/problem+json",
    )
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        delay_s = retry_after_s or context.state.config.retry_after_s
        response.headers["Retry-After"] = str(_whole_seconds(delay_s))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = CHALLENGE
    return Reply(response=response, outcome=code)
