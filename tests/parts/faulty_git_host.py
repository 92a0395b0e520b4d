"""A git host that answers like git, except for the faults that a test chooses.

The answers are git's own (``git upload-pack``). A fault changes one of them on its way out.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from tests.git_repositories import GitRepository
from tests.parts.faulty_host import (
    NONE,
    FaultyHost,
    Forever,
    Request,
    Step,
    chunked,
    head,
    serving,
    sized,
)

FLUSH = b"0000"
DELIMITER = b"0001"

ID = "0123456789abcdef0123456789abcdef01234567"


class Question(Enum):
    """A kind of request."""

    ADVERTISEMENT = auto()
    LS_REFS = auto()
    FETCH = auto()

    @property
    def media_type(self) -> str:
        """The type of its answer."""
        kind = "advertisement" if self is Question.ADVERTISEMENT else "result"
        return f"application/x-git-upload-pack-{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The body that git would send."""

    body: bytes
    media_type: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.media_type}


Fault = Callable[[Answer], Sequence[Step]]
"""Returns the bytes and pauses to send in place of an answer, with the head of the response."""


class FaultyGitHost(FaultyHost):
    """Serves *repository* under every name. ``faults`` has a fault for some questions."""

    def __init__(self, repository: GitRepository) -> None:
        super().__init__()
        self.repository = repository
        self.faults: dict[Question, Fault] = {}

    @property
    def template(self) -> str:
        return f"{self.url}/{{repo}}.git"

    @property
    def questions(self) -> list[Question]:
        return [_question(request) for request in self.requests]

    def steps(self, request: Request) -> tuple[Step, ...]:
        question = _question(request)
        answer = Answer(body=self._body(request), media_type=question.media_type)
        return tuple(self.faults.get(question, served)(answer))

    def _body(self, request: Request) -> bytes:
        environment = {"GIT_PROTOCOL": request.headers.get("git-protocol", "")}
        mode = "--stateless-rpc" if request.method == "POST" else "--http-backend-info-refs"
        return self.repository.git_bytes(
            "upload-pack", mode, ".", stdin=request.body, environment=environment, check=False
        )


def _question(request: Request) -> Question:
    if request.method == "GET":
        return Question.ADVERTISEMENT
    return Question.FETCH if b"command=fetch" in request.body else Question.LS_REFS


@contextlib.contextmanager
def faulty_git_host(repository: GitRepository) -> Iterator[FaultyGitHost]:
    """Serve *repository* on a free loopback port."""
    with FaultyGitHost(repository) as host, serving(host):
        yield host


# Lines of the protocol.


def line(content: bytes) -> bytes:
    return b"%04x" % (len(content) + 4) + content


def lines_of(body: bytes) -> list[bytes]:
    """Return the lines of *body*, each with its length."""
    lines, at = [], 0
    while at < len(body):
        size = max(int(body[at : at + 4], 16), 4)
        lines.append(body[at : at + size])
        at += size
    return lines


def pack_of(body: bytes) -> bytes:
    """Return the pack in an answer to ``fetch``."""
    lines = lines_of(body)
    start = lines.index(line(b"packfile\n")) + 1
    return b"".join(piece[5:] for piece in lines[start:] if piece[4:5] == b"\1")


def with_pack(pack: bytes, *, end: bytes = FLUSH) -> bytes:
    """Return an answer to ``fetch`` with *pack*, in lines of 1000 bytes."""
    pieces = [pack[at : at + 1000] for at in range(0, len(pack), 1000)]
    return line(b"packfile\n") + b"".join(line(b"\1" + piece) for piece in pieces) + end


# Faults.


def served(answer: Answer) -> Sequence[Step]:
    """Send the answer without a fault."""
    return (sized(answer.body, headers=answer.headers),)


def failed(status: str, headers: Mapping[str, str] = NONE) -> Fault:
    """Send this status, with a text that must not reach a client."""
    return lambda _: (sized(b"secret text of the host", status, headers),)


def redirected(url: str, status: str = "301 Moved Permanently") -> Fault:
    return failed(status, {"Location": url})


def replaced(body: bytes, media_type: str | None = None) -> Fault:
    """Send *body*, with the type of the answer unless another one is given."""
    return lambda answer: (sized(body, headers={"Content-Type": media_type or answer.media_type}),)


def changed(change: Callable[[bytes], bytes]) -> Fault:
    """Send the changed body."""
    return lambda answer: (sized(change(answer.body), headers=answer.headers),)


def in_band(text: bytes) -> Fault:
    """Send an error under the status 200."""
    return replaced(line(b"ERR " + text))


def cut(at: int) -> Fault:
    """End the response properly after *at* bytes of the body; from the end if negative."""
    return changed(lambda body: body[:at])


def broken_off(at: int, body: bytes | None = None) -> Fault:
    """Close the connection in the middle of a chunked body, after *at* bytes of it.

    The body is the answer's, or *body* in its place.
    """
    return lambda answer: (
        chunked((body or answer.body)[:at], headers=answer.headers, ended=False),
    )


def flipped(offset: int) -> Fault:
    """Flip one bit in the pack, at this part of its length in percent."""

    def flip(body: bytes) -> bytes:
        pack = bytearray(pack_of(body))
        pack[(len(pack) - 1) * offset // 100] ^= 0x10
        return with_pack(bytes(pack))

    return changed(flip)


def stopped(text: bytes, *, after: int = 100) -> Fault:
    """Send *after* bytes of the pack, and then an error in the third band."""
    return changed(lambda body: with_pack(pack_of(body)[:after], end=line(b"\3" + text) + FLUSH))


def without_flush(answer: Answer) -> Sequence[Step]:
    """Send everything but the end marker."""
    return cut(-len(FLUSH))(answer)


def with_sections(answer: Answer) -> Sequence[Step]:
    """Send sections that no client asked for before the pack, one with the URL of another host."""
    uri = f"{ID} http://192.0.2.1/pack-{ID}.pack\n".encode()
    sections = line(b"packfile-uris\n") + line(uri) + DELIMITER + line(b"wanted-refs\n") + DELIMITER
    return changed(lambda body: sections + body)(answer)


def endless(piece: bytes, every_s: float = 0.0, *, start: bytes = b"") -> Fault:
    """Send *start*, and then *piece* repeatedly, until the client disconnects."""
    return lambda answer: (
        head({**answer.headers, "Connection": "close"}) + start,
        Forever(piece, every_s),
    )


OLD = replaced(
    line(b"# service=git-upload-pack\n")
    + FLUSH
    + line(f"{ID} HEAD\0multi_ack thin-pack symref=HEAD:refs/heads/main\n".encode())
    + line(f"{ID} refs/heads/main\n".encode())
    + FLUSH
)
"""Version 0 of the protocol."""

DUMB = replaced(f"{ID}\trefs/heads/main\n".encode(), "text/plain; charset=utf-8")
"""The file that ``git update-server-info`` writes."""

PAGE = replaced(b"<!doctype html><title>Sign in</title>", "text/html; charset=utf-8")

EMPTY = replaced(b"")
"""The answer of git to ids of the wrong length."""
