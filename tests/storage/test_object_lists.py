"""Lists of a bucket, from servers that follow S3 and from servers that do harm."""

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import cast

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage.bounded_xml import DEPTH_MAX, ELEMENTS_MAX
from archiver.storage.bucket import Bucket
from archiver.storage.multipart import MultipartUploads
from archiver.storage.object_lists import ObjectLists
from archiver.storage.s3_stores import S3Settings
from tests.parts.process import free_port
from tests.parts.raw_server import raw_server
from tests.parts.s3 import Home, S3Server
from tests.storage.conftest import an_archive
from tests.storage.test_bucket import run

EAST = Region("us-east-1")
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\n"
LIST = b"<ListBucketResult>%s</ListBucketResult>"
NEXT = b"<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"


def settings(address: str) -> S3Settings:
    return S3Settings(
        bucket="b",
        endpoint=f"http://{address}",
        region="us-east-1",
        access_key_id="a",
        secret_access_key="s",  # noqa: S106 - for a server of the test
    )


def a_bucket(address: str) -> Bucket:
    return Bucket(settings(address), region=EAST, presigned_ttl=timedelta(minutes=1))


def answer(status: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    lines = (b"Content-Length: %d" % len(body), b"Connection: close", *headers)
    return HEAD % status + b"\r\n".join((*lines, b"", body))


def failure_of(
    body: bytes | Callable[[socket.socket], None],
    ask: Callable[[str], object] = lambda address: run(a_bucket(address).check_access),
) -> StorageUnavailable:
    """Return the error if the server sends *body* to each request, or lets it send."""

    def respond(link: socket.socket, _head: bytes) -> None:
        if callable(body):
            body(link)
        else:
            link.sendall(body)

    with raw_server(respond) as address, pytest.raises(StorageUnavailable) as raised:
        ask(address)
    return raised.value


def list_objects(address: str) -> list[tuple[str, int]]:
    async def listed() -> list[tuple[str, int]]:
        return [each async for each in a_bucket(address).iter_objects("archives/")]

    return run(listed)


def list_uploads(address: str) -> None:
    async def listed() -> None:
        async for _ in MultipartUploads(settings(address)).iter_uploads(""):
            pass

    run(listed)


def send_endless(announced: bytes) -> Callable[[socket.socket], None]:
    def send(link: socket.socket) -> None:
        link.sendall(HEAD % b"200 OK" + announced + b"\r\n")
        while True:
            link.sendall(bytes(1 << 20))

    return send


@pytest.mark.parametrize("announced", (b"Content-Length: 900000000000\r\n", b""))
@pytest.mark.parametrize("ask", (lambda address: run(a_bucket(address).check_access), list_objects))
def test_an_endless_list_is_not_read_to_its_end(
    announced: bytes, ask: Callable[[str], object]
) -> None:
    error = failure_of(send_endless(announced), ask)
    assert "its answer has more than 8,388,608 bytes" in error.message


@pytest.mark.thorough
def test_a_list_that_drips_ends_at_the_deadline() -> None:
    def drip(link: socket.socket) -> None:
        link.sendall(HEAD % b"200 OK" + b"Content-Length: 100000\r\n\r\n")
        while True:
            link.sendall(b"<")
            link.settimeout(0.1)
            with suppress(TimeoutError):
                link.recv(1)

    error = failure_of(drip)
    assert (error.message, error.s3_code) == (
        "us-east-1 did not list its bucket in time",
        "timeout",
    )


def test_a_manifest_that_claims_to_be_huge_is_unreadable() -> None:
    headers = b'ETag: "x"\r\nLast-Modified: Sat, 28 Nov 2026 22:07:34 GMT\r\n'

    def respond(link: socket.socket, _head: bytes) -> None:
        link.sendall(HEAD % b"200 OK" + headers + b"Content-Length: 900000000000\r\n\r\n{")

    with raw_server(respond) as address:
        assert run(lambda: a_bucket(address).read_manifest_body(an_archive())) == b""


@pytest.mark.parametrize(
    ("response", "code"),
    (
        (answer(b"404 Gone", b"<Error><Code>NoSuchBucket</Code></Error>"), "NoSuchBucket"),
        (
            answer(b"403 No", b"<Error><Code>InvalidAccessKeyId</Code></Error>"),
            "InvalidAccessKeyId",
        ),
        (answer(b"403 No"), "http_403"),
        (answer(b"503 Busy", b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
        (answer(b"301 Away"), "wrong_region"),
        (answer(b"307 Away", b"", b"Location: http://127.0.0.1:9/"), "redirected"),
        (b"", "connection_lost"),
        (answer(b"200 OK", b"<Error><Code>AccessDenied</Code></Error>"), None),
        (answer(b"200 OK", b"<ListBucketResult>"), None),
        (answer(b"200 OK", LIST % b"<Contents><Key>a</Key></Contents>"), None),
    ),
)
def test_a_failed_check_has_the_code_of_its_reason(response: bytes, code: str | None) -> None:
    assert failure_of(response).s3_code == code


def test_a_check_of_a_closed_port_says_so() -> None:
    with pytest.raises(StorageUnavailable) as raised:
        run(a_bucket(f"127.0.0.1:{free_port()}").check_access)
    assert raised.value.s3_code == "connection_refused"


def test_a_passing_failure_of_a_list_is_tried_again() -> None:
    responses = [answer(b"503 Busy"), b"", answer(b"200 OK", LIST % b"")]

    def respond(link: socket.socket, _head: bytes) -> None:
        link.sendall(responses.pop(0))

    with raw_server(respond) as address:
        assert list_objects(address) == []
    assert responses == []


def test_a_list_that_does_not_advance_ends() -> None:
    assert "the same page" in failure_of(answer(b"200 OK", LIST % NEXT), list_objects).message


@pytest.mark.parametrize(
    "body",
    (
        b"<a>" * 1_000_000 + b"</a>" * 1_000_000,
        b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1),
        b"<a>" + b"<b/>" * ELEMENTS_MAX + b"</a>",
        b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
    ),
    ids=("very deep", "deep", "wide", "entities"),
)
@pytest.mark.parametrize("ask", (list_objects, list_uploads))
def test_xml_that_would_fill_the_memory_is_refused(
    body: bytes, ask: Callable[[str], object]
) -> None:
    failure_of(answer(b"200 OK", body), ask)


@pytest.fixture(params=("weed", "rclone"))
def any_home(request: pytest.FixtureRequest) -> Home:
    if request.param == "weed":
        return cast(Home, request.getfixturevalue("home"))
    return cast(S3Server, request.getfixturevalue("rclone")).make_home((EAST,))


def test_keys_are_listed_as_they_were_written(any_home: Home) -> None:
    server, bucket = any_home.server, any_home.names[EAST]
    keys = ["a/%2B", "a/+ +", "a/<&>'\"", "a/~é", "ab/x"]
    for key in keys:
        assert server.request("PUT", f"/{bucket}/{key}", body=b"xyz")[0] == 200
    reached = S3Settings(
        bucket=bucket,
        endpoint=server.endpoint,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )

    async def listed(prefix: str, delimiter: str | None = None) -> tuple[list[str], list[str]]:
        pages = ObjectLists(reached, region=EAST).iter_pages(prefix, delimiter=delimiter)
        found = [page async for page in pages]
        objects = [each for page in found for each in page.objects]
        assert {each.size_bytes for each in objects} <= {3}
        return (
            sorted(each.object_key for each in objects),
            sorted(folder for page in found for folder in page.folders),
        )

    assert run(lambda: listed("a")) == (sorted(keys[:4]), [])
    objects, folders = run(lambda: listed("", "/"))
    assert objects == []
    assert {"a/", "ab/"} <= {*folders}  # SeaweedFS keeps the empty folders of other tests
