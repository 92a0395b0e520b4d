"""What Archiver answers, read with suspicion: an answer may come from anything at all."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from archiver.cli.failures import CommandFailed, Declined, Misused, NotFound, RetryLater
from archiver.cli.terminal import printable
from archiver.manifest_check import SHA256

POLL_MAX_S = 3.0
NAME_MAX = 200
"""Of a file: room for `.DIGEST.part` within the 255 bytes that file systems allow."""
URL_MAX = 8192
PHASE_MAX = 13

UNKNOWN = frozenset(
    {"unknown_source", "unknown_repo", "unknown_rev", "unknown_subdir", "empty_tree"}
)

_MEANING = {
    400: Misused,
    404: NotFound,
    429: RetryLater,
    502: RetryLater,
    503: RetryLater,
    504: RetryLater,
}

_NODE = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REGION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SIZE = re.compile(r"[0-9]{1,18}")
_DESCRIBED_BY = re.compile(r'<([^<>]*)>;\s?rel="describedby"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer without its connection. Names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the archive is, and what its bytes have to be. ``url`` is presigned: a secret."""

    url: str = field(repr=False)
    sha256: str
    size_bytes: int
    node: str
    region: str
    status_url: str | None = None

    @property
    def file_name(self) -> str:
        """A file name made of the safe characters in the URL's last segment."""
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._+-]", "-", last)[-NAME_MAX:].lstrip(".-") or "archive"

    @property
    def place(self) -> str:
        """Region and host, without what is secret in the URL."""
        return f"{self.region} ({host(self.url)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A task is making the archive; ``status_url`` has its progress.

    ``asked`` is the URL that was answered so, unless the status URL itself is what the user gave.
    """

    status_url: str
    retry_after_s: float
    asked: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The answer of a status URL; ``tag`` is the server's name for it, if it has one.

    ``links`` are presigned, and so is what ``result`` has of them: all keys, as the server sent it.
    """

    state: str
    phase: str
    bytes_done: int
    code: str
    reason: str
    tag: str | None = None
    links: Mapping[str, str] = field(repr=False)
    result: Mapping[str, object] = field(repr=False)

    @property
    def ended(self) -> bool:
        return self.state in {"SUCCESS", "FAILURE"}

    def check(self) -> None:
        """Return unless the task failed. Raises CommandFailed with its reason."""
        if self.state == "FAILURE":
            message = f"{self.code}: {self.reason}"
            raise NotFound(message) if self.code in UNKNOWN else CommandFailed(message)


class _Problem(msgspec.Struct):
    """The members of RFC 9457 that a user sees."""

    code: str | None = None
    detail: str | None = None
    allowed: str | None = None


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Result(msgspec.Struct):
    """The status of a task, as far as commands depend on it."""

    state: str
    status: str | None = None
    phase: str | None = None
    bytes_done: Annotated[int, msgspec.Meta(ge=0)] | None = None
    error: _Error | None = None
    s3_urls: dict[str, str] | None = None


class _Known(msgspec.Struct):
    result: _Result


class _Whole(msgspec.Struct):
    result: dict[str, object]


_T = TypeVar("_T")


def understand(answer: Answer, asked: str | None = None) -> Located | Accepted:
    """Return what an answer to a request for an archive means.

    Raises:
        CommandFailed: Neither that it is there nor that it will be.
    """
    match answer.status:
        case 301 | 302 | 303 | 307 | 308:
            return _located(answer)
        case 202:
            return _accepted(answer, asked)
        case status if status < 400:  # noqa: PLR2004 - where HTTP's errors begin
            raise CommandFailed(f"it answers {status}, which is not what Archiver does")
        case _:
            raise _refusal(answer)


def understand_status(answer: Answer) -> Progress:
    """Return what a status URL says.

    Raises:
        CommandFailed: It says something else.
    """
    if answer.status != 200:  # noqa: PLR2004
        raise _refusal(answer)
    known, whole = _decoded(answer.body, _Known), _decoded(answer.body, _Whole)
    if not known or not whole:
        raise CommandFailed("the answer is not the status of a task")
    status = known.result
    error = status.error or _Error()
    return Progress(
        state=printable(status.state, longest=PHASE_MAX),
        phase=printable(status.phase or "", longest=PHASE_MAX),
        bytes_done=status.bytes_done or 0,
        code=printable(error.code or "failed"),
        reason=printable(error.message or status.status or "no reason is given"),
        tag=answer.headers.get("etag"),
        links=status.s3_urls or {},
        result=whole.result,
    )


def _decoded(body: bytes, kind: type[_T]) -> _T | None:
    """Return the JSON in *body*, or None if it is something else or nested without end."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _located(answer: Answer) -> Located:
    headers = answer.headers
    said = {
        name: match[0]
        for name, pattern in (
            ("archiver-sha256", SHA256),
            ("archiver-size", _SIZE),
            ("archiver-node", _NODE),
            ("archiver-region", _REGION),
        )
        if (match := pattern.fullmatch(headers.get(name, "")))
    }
    url = headers.get("location", "")
    try:
        described = _DESCRIBED_BY.search(headers.get("link", ""))
        return Located(
            url=_checked(url),
            sha256=said["archiver-sha256"],
            size_bytes=int(said["archiver-size"]),
            node=said["archiver-node"],
            region=said["archiver-region"],
            status_url=_checked(described[1]) if described else None,
        )
    except (KeyError, ValueError) as exc:
        if is_url(url) and not said:
            raise CommandFailed(f"it redirects to {origin(url)}, which --server may name") from exc
        raise CommandFailed("the redirect does not say what it leads to") from exc


def _accepted(answer: Answer, asked: str | None) -> Accepted:
    try:
        status_url = _checked(answer.headers.get("location", ""))
    except ValueError as exc:
        raise CommandFailed("the answer does not say where to ask how far it is") from exc
    return Accepted(status_url=status_url, retry_after_s=_retry_after_s(answer), asked=asked)


def _checked(url: str) -> str:
    if not is_url(url):
        raise ValueError
    return url


def is_url(text: str) -> bool:
    """Return whether *text* is an absolute http or https URL, fit to be sent."""
    try:
        url = urlsplit(text)
        return (
            url.scheme in {"http", "https"}
            and bool(url.hostname)
            and url.port != 0
            and text.isascii()
            and text.isprintable()
            and " " not in text
            and len(text) <= URL_MAX
        )
    except ValueError:
        return False


def host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def origin(url: str) -> str:
    return f"{urlsplit(url).scheme}://{host(url)}"


def _retry_after_s(answer: Answer) -> float:
    try:
        delay_s = float(answer.headers.get("retry-after", POLL_MAX_S))
    except ValueError:
        return POLL_MAX_S
    return delay_s if math.isfinite(delay_s) else POLL_MAX_S


def _refusal(answer: Answer) -> CommandFailed:
    """Return what a status that leads no further means to the one who asked."""
    problem = _decoded(answer.body, _Problem) or _Problem()
    detail = problem.detail or answer.reason or "no reason is given"
    if problem.allowed:
        detail = f"{detail} (allowed: {problem.allowed})"
    meaning = _MEANING.get(answer.status, CommandFailed)
    if meaning is RetryLater and problem.code:
        meaning = Declined
    return meaning(printable(f"{problem.code or answer.status}: {detail}"))
