"""A plain HTTP client that follows no redirects and polls like the original's client."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)

    @property
    def location(self) -> str:
        location = self.headers["Location"]
        assert location, self
        return str(location)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Return the response to one request, with any status."""
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return Answer(status=response.status, headers=response.headers, body=response.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(status=exc.code, headers=exc.headers, body=exc.read())


def poll(
    status_url: str, until: Callable[[dict[str, Any]], bool], *, timeout_s: float = TIMEOUT_S
) -> list[dict[str, Any]]:
    """Poll the status URL until *until* is true of a result. Return all distinct results."""
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = fetch(status_url)
        assert answer.status == 200, answer
        result = answer.json["result"]
        if not seen or result != seen[-1]:
            seen.append(result)
        if until(result):
            return seen
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s; last: {seen[-1]}")


def ended(result: dict[str, Any]) -> bool:
    return result["state"] in {"SUCCESS", "FAILURE"}


def stored(result: dict[str, Any]) -> bool:
    """Return whether the task ended and every region has the archive, or none will get it.

    Without this condition, tests would depend on which region is first.
    """
    return ended(result) and not result["regions_missing"]


def succeed(
    url: str, *, until: Callable[[dict[str, Any]], bool] = stored, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Request a missing archive, wait for its task to succeed, and return the result."""
    answer = fetch(url)
    assert answer.status == 202, answer
    result = poll(answer.location, until, timeout_s=timeout_s)[-1]
    assert result["state"] == "SUCCESS", result
    return result
