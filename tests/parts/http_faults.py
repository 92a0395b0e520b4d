"""Faults of hosts in HTTP, and the expected ends of the tasks."""

from collections.abc import Iterator, Mapping
from itertools import product

from tests.parts.fault_cases import (
    MAX_FAILURES,
    Body,
    Case,
    MakeResponse,
    Subject,
    body,
    refused,
    retried,
    script,
    sound,
)
from tests.parts.faulty_host import (
    NONE,
    Break,
    Forever,
    Pause,
    Step,
    chunked,
    head,
    sized,
    until_close,
)

READ_TIMEOUT_S = 3.0
DEADLINE_S = 10.0
MIN_RATE_BYTES_S = 1000
MIN_RATE_WINDOW_S = 4.0
"""The settings with which the cases must run."""

SILENCE = Pause(30)
MOMENT = Pause(1)
"""Long enough for the client to read all earlier bytes."""

LARGE_BYTES = 12 << 20
"""More than one part of an upload to S3."""

CHUNKED = head({"Transfer-Encoding": "chunked"})


def http_faults() -> Iterator[Case]:
    """Yield each case once, the slow ones first."""
    yield from _drips()
    yield from _silences()
    yield from _breaks()
    yield from _breaks_in_the_head()
    yield from _lengths()
    yield from _nonsense()
    yield from _broken_chunks()
    yield from _oddities()
    yield from _statuses()
    yield from _redirects()
    yield from _lookups()


def _breaks() -> Iterator[Case]:
    for how, framing, place in product(_ENDS, ("sized", "chunked", "until-close"), _PLACES):
        nothing = (framing, place) == ("until-close", "at-0")
        code = "not_an_archive" if nothing else "truncated_archive"
        broken = script(_cut(framing, _PLACES[place]), *_ENDS[how])
        yield from retried(f"{how}-{framing}-{place}", code, broken)
    yield from retried("chunked-without-its-end", "truncated_archive", script(_endless_chunks))
    yield from retried(
        "chunked-without-its-last-line", "truncated_archive", script(lambda s: _in_chunks(s)[:-2])
    )
    yield from retried("large-close-until-close-at-half", "truncated_archive", script(_large_cut))
    yield sound("reset-after-the-end", script(_in_chunks, Break.RESET))


_ENDS: Mapping[str, tuple[Step, ...]] = {"reset": (Break.RESET,), "close": ()}
_PLACES: Mapping[str, float] = {"at-0": 0, "at-1": 1, "at-half": 0.5, "at-the-last-byte": -1}


def _cut(framing: str, place: float) -> Body:
    """Return a response that ends early: *place* is a byte of the body, or a fraction of it."""

    def cut(subject: Subject) -> bytes:
        whole = subject.packed()
        starts = {
            "sized": head({"Content-Length": str(len(whole))}),
            "sized-one-too-short": head({"Content-Length": str(len(whole) - 1)}),
            "chunked": CHUNKED + b"%x\r\n" % len(whole),
            "until-close": head({"Connection": "close"}),
        }
        size = len(whole) * place if place % 1 else place
        return starts[framing] + whole[: int(size)]

    return cut


def _in_chunks(subject: Subject) -> bytes:
    return chunked(subject.packed())


def _endless_chunks(subject: Subject) -> bytes:
    return chunked(subject.packed(), ended=False)


def _large_cut(subject: Subject) -> bytes:
    return until_close(subject.packed(size_bytes=LARGE_BYTES)[: LARGE_BYTES * 3 // 4])


def _breaks_in_the_head() -> Iterator[Case]:
    beginnings = {"at-0": b"", "at-1": b"H", "at-half": b"HTTP/1.1 200 OK\r\nContent-Le"}
    for how, (place, part) in product(_ENDS, beginnings.items()):
        yield from retried(
            f"{how}-{place}-of-the-head", "source_unavailable", script(part, *_ENDS[how])
        )


def _silences() -> Iterator[Case]:
    beginnings: dict[str, tuple[Step | Body, ...]] = {
        "before-the-head": (),
        "in-the-head": (b"HTTP/1.1 200 OK\r\nContent-",),
        "after-the-head": (head({"Content-Length": "9999"}),),
        "in-the-middle": (_cut("sized", 0.5),),
        "in-the-middle-of-a-chunk": (_cut("chunked", 0.5),),
        "instead-of-the-last-byte": (_cut("sized", -1),),
        "instead-of-the-last-chunk": (_endless_chunks,),
        "instead-of-a-close": (head({"Connection": "close"}), Subject.packed),
    }
    for place, beginning in beginnings.items():
        yield from retried(f"silent-{place}", "source_timeout", script(*beginning, SILENCE))
    yield sound("silent-after-the-end", script(_in_chunks, SILENCE))


def _drips() -> Iterator[Case]:
    name_of_a_gzip = head({"Connection": "close"}) + b"\x1f\x8b\x08\x08" + bytes(6)
    yield from retried(
        "drips-its-body", "source_too_slow", script(name_of_a_gzip, Forever(b"x", every_s=1))
    )
    yield from retried(
        "is-never-done",
        "source_timeout",
        script(name_of_a_gzip, Forever(b"x" * MIN_RATE_BYTES_S, every_s=0.5)),
    )
    frames = {
        "head": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        "interim-answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "chunk-size": (CHUNKED + b"1;", b"x"),
        "trailers": (CHUNKED + b"0\r\nX: ", b"x"),
    }
    for place, (start, drop) in frames.items():
        yield from retried(
            f"drips-its-{place}", "source_timeout", script(start, Forever(drop, every_s=1))
        )


def _lengths() -> Iterator[Case]:
    for name, missing in {"one-too-long": 1, "far-too-long": 1 << 60}.items():
        yield from retried(f"length-{name}", "truncated_archive", script(_misstated(missing)))
    short = script(_cut("sized-one-too-short", -1), MOMENT, b"\0")
    yield from retried("length-one-too-short", "truncated_archive", short)
    for name, code, lengths in (
        ("zero", "not_an_archive", ["0"]),
        ("negative", "source_unavailable", ["-1"]),
        ("of-no-number", "source_unavailable", ["many"]),
        ("beyond-64-bits", "source_unavailable", [str(1 << 64)]),
        ("of-two-minds", "source_unavailable", ["5, 6"]),
        ("twice", "source_unavailable", ["5", "6"]),
    ):
        lines = "".join(f"Content-Length: {length}\r\n" for length in lengths)
        start = f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()
        yield from retried(f"length-{name}", code, script(start, MOMENT, Subject.packed))


def _misstated(missing: int) -> Body:
    return lambda subject: sized(subject.packed(), missing=missing)


def _nonsense() -> Iterator[Case]:
    start = b"HTTP/1.1 200 OK\r\n"
    for name, response in {
        "another-protocol": b"220 mail.example.org ESMTP\r\n",
        "a-tls-alert": b"\x15\x03\x03\x00\x02\x02\x28",
        "http-2": bytes.fromhex("000012040000000000") + bytes(18),
        "a-status-in-words": b"HTTP/1.1 two hundred\r\n\r\n",
        "a-status-of-four-digits": b"HTTP/1.1 2000 OK\r\n\r\n",
        "no-status": b"HTTP/1.1\r\n\r\n",
        "a-header-without-a-colon": start + b"nothing\r\n\r\n",
        "a-nul-in-a-header": start + b"X: a\0b\r\n\r\n",
        "a-long-status-line": start[:-2] + b"!" * 100_000 + b"\r\n\r\n",
        "a-long-header": start + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        "many-headers": start + b"X: x\r\n" * 10_000 + b"\r\n",
    }.items():
        yield from retried(f"nonsense-{name}", "source_unavailable", script(response))
    for name, line in {"headers": b"X: x\r\n", "a-header": b"x" * 65536}.items():
        yield from retried(
            f"nonsense-endless-{name}", "source_unavailable", script(start, b"X: ", Forever(line))
        )


def _broken_chunks() -> Iterator[Case]:
    beginnings: dict[str, Step | Body] = {"first": CHUNKED, "later": _endless_chunks}
    chunks = {
        "of-a-size-in-words": b"many\r\n",
        "of-a-negative-size": b"-1\r\n",
        "of-a-size-beyond-64-bits": b"fffffffffffffffff\r\n",
    }
    for (place, beginning), (name, chunk) in product(beginnings.items(), chunks.items()):
        broken = script(beginning, MOMENT, chunk, SILENCE)
        yield from retried(f"chunk-{name}-{place}", "truncated_archive", broken)
    for place, start in {"first": 0, "later": -1}.items():
        broken = script(*_cut_by_a_longer_chunk(start), SILENCE)
        yield from retried(f"chunk-longer-than-it-says-{place}", "truncated_archive", broken)


def _cut_by_a_longer_chunk(start: int) -> tuple[Step | Body, ...]:
    """Return a response whose last chunk says 1 byte, that of the archive at *start*, and has 3.

    A slow client may see that byte before the fault, so it must belong to the archive.
    """

    def chunk(subject: Subject) -> bytes:
        byte = subject.packed()[start:][:1]
        return b"1\r\n" + byte + b"bc\r\n0\r\n\r\n"

    def beginning(subject: Subject) -> bytes:
        before = subject.packed()[:start]
        return chunked(before, ended=False) if before else CHUNKED

    return beginning, MOMENT, chunk


def _oddities() -> Iterator[Case]:
    for name, before in {
        "100-continue-first": b"HTTP/1.1 100 Continue\r\n\r\n",
        "103-early-hints-first": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    }.items():
        yield sound(name, script(before, _in_chunks))
    for name, after in {
        "garbage": b"\0garbage",
        "another-answer": sized(b"1 " + b"f" * 40 + b"\n"),
        "half-an-answer": b"HTTP/1.1 200 O",
    }.items():
        yield sound(f"{name}-after-the-end", script(_in_chunks, MOMENT, after))
    yield sound("chunk-extensions", script(CHUNKED, _one_chunk(b";name=value", b"0;last\r\n\r\n")))
    yield sound("trailers", script(CHUNKED, _one_chunk(b"", b"0\r\nX-Sum: 1\r\n\r\n")))
    yield sound("a-content-range-with-200", body(Subject.packed, {"Content-Range": "bytes 0-9/10"}))
    yield sound("http-1-0", script(b"HTTP/1.0 200 OK\r\n\r\n", Subject.packed))
    yield sound("large", body(_large), stored=_large)


def _large(subject: Subject) -> bytes:
    return subject.packed(size_bytes=LARGE_BYTES)


def _one_chunk(extension: bytes, end: bytes) -> Body:
    def chunk(subject: Subject) -> bytes:
        whole = subject.packed()
        return b"%x%s\r\n%s\r\n%s" % (len(whole), extension, whole, end)

    return chunk


def _statuses() -> Iterator[Case]:
    for status, code in {
        "400 Bad Request": "source_refused",
        "401 Unauthorized": "source_refused",
        "403 Forbidden": "source_refused",
        "403 Archive type not allowed": "suffix_refused",
        "404 Not Found": "unknown_rev",
        "404 Unsupported archive type": "suffix_refused",
        "407 Proxy Authentication Required": "source_refused",
        "410 Gone": "source_refused",
        "451 Unavailable For Legal Reasons": "source_refused",
    }.items():
        yield refused(_named(status), code, body(Subject.packed, status=status))
    for status, code, headers in (
        ("201 Created", "source_unavailable", NONE),
        ("202 Accepted", "source_unavailable", NONE),
        ("204 No Content", "source_unavailable", NONE),
        ("206 Partial Content", "source_unavailable", {"Content-Range": "bytes 0-9/10"}),
        ("300 Multiple Choices", "source_unavailable", NONE),
        ("304 Not Modified", "source_unavailable", NONE),
        ("408 Request Timeout", "source_unavailable", NONE),
        ("421 Misdirected Request", "source_unavailable", NONE),
        ("425 Too Early", "source_unavailable", NONE),
        ("429 Too Many Requests", "source_busy", NONE),
        ("429 Patience", "source_busy", {"Retry-After": "1"}),
        ("500 Internal Server Error", "source_unavailable", NONE),
        ("502 Bad Gateway", "source_unavailable", NONE),
        ("503 Service Unavailable", "source_busy", NONE),
        ("503 Patience", "source_busy", {"Retry-After": "1"}),
        ("503 Anger", "source_busy", {"Retry-After": "-9" * 3000}),
        ("504 Gateway Timeout", "source_unavailable", NONE),
        ("599 What Is This", "source_unavailable", NONE),
        ("999 What Is This", "source_unavailable", NONE),
    ):
        yield from retried(_named(status), code, body(Subject.packed, headers, status=status))
    yield from retried(
        "101-switching-protocols",
        "source_unavailable",
        script(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
    )


def _named(status: str) -> str:
    return status.lower().replace(" ", "-")


def _redirects() -> Iterator[Case]:
    again = "{target}?again"
    yield refused("redirect-to-itself", "source_refused", _to("{target}"), requests=4)
    yield refused("redirect-in-a-circle", "source_refused", _to("?{target}"), requests=4)
    for name, place in {
        "to-another-host": "{elsewhere}{target}",
        "to-another-host-without-a-scheme": "//{elsewhere_host}{target}",
        "to-the-metadata-service": "http://169.254.169.254/latest/meta-data/",
        "to-a-name-that-cannot-be": "http://xn--/",
        "to-another-port": "http://127.0.0.1:1/",
        "with-a-password": "http://user:s3cret@{home_host}{target}",
        "to-a-file": "file:///etc/passwd",
        "to-ftp": "ftp://{home_host}/",
        "to-javascript": "javascript:alert(1)",
    }.items():
        yield refused(f"redirect-{name}", "forbidden_address", _to(place))
    for name, place in {
        "to-a-port-that-is-none": "http://{home_host}9999999/",
        "to-half-an-address": "http://[",
    }.items():
        yield from retried(f"redirect-{name}", "source_unavailable", _to(place))
    yield from retried(
        "redirect-to-https-that-is-none", "source_timeout", _to("https://{home_host}{target}")
    )
    yield from retried(
        "redirect-to-nowhere", "source_unavailable", body(lambda _: b"", status="302 Found")
    )
    for status in (301, 302, 303, 307, 308):
        yield Case(
            name=f"redirect-{status}-to-the-archive",
            responses=[_to(again, f"{status} Over There"), body(Subject.packed)],
            requests=2,
        )


def _to(place: str, status: str = "302 Found") -> MakeResponse:
    def redirect(subject: Subject) -> bytes:
        location = place.format(
            target=subject.target,
            elsewhere=subject.elsewhere,
            elsewhere_host=subject.elsewhere.removeprefix("http://"),
            home_host=subject.home.removeprefix("http://"),
        )
        return sized(b"", status, {"Location": location})

    return script(redirect)


def _lookups() -> Iterator[Case]:
    """Faults before the request for the archive."""
    for name, code, failures, steps in (
        ("names-another-changeset", "shadowed_node", 1, (sized(b"1 " + b"e" * 40 + b"\n"),)),
        ("is-ambiguous", "shadowed_node", 1, (sized(b"0 x@1: ambiguous identifier\n"),)),
        ("knows-nothing", "source_unavailable", MAX_FAILURES, (sized(b"0 unknown revision\n"),)),
        ("is-a-page", "unknown_repo", 1, (sized(b"", headers={"Content-Type": "text/html"}),)),
        ("is-nonsense", "source_unavailable", MAX_FAILURES, (sized(b"2"),)),
        ("is-endless", "source_unavailable", MAX_FAILURES, (CHUNKED, Forever(b"1\r\n1\r\n"))),
        ("is-cut", "source_unavailable", MAX_FAILURES, (sized(b"1 ", missing=41),)),
        ("is-busy", "source_busy", MAX_FAILURES, (sized(b"", "503 Service Unavailable"),)),
        ("is-a-crash", "source_unavailable", MAX_FAILURES, (sized(b"", "500 Oh"),)),
        ("is-silent", "source_timeout", MAX_FAILURES, (CHUNKED, SILENCE)),
    ):
        yield Case(
            name=f"lookup-{name}",
            responses=[],
            code=code,
            failures=failures,
            requests=0,
            lookup=steps,
        )
