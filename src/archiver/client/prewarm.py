"""Requests to have archives built later, and their results, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archiver.client.api_response import (
    FIRST_ERROR,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    POLL_MAX_S,
    ApiResponse,
    parse_results,
    problem_failure,
)
from archiver.client.archive_request import ArchiveRequest
from archiver.client.failures import CommandFailed, NotArchiver
from archiver.client.text import is_url, printable

BATCH_MAX = 500
"""Requests that a server takes at a time."""

OUTCOMES = frozenset({"hit", "created", "joined"})


@dataclass(frozen=True)
class Prewarmed:
    """The result of one request.

    ``outcome`` is ``hit`` if the archive is stored, ``created`` or ``joined`` if a task will build
    it, and ``problem`` if not: then there is a ``failure``. If it may pass, the request can be sent
    again after ``pause_s`` seconds.
    """

    request: ArchiveRequest
    outcome: str
    task: str = ""
    status_url: str = ""
    failure: CommandFailed | None = None
    pause_s: float = POLL_MAX_S


def to_json(request: ArchiveRequest) -> dict[str, object]:
    """Return a request as a batch has it."""
    return {
        "source": request.source,
        "repo": request.repo,
        "rev": request.rev,
        "subdir": request.subdir,
        "suffix": request.suffix,
        "submodules": request.submodules,
        "lfs": request.lfs,
    }


def parse_prewarm_response(
    response: ApiResponse, requests: Sequence[ArchiveRequest]
) -> list[Prewarmed]:
    """Return the results of *requests*. Raises CommandFailed for any other response."""
    results = parse_results(response, len(requests))
    return [_parse(request, result) for request, result in zip(requests, results)]


def _parse(request: ArchiveRequest, result: Mapping[str, object]) -> Prewarmed:
    outcome, problem = result.get("outcome"), result.get("problem")
    if isinstance(problem, dict):
        status = problem.get("status")
        if not isinstance(status, int) or status < FIRST_ERROR:
            raise NotArchiver("a problem of the batch has no status")
        pause_s = _pause_s(problem.get("retry_after"))
        failure = problem_failure(problem, status, pause_s=pause_s)
        return Prewarmed(request, "problem", failure=failure, pause_s=pause_s)
    task, status_url = result.get("task"), result.get("status_url")
    if outcome not in OUTCOMES or not isinstance(task, str) or not isinstance(status_url, str):
        raise NotArchiver("a result of the batch is not one of Archiver")
    if not is_url(status_url):
        raise NotArchiver("a result of the batch has no valid status URL")
    return Prewarmed(request, str(outcome), task=printable(task), status_url=status_url)


def _pause_s(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return POLL_MAX_S
    return min(max(PAUSE_MIN_S, float(value)), PAUSE_MAX_S)
