"""Raw bytes sent to the real server: malformed requests create nothing."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archiver.web.request_target import TARGET_MAX_BYTES
from tests.parts.process import accepts, free_port, running
from tests.web.client import PUBLIC_URL
from tests.web.raw import RawResponse, request

ROOT = Path(__file__).parents[2]
NODE = b"0123456789abcdef0123456789abcdef01234567"
ASH = b"/archiver/hgmo/projects/ash/" + NODE


@dataclass(frozen=True, kw_only=True)
class Server:
    port: int

    def request(self, target: bytes, *, method: bytes = b"GET", host: bytes = b"h") -> RawResponse:
        return request(self.port, target, method=method, host=host)

    def fakes(self) -> dict[str, Any]:
        fakes: dict[str, Any] = self.request(b"/fakes").json
        return fakes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("raw") / "log"
    command = [sys.executable, "-m", "tests.web.servant", "fakes", f"127.0.0.1:{port}"]
    with running(command, log=log, ready=lambda: accepts(port), cwd=ROOT):
        yield Server(port=port)


def _in_repo(segment: bytes) -> bytes:
    return b"/archiver/hgmo/projects/" + segment + b"/" + NODE


def _in_rev(segment: bytes) -> bytes:
    return b"/archiver/hgmo/projects/ash/" + segment


BAD_SEGMENTS = (
    b".",
    b"..",
    b"",
    b"-",
    b"%2e",
    b"%2E%2e",
    b"%2D",
    b"a%2Fb",
    b"a%2fb",
    b"%00",
    b"a%00b",
    b"%0d%0aSet-Cookie:%20a=b",
    b"%0A",
    b"%0D",
    b"a\\b",
    b"a%5Cb",
    b"%ff",
    b"%c3",
    b"%ed%a0%80",  # a surrogate
    b"%c0%af",  # a slash, over-long
    b"a%",
    b"a%zz",
    b"%e2%80%8b",  # a space of no width
    b"%e2%80%ae",  # reverses the direction of writing
    b"x" * 256,
    b"%c3%a9" * 100,  # 600 bytes in a key
)


BAD_REVS = (
    b".",
    b"..",
    b"",
    b"%2e",
    b"%2E%2e",
    b"a%2F..%2Fb",
    b"a%2F%2e%2E%2Fb",
    b"%00",
    b"a%00b",
    b"%0d%0aSet-Cookie:%20a=b",
    b"%0A",
    b"%0D",
    b"%1b%5B2J",
    b"%c2%9b2J",  # the same for a terminal
    b"%ff",
    b"%c3",
    b"%ed%a0%80",  # a surrogate
    b"%c0%af",  # a slash, over-long
    b"a%",
    b"a%zz",
    b"x" * 1025,
    b"%c3%a9" * 513,
)


@pytest.mark.parametrize(
    ("target", "parameter"),
    (
        *((_in_repo(segment), "repo") for segment in BAD_SEGMENTS),
        *((_in_rev(segment), "rev") for segment in BAD_REVS),
    ),
)
def test_a_bad_segment_is_a_400_that_names_its_place(
    server: Server, target: bytes, parameter: str
) -> None:
    before = server.fakes()
    assert_bad(server.request(target), parameter)
    assert server.fakes() == before


@pytest.mark.parametrize("segment", [s for s in BAD_SEGMENTS if s])
def test_a_bad_source_is_a_400_that_names_it(server: Server, segment: bytes) -> None:
    before = server.fakes()
    assert_bad(server.request(b"/archiver/" + segment + b"/projects/ash/" + NODE), "source")
    assert server.fakes() == before


@pytest.mark.parametrize(
    ("query", "parameter"),
    (
        (b"subdir=..", "subdir"),
        (b"subdir=a/../b", "subdir"),
        (b"subdir=a%2F..%2Fb", "subdir"),
        (b"subdir=/a", "subdir"),
        (b"subdir=a/", "subdir"),
        (b"subdir=a//b", "subdir"),
        (b"subdir=-", "subdir"),
        (b"subdir=a%00", "subdir"),
        (b"subdir=a%0d%0ab", "subdir"),
        (b"subdir=a\\b", "subdir"),
        (b"subdir=%ff", "subdir"),
        (b"subdir=" + b"x" * 256, "subdir"),
        (b"subdir=" + b"/".join([b"x" * 200] * 4), "subdir"),
        (b"suffix=exe", "suffix"),
        (b"suffix=", "suffix"),
        (b"suffix=tar.gz/b", "suffix"),
        (b"suffix=%fe", "suffix"),
        (b"preferred_region=a/b", "preferred_region"),
        (b"preferred_region=%0a", "preferred_region"),
        (b"preferred_region=" + b"r" * 64, "preferred_region"),
        (b"sufix=tar.gz", "sufix"),
        (b"subdir[]=a", "subdir[]"),
        (b"SUBDIR=a", "SUBDIR"),
        (b"=a", ""),
        (b"%ff=a", "query"),
        (b"subdir=a&subdir=a", "subdir"),
        (b"subdir=a&sub%64ir=b", "subdir"),
        (b"suffix=tar.gz&&suffix=zip", "suffix"),
        (b"subdir=a%", "subdir"),
        (b"rev=", "rev"),
    ),
)
def test_a_bad_query_is_a_400_that_names_the_parameter(
    server: Server, query: bytes, parameter: str
) -> None:
    before = server.fakes()
    assert_bad(server.request(ASH + b"?" + query), parameter)
    assert server.fakes() == before


@pytest.mark.parametrize(
    "target",
    (
        b"/archiver/hgmo/a\0b/" + NODE,
        b"/archiver/hgmo/a\rb/" + NODE,
        b"/archiver/hgmo/a\nb/" + NODE,
        b"/archiver/hgmo/a b/" + NODE,
        b"/archiver/hgmo/a\tb/" + NODE,
        b"/archiver/hgmo/a\xffb/" + NODE,
        b"/archiver/hgmo/a<b>/" + NODE,
        ASH + b"?subdir=\xff",
        ASH + b"?subdir=a b",
        b"archiver/hgmo/projects/ash/" + NODE,
        b"",
    ),
)
def test_bytes_that_no_target_may_have_are_refused_by_the_server(
    server: Server, target: bytes
) -> None:
    """The server (hyper) responds with a bare 400 before the application is called."""
    before = server.fakes()
    response = server.request(target)
    assert (response.status, response.body) == (400, b"")
    assert server.fakes() == before


def test_a_target_of_many_kilobytes_is_refused_by_the_server(server: Server) -> None:
    before = server.fakes()
    assert server.request(b"/archiver/hgmo/" + b"x/" * 50_000 + NODE).status in {414, 431}
    assert server.fakes() == before


@pytest.mark.parametrize(
    "target",
    (
        b"/archiver/hgmo/" + b"x/" * 5000 + NODE,
        b"/get/hgmo/" + b"x" * 9000,
        b"/sha256/" + b"0" * 9000,
        b"/archiver/status/" + b"x" * 9000,
        b"/__version__?" + b"x" * 9000,
        b"/" + b"x" * 9000,
        ASH + b"?" + b"&" * 9000,
    ),
)
def test_a_target_of_more_than_8_kb_is_refused_unread(server: Server, target: bytes) -> None:
    before = server.fakes()
    response = server.request(target)
    assert (response.status, response.json["code"]) == (414, "target_too_long")
    assert server.fakes() == before


def test_a_target_of_8_kb_is_read(server: Server) -> None:
    target = ASH + b"?"
    target += b"&" * (TARGET_MAX_BYTES - len(target) + 1)  # the question mark is not counted
    assert server.request(target).status == 404  # the world of fakes has no such node
    assert server.request(target + b"&").status == 414


def test_names_that_no_key_could_hold_are_refused_before_the_host_is_asked(
    server: Server,
) -> None:
    before = server.fakes()
    long_repo = b"/".join([b"z" * 200] * 4)
    assert_bad(server.request(b"/archiver/hgmo/" + long_repo + b"/default"), "repo")
    assert_bad(server.request(b"/archiver/hgmo/" + b"z/" * 4000 + b"default"), "repo")
    assert server.fakes() == before


@pytest.mark.parametrize("target", (b"/archiver/", b"/archiver/hgmo", b"/archiver/hgmo/"))
def test_an_address_that_ends_too_soon_is_a_400(server: Server, target: bytes) -> None:
    before = server.fakes()
    response = server.request(target)
    assert (response.status, response.json["code"]) == (400, "invalid_request")
    assert server.fakes() == before


@pytest.mark.parametrize(
    "target", (b"/archiver%2Fhgmo/projects/ash/default", b"//archiver/hgmo/a/b", b"*", b"/archiver")
)
def test_an_encoded_path_is_matched_undecoded(server: Server, target: bytes) -> None:
    before = server.fakes()
    response = server.request(target)
    assert (response.status, response.json["code"]) == (404, "no_such_route")
    assert server.fakes() == before


def test_an_encoded_letter_is_the_letter(server: Server) -> None:
    """RFC 3986, 2.3: unreserved characters mean the same, encoded or not."""
    plain = server.request(b"/archiver/hgmo/projects/ash/default?subdir=testing/mozharness")
    encoded = server.request(
        b"/archiver/%68gmo/projects/%61sh/defa%75lt?subdir=testing%2Fmozharness"
    )
    assert plain.status == encoded.status == 202
    assert plain.headers["location"] == encoded.headers["location"]


def test_a_raw_fragment_is_not_part_of_the_target(server: Server) -> None:
    """The server removes a fragment (RFC 9112, 3.2); the rest must be valid by itself."""
    plain = server.request(b"/archiver/hgmo/projects/ash/default")
    cut = server.request(b"/archiver/hgmo/projects/ash/default#?subdir=..")
    assert cut.headers["location"] == plain.headers["location"]
    assert_bad(server.request(b"/archiver/hgmo/#projects/ash/default"), "rev")


@pytest.mark.parametrize(
    "host",
    (
        b"evil.example",
        b"evil.example/x?y=",
        b"evil.example:80@archiver.example",
        b"archiver.example\\evil",
        b"\xff\xfe",
        b"",
    ),
)
def test_the_host_header_changes_no_url(server: Server, host: bytes) -> None:
    target = b"/archiver/hgmo/projects/ash/V_1"
    honest, poisoned = server.request(target), server.request(target, host=host)
    assert poisoned.headers["location"] == honest.headers["location"]
    assert poisoned.headers["location"].startswith(f"{PUBLIC_URL}/archiver/status/")


def test_an_absolute_target_is_read_for_its_path_alone(server: Server) -> None:
    target = b"/archiver/hgmo/projects/ash/V_1"
    honest = server.request(target)
    for prefix in (b"http://evil.example", b"http://u:p@evil.example:81", b"https://[::1]"):
        assert server.request(prefix + target).headers["location"] == honest.headers["location"]
        assert_bad(server.request(prefix + _in_repo(b"..")), "repo")


@pytest.mark.parametrize("method", (b"POST", b"PUT", b"OPTIONS", b"BREW", b"get"))
def test_other_methods_are_a_405_that_lists_the_allowed_ones(server: Server, method: bytes) -> None:
    before = server.fakes()
    response = server.request(ASH, method=method)
    assert (response.status, response.json["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, DELETE"
    assert server.fakes() == before


def assert_bad(response: RawResponse, parameter: str) -> None:
    assert response.status == 400, response
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json
    assert problem["code"] == "invalid_request"
    assert problem["parameter"] == parameter
    assert problem["allowed"]
