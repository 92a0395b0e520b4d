"""Parses the responses of Archiver. No field is trusted: any server may have sent them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from archiver.client.failures import (
    CommandFailed,
    Declined,
    InvalidUsage,
    LimitReached,
    NotArchiver,
    NotFound,
    RetryLater,
    WrongBytes,
)
from archiver.client.text import host, is_url, origin, printable

OK, ACCEPTED, FIRST_ERROR, FIRST_SERVER_ERROR = 200, 202, 400, 500
REDIRECTS = frozenset({301, 302, 303, 307, 308})

POLL_MAX_S = 3.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.2, 3600.0
"""Bounds of what a server may ask for in ``Retry-After``."""
FILE_NAME_MAX = 200
"""Leaves room for `.SHA256.part` within the 255 bytes that file systems allow."""
PHASE_MAX = 13
DIGITS_MAX = 18
"""Of any integer that Archiver sends. Progress bars and other programs fail for huge ones."""

UNKNOWN = frozenset(
    {
        *("unknown_source", "unknown_repo", "unknown_rev", "unknown_subdir", "empty_tree"),
        *("submodule_missing", "lfs_file_missing"),
    }
)
"""Error codes of failed tasks that mean "not found"."""

FINAL = frozenset(
    {
        *("source_refused", "suffix_refused", "not_packable", "forbidden_address"),
        *("unsupported_host", "shadowed_node", "bad_gitmodules", "submodule_refused"),
        *("lfs_refused", "archive_too_large", "unsafe_member", "not_convertible"),
        *("bytes_changed", "wrong_root"),
    }
)
"""Codes of problems with a host or an archive that will be the same at the next try."""

TEMPORARY = frozenset(
    {
        *("source_unavailable", "source_timeout", "source_too_slow", "source_busy"),
        *("source_paused", "unproven_archive", "bad_pack", "bad_lfs_file", "not_an_archive"),
        *("truncated_archive", "incomplete_archive", "corrupt_archive", "wrong_node"),
        *("wrong_tree", "mirror_failed", "no_room", "conversion_lost", "storage_unavailable"),
    }
)
"""Codes of failed tasks that may succeed later."""

LIMITS = frozenset({"too_many_tasks", "too_many_new_tasks", "too_many_lookups", "queue_full"})
"""Codes of problems that end with time alone."""

_FAILURES = {
    400: InvalidUsage,
    404: NotFound,
    409: WrongBytes,
    429: RetryLater,
    502: RetryLater,
    503: RetryLater,
    504: RetryLater,
}

_HINTS = dict.fromkeys(
    (401, 403),
    "ARCHIVER_TOKEN, or the password for this host in ~/.netrc, is the token that is sent.",
)

_HINTS_BY_CODE = {
    "submodule_missing": "Push the commit to the submodule's repository, or move the submodule.",
    "lfs_file_missing": "Upload the file: git lfs push --all.",
    "submodule_refused": "A submodule that your token does not cover is refused, too.",
    "other_bytes": (
        "The sum may be that of another archive: of another suffix or subdir, or with or without "
        "submodules or LFS files. In a lock file, remove node, sha256 and size, and lock again."
    ),
}

_PATTERNS = {
    "archiver-sha256": re.compile(r"[0-9a-f]{64}"),
    "archiver-size": re.compile(r"[0-9]{1,18}"),
    "archiver-node": re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?"),
    "archiver-region": re.compile(r"[a-z0-9][a-z0-9_-]{0,62}"),
}
"""The headers of a redirect to an archive."""
_CODE = re.compile(r"[a-z][a-z0-9_]{1,63}")
_DESCRIBED_BY = re.compile(r'<([^<>]*)>;\s?rel="describedby"')


@dataclass(frozen=True)
class ApiResponse:
    """An HTTP response without its connection. Header names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Located:
    """Where the archive is and what its bytes must be. ``url`` is presigned: a secret.

    ``is_exact`` is set if the server says that its files are exactly those of the git commit.
    """

    url: str = field(repr=False)
    sha256: str
    size_bytes: int
    node: str
    region: str
    is_exact: bool = False
    status_url: str | None = None

    @property
    def file_name(self) -> str:
        """A file name made of the safe characters in the URL's last segment."""
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._+-]", "-", last)[-FILE_NAME_MAX:].lstrip(".-") or "archive"

    @property
    def label(self) -> str:
        """Region and host, for messages: nothing of it is secret."""
        return f"{self.region} ({host(self.url)})"


@dataclass(frozen=True)
class Accepted:
    """A task builds the archive; ``status_url`` reports its progress.

    ``requested_url`` is the URL that led to the task; None if the user named the task itself.
    """

    status_url: str
    retry_after_s: float
    requested_url: str | None = None


@dataclass(frozen=True)
class TaskStatus:
    """A task as its status URL reports it.

    ``presigned_urls`` maps regions to secret links. ``result`` is everything that the server
    sent, these links included.
    """

    state: str
    phase: str
    bytes_done: int
    code: str
    reason: str
    presigned_urls: Mapping[str, str] = field(repr=False)
    result: Mapping[str, object] = field(repr=False)
    etag: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in {"SUCCESS", "FAILURE"}

    def raise_if_failed(self) -> None:
        """Raise CommandFailed with the task's reason if it failed."""
        if self.state == "FAILURE":
            message, code = f"{self.code}: {self.reason}", _valid_code(self.code)
            kind: type[CommandFailed] = CommandFailed
            if self.code in UNKNOWN:
                kind = NotFound
            elif self.code in TEMPORARY:
                kind = RetryLater
            raise kind(message, code=code, hint=_HINTS_BY_CODE.get(self.code, ""))


def parse_archive_response(
    response: ApiResponse, requested_url: str | None = None
) -> Located | Accepted:
    """Return where the archive is, or its task. Raises CommandFailed for any other response."""
    if response.status in REDIRECTS:
        return _parse_redirect(response, requested_url)
    if response.status == ACCEPTED:
        return _parse_accepted(response, requested_url)
    if response.status < FIRST_ERROR:
        raise NotArchiver(
            f"unexpected status {response.status}: Archiver sends 202, 302 or an error"
        )
    raise _failure(response)


def parse_status_response(response: ApiResponse) -> TaskStatus:
    """Return the status of a task. Raises CommandFailed for any other response."""
    if response.status in {ACCEPTED, *REDIRECTS}:
        raise CommandFailed(
            "the response is not the status of a task",
            hint="The URL of an archive leads to its task, and `archiver get` downloads it.",
        )
    if response.status != OK:
        raise _failure(response)
    try:
        return _parse_status(_members(_decode(response.body), "result"), response)
    except _WrongForm:
        raise NotArchiver("the response is not the status of a task") from None


def _parse_status(result: Mapping[str, object], response: ApiResponse) -> TaskStatus:
    error = _members(result, "error")
    bytes_done = result.get("bytes_done")
    if not isinstance(bytes_done, (int, type(None))) or (bytes_done or 0) < 0:
        raise _WrongForm
    links = _members(result, "s3_urls")
    code, status = _text(error, "code"), _text(result, "status")
    state = printable(_text(result, "state") or _wrong_form(), length_max=PHASE_MAX)
    return TaskStatus(
        state=state,
        phase=printable(_text(result, "phase"), length_max=PHASE_MAX),
        bytes_done=bytes_done or 0,
        code=printable(code or ("failed" if state == "FAILURE" else "")),
        reason=printable(_text(error, "message") or status or "no reason given"),
        etag=response.headers.get("etag"),
        presigned_urls={region: _text(links, region) for region in links},
        result=result,
    )


def _parse_redirect(response: ApiResponse, requested_url: str | None) -> Located:
    headers = response.headers
    values = {
        name: match[0]
        for name, pattern in _PATTERNS.items()
        if (match := pattern.fullmatch(headers.get(name, "")))
    }
    url = headers.get("location", "")
    described = _DESCRIBED_BY.search(headers.get("link", ""))
    status_url = described[1] if described else None
    if is_url(url) and len(values) == len(_PATTERNS) and (status_url is None or is_url(status_url)):
        return Located(
            url=url,
            sha256=values["archiver-sha256"],
            size_bytes=int(values["archiver-size"]),
            node=values["archiver-node"],
            region=values["archiver-region"],
            is_exact=headers.get("archiver-proof") == "exact",
            status_url=status_url,
        )
    if is_url(url) and not values:
        raise NotArchiver(
            f"the server redirects to {origin(url)}, not to an archive",
            hint=_moved_hint(url, requested_url),
        )
    raise NotArchiver("the redirect lacks a header of Archiver, or has a wrong one")


def _moved_hint(url: str, requested_url: str | None) -> str:
    """Return what to do if Archiver moved to the origin of *url*: only it has the same path.

    Another program must not be named as a server, because it would get the token.
    """
    path = urlsplit(requested_url or "").path
    if not path or urlsplit(url).path != path:
        return ""
    return f"If Archiver moved there, use --server {origin(url)}"


def _parse_accepted(response: ApiResponse, requested_url: str | None) -> Accepted:
    status_url = response.headers.get("location", "")
    if not is_url(status_url):
        raise NotArchiver("the response has no valid status URL")
    return Accepted(
        status_url=status_url, retry_after_s=_retry_after_s(response), requested_url=requested_url
    )


def _retry_after_s(response: ApiResponse) -> float:
    try:
        delay_s = float(response.headers.get("retry-after", POLL_MAX_S))
    except ValueError:
        return POLL_MAX_S
    return delay_s if math.isfinite(delay_s) else POLL_MAX_S


def _pause_s(response: ApiResponse) -> float:
    return min(max(PAUSE_MIN_S, _retry_after_s(response)), PAUSE_MAX_S)


def _failure(response: ApiResponse) -> CommandFailed:
    """Return the failure that an error response means for the command."""
    try:
        problem = _decode(response.body)
    except _WrongForm:
        problem = {}
    return problem_failure(
        problem, response.status, reason=response.reason, pause_s=_pause_s(response)
    )


def problem_failure(
    problem: Mapping[str, object], status: int, *, reason: str = "", pause_s: float = POLL_MAX_S
) -> CommandFailed:
    """Return the failure that a problem (RFC 9457) means, whose members are shown to the user.

    *reason* stands in for a missing detail; *pause_s* is the time until a limit may allow it.
    """
    try:
        code, allowed = _text(problem, "code"), _text(problem, "allowed")
        detail = _text(problem, "detail")
    except _WrongForm:
        code = allowed = detail = ""
    detail = detail or reason or "no reason given"
    if allowed:
        detail = f"{detail} (allowed: {allowed})"
    message = printable(f"{code or status}: {detail}")
    known = _valid_code(code)
    if code in LIMITS:
        return LimitReached(message, code=known, pause_s=pause_s)
    failure = _FAILURES.get(status, CommandFailed)
    if code in FINAL:
        failure = CommandFailed
    elif failure is RetryLater and code:
        failure = Declined
    hint = _HINTS_BY_CODE.get(code) or _HINTS.get(status, "")
    failed = failure(message, code=known, hint=hint)
    failed.elsewhere |= status >= FIRST_SERVER_ERROR or not known
    return failed


def parse_results(response: ApiResponse, count: int) -> list[Mapping[str, object]]:
    """Return the *count* results of a batch. Raises CommandFailed for any other response."""
    if response.status != OK:
        raise _failure(response)
    try:
        results = _decode(response.body).get("results")
    except _WrongForm:
        results = None
    if not isinstance(results, list) or len(results) != count:
        raise NotArchiver(f"the response does not have {count} results")
    return [result if isinstance(result, dict) else {} for result in results]


def _valid_code(code: str) -> str:
    """Return *code* if it looks like one of Archiver; empty if not."""
    return code if _CODE.fullmatch(code) else ""


class _WrongForm(Exception):
    """A document does not have the form that Archiver gives it."""


def _wrong_form(_name: str = "") -> NoReturn:
    raise _WrongForm


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise _WrongForm
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _wrong_form()


def _decode(body: bytes) -> Mapping[str, object]:
    """Return the members of a JSON object. Raises _WrongForm, also if it is nested too deeply."""
    try:
        document = json.loads(
            body, parse_int=_integer, parse_float=_number, parse_constant=_wrong_form
        )
    except (ValueError, RecursionError):
        raise _WrongForm from None
    if not isinstance(document, dict):
        raise _WrongForm
    return document


def _members(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return the members of an object in *document*; none if it is absent or null."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _WrongForm
    return value


def _text(document: Mapping[str, object], name: str) -> str:
    """Return a string in *document*; an empty one if it is absent or null."""
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _WrongForm
    return value
