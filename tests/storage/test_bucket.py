"""One region's bucket: its objects, presigned URLs and errors."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPMessage
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import pytest
from structlog.testing import capture_logs

from archiver.errors import StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Manifest, Region
from archiver.storage.bucket import MANIFEST_MAX_BYTES, Bucket, ManifestWrite
from archiver.storage.regional_storage import OBSTORE_EXIT_S
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings
from archiver.telemetry import METRICS
from tests.parts.s3 import Home, S3Server
from tests.parts.s3_fault_proxy import Fault, sink
from tests.storage.conftest import EAST, LARGE, WEST, TwoRegions, an_archive, stream, unfinished

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        try:
            return await work()
        finally:
            await asyncio.sleep(OBSTORE_EXIT_S)

    return asyncio.run(main())


def manifest_of(archive: Archive, *, sha256: str = "0" * 64) -> Manifest:
    return Manifest(
        key=archive.key,
        node=archive.node,
        sha256=sha256,
        size_bytes=4,
        object_key=f"archives/{archive.key}/a1/{archive.file_name}",
        root="ash",
        source_url="https://hg.example/ash",
        created_at=datetime.now(UTC),
    )


def write_manifest(home: Home, archive: Archive, body: bytes) -> None:
    path = f"/{home.names[EAST]}/manifests/{archive.key}.json"
    assert home.server.request("PUT", path, body=body)[0] == 200


def a_bucket(
    *, endpoint: str | None, virtual_hosted: bool = False, public_endpoint: str | None = None
) -> Bucket:
    """Return a bucket that only signs URLs."""
    return Bucket(
        S3Settings(
            bucket="attic",
            endpoint=endpoint,
            region="eu-west-1",
            access_key_id="AKID",
            secret_access_key="secret",  # noqa: S106 - opens nothing
            virtual_hosted=virtual_hosted,
        ),
        region=Region("eu-west-1"),
        presigned_ttl=timedelta(minutes=5),
        public_endpoint=public_endpoint,
    )


@pytest.mark.parametrize(
    ("suffix", "content_type"),
    (
        ("tar.gz", "application/gzip"),
        ("tar.bz2", "application/x-bzip2"),
        ("zip", "application/zip"),
    ),
)
def test_a_download_has_a_content_type_and_a_file_name(
    home: Home, suffix: str, content_type: str
) -> None:
    archive, bucket = an_archive(suffix=suffix), home.bucket(EAST)
    key = f"archives/{archive.key}/a1/{archive.file_name}"
    run(lambda: bucket.put_object(key, stream(b"data")))
    headers = _headers(bucket.presign(key, "GET"))
    assert headers["Content-Type"] == content_type
    assert headers["Content-Disposition"] == f'attachment; filename="{archive.file_name}"'
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"


def _headers(url: str, method: str = "GET") -> HTTPMessage:
    request = urllib.request.Request(url, method=method)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
        headers: HTTPMessage = answer.headers
        return headers


@pytest.mark.thorough
def test_a_presigned_url_expires(home: Home) -> None:
    bucket, brief = home.bucket(EAST), home.bucket(EAST, presigned_ttl=timedelta(seconds=1))
    run(lambda: bucket.put_object("archives/x.zip", stream(b"data")))
    valid, expired = (each.presign("archives/x.zip", "GET") for each in (bucket, brief))
    time.sleep(2.1)
    _headers(valid)
    with pytest.raises(urllib.error.HTTPError) as raised:
        _headers(expired)
    raised.value.close()
    assert raised.value.code == 403


@pytest.mark.parametrize("server", ("weed", "rclone"))
def test_only_presigned_urls_use_the_public_endpoint(
    request: pytest.FixtureRequest, server: str
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    with sink(s3.endpoint) as inner, sink(s3.endpoint) as public:
        bucket = s3.make_home((EAST,)).bucket(
            EAST, endpoint=inner.endpoint, public_endpoint=public.endpoint
        )
        run(lambda: bucket.put_object("archives/x.zip", stream(b"data")))
        run(bucket.check_access)
        assert not public.requests
        asked = len(inner.requests)
        methods: tuple[Literal["GET", "HEAD"], ...] = ("GET", "HEAD")
        for method in methods:
            url = bucket.presign("archives/x.zip", method)
            assert _headers(url, method)["Content-Length"] == "4"
        assert [method for method, _ in public.requests] == ["GET", "HEAD"]
        assert len(inner.requests) == asked


def test_presigning_sends_no_request_to_the_public_endpoint() -> None:
    bucket = a_bucket(endpoint="http://127.0.0.1:1", public_endpoint="https://s3.example.invalid")
    url = bucket.presign("archives/x.zip", "GET")
    assert url.startswith("https://s3.example.invalid/attic/archives/x.zip?")


@pytest.mark.parametrize(("size_bytes", "requests"), ((1000, 1), (LARGE, 4)))
def test_less_than_one_part_is_sent_in_one_request(
    two_regions: TwoRegions, size_bytes: int, requests: int
) -> None:
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    run(lambda: bucket.put_object("archives/x.zip", stream(bytes(size_bytes))))
    writes = [method for method, _ in two_regions.sinks[EAST].requests if method in {"PUT", "POST"}]
    assert len(writes) == requests


def test_a_manifest_is_indented_json(home: Home) -> None:
    archive, bucket = an_archive(), home.bucket(EAST)
    manifest = manifest_of(archive)
    assert run(lambda: bucket.create_manifest(archive, manifest)) == ManifestWrite(
        manifest=manifest
    )
    assert run(lambda: bucket.read_manifest(archive)) == manifest
    text = home.read(EAST, f"manifests/{archive.key}.json")
    assert text.startswith(b'{\n  "key": "v1/hgmo/')
    assert json.loads(text)["node"] == archive.node


def test_a_manifest_without_links_outside_counts_as_zero_links(home: Home) -> None:
    archive, bucket = an_archive(), home.bucket(EAST)
    manifest = manifest_of(archive)
    earlier = json.loads(msgspec.json.encode(manifest))
    del earlier["links_outside"]
    write_manifest(home, archive, json.dumps(earlier).encode())
    assert run(lambda: bucket.read_manifest(archive)) == manifest


@pytest.mark.parametrize(
    "body",
    (
        b"",
        b"not JSON",
        b"{}",
        b'{"key": 1}',
        b"\xff",
        b'{"key": "\xff"}',
        b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b" " * MANIFEST_MAX_BYTES + b"{}",
    ),
    ids=("empty", "words", "no keys", "a number", "no text", "no text within", "deep", "long"),
)
def test_a_damaged_manifest_raises_unreadable_manifest(home: Home, body: bytes) -> None:
    archive, bucket = an_archive(), home.bucket(EAST)
    write_manifest(home, archive, body)
    with pytest.raises(UnreadableManifest):
        run(lambda: bucket.read_manifest(archive))


def test_a_manifest_of_another_archive_is_rejected(home: Home) -> None:
    archive, bucket = an_archive(), home.bucket(EAST)
    write_manifest(home, archive, msgspec.json.encode(manifest_of(an_archive())))
    with pytest.raises(StorageUnavailable):
        run(lambda: bucket.read_manifest(archive))


def test_a_manifest_that_names_another_archives_object_is_rejected(home: Home) -> None:
    archive, bucket = an_archive(), home.bucket(EAST)
    stolen = replace(manifest_of(archive), object_key="private/backup.zip")
    write_manifest(home, archive, msgspec.json.encode(stolen))
    ignored = METRICS.unreadable.labels(place="manifests")._value  # noqa: SLF001
    before = ignored.get()
    with capture_logs() as logs, pytest.raises(StorageUnavailable):
        run(lambda: bucket.find_copy(archive))
    assert [(line["event"], line["field"]) for line in logs] == [
        ("manifest.unreadable", "object_key")
    ]
    assert ignored.get() == before + 1


def test_a_manifest_is_committed_even_if_the_response_is_lost(two_regions: TwoRegions) -> None:
    archive = an_archive()
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    two_regions.sinks[EAST].misbehave = lambda method, _: Fault.MUTE if method == "PUT" else None
    manifest = manifest_of(archive)
    assert run(lambda: bucket.create_manifest(archive, manifest)) == ManifestWrite(
        manifest=manifest
    )
    assert run(lambda: bucket.read_manifest(archive)) == manifest


def test_a_concurrently_written_manifest_is_not_overwritten(two_regions: TwoRegions) -> None:
    archive = an_archive()
    first = manifest_of(archive, sha256="1" * 64)

    def come_first(method: str, _target: str) -> None:
        if method == "PUT":
            write_manifest(two_regions.home, archive, msgspec.json.encode(first))

    two_regions.sinks[EAST].misbehave = come_first
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    assert run(lambda: bucket.create_manifest(archive, manifest_of(archive))) == ManifestWrite(
        manifest=first
    )


@pytest.mark.parametrize(
    "ask",
    (
        lambda bucket: bucket.read_manifest(an_archive()),
        lambda bucket: bucket.require_object("archives/x", 1),
        unfinished,
    ),
)
def test_redirects_to_other_hosts_are_not_followed(
    two_regions: TwoRegions, ask: Callable[[Bucket], Awaitable[object]]
) -> None:
    asked, other = two_regions.sinks[EAST], two_regions.sinks[WEST]
    asked.elsewhere = other.endpoint.replace("127.0.0.1", "localhost")
    asked.misbehave = lambda _method, _target: Fault.REDIRECT
    bucket = two_regions.home.bucket(EAST, endpoint=asked.endpoint)
    with pytest.raises(StorageUnavailable) as caught:
        run(lambda: ask(bucket))
    assert caught.value.s3_code in {"redirected", "http_302"}
    assert asked.requests
    assert other.requests == []


@pytest.mark.parametrize(
    ("variable", "excluded"), (("http", ""), ("all", ""), ("http", "127.0.0.1"))
)
def test_all_requests_go_through_the_proxy_of_the_environment(
    two_regions: TwoRegions, monkeypatch: pytest.MonkeyPatch, variable: str, excluded: str
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = two_regions.sinks[EAST]
    monkeypatch.setenv(f"{variable}_proxy", proxy.endpoint)
    monkeypatch.setenv("no_proxy", excluded)
    bucket = two_regions.home.bucket(EAST)
    run(bucket.check_access)
    run(lambda: unfinished(bucket))
    through = [target for _, target in proxy.requests if target.startswith("http://")]
    assert len(through) == (0 if excluded else 2)


@pytest.mark.thorough
def test_a_silent_region_times_out_within_seconds(two_regions: TwoRegions) -> None:
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    two_regions.sinks[EAST].misbehave = lambda _method, _target: Fault.HANG
    with pytest.raises(StorageUnavailable, match="in time") as raised:
        run(lambda: bucket.read_manifest(an_archive()))
    assert isinstance(raised.value.__cause__, TimeoutError)  # of CONTROL_TIMEOUT, not of obstore
    assert timedelta(seconds=5) > CONTROL_TIMEOUT


@pytest.mark.thorough
def test_a_region_that_hangs_does_not_delay_a_purge_for_minutes(two_regions: TwoRegions) -> None:
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    two_regions.sinks[EAST].misbehave = lambda _method, _target: Fault.HANG

    async def listed() -> list[tuple[str, int]]:
        return [each async for each in bucket.iter_objects("archives/")]

    with pytest.raises(StorageUnavailable, match="in time") as raised:
        run(listed)
    assert isinstance(raised.value.__cause__, TimeoutError)  # of PAGE_TIMEOUT, not of obstore


def test_a_missing_bucket_differs_from_a_missing_object(home: Home) -> None:
    run(home.bucket(EAST).check_access)
    missing = Home(server=home.server, names={EAST: "nowhere"}).bucket(EAST)
    with pytest.raises(StorageUnavailable):
        run(missing.check_access)


def test_an_error_message_contains_no_text_of_the_server(two_regions: TwoRegions) -> None:
    two_regions.sinks[EAST].misbehave = lambda _method, _target: Fault.FORBID
    bucket = two_regions.home.bucket(EAST, endpoint=two_regions.sinks[EAST].endpoint)
    with pytest.raises(StorageUnavailable) as raised:
        run(lambda: bucket.read_manifest(an_archive()))
    assert raised.value.message == "us-east-1 did not return a manifest"


def test_configured_keys_are_not_combined_with_a_session_token_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "somebody")
    url = a_bucket(endpoint="http://127.0.0.1:1").presign("archives/x.zip", "GET")
    assert "X-Amz-Credential=AKID" in url
    assert "somebody" not in url


@pytest.mark.parametrize(
    ("endpoint", "virtual_hosted", "place"),
    (
        (None, False, "https://s3.eu-west-1.amazonaws.com/attic/archives/x.zip"),
        (None, True, "https://attic.s3.eu-west-1.amazonaws.com/archives/x.zip"),
        ("http://s3.example:9000", False, "http://s3.example:9000/attic/archives/x.zip"),
        ("https://s3.example", True, "https://attic.s3.example/archives/x.zip"),
    ),
)
def test_the_bucket_name_is_in_the_path_or_in_the_host(
    endpoint: str | None,
    virtual_hosted: bool,  # noqa: FBT001 - a parameter of the test
    place: str,
) -> None:
    bucket = a_bucket(endpoint=endpoint, virtual_hosted=virtual_hosted)
    url = urlsplit(bucket.presign("archives/x.zip", "GET"))
    assert url._replace(query="").geturl() == place
    assert "eu-west-1" in url.query


def test_another_bucket_has_another_bucket_id(home: Home) -> None:
    other = replace(home, names={EAST: "another"})
    assert home.bucket(EAST).bucket_id == home.bucket(EAST).bucket_id
    elsewhere = {
        home.bucket(EAST, endpoint="http://127.0.0.1:1").bucket_id,
        other.bucket(EAST).bucket_id,
    }
    assert len(elsewhere | {home.bucket(EAST).bucket_id}) == 3
