"""``/get/…`` and ``/sha256/…``, in a world of fakes."""

import asyncio
import hashlib
import time
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from archiver.errors import EngineUnavailable, InvalidRequest
from archiver.model import SUFFIXES, Archive, Region
from archiver.telemetry import METRICS
from archiver.web.api.archives import ABSENT_AFTER_S, split_file_name
from tests.memory_world import ASH, FILES, World
from tests.web.client import CONFIG, PUBLIC_URL, Client, ClientResponse, client

DURATION = "archiver_http_request_duration_seconds"
FILE = f"/get/hgmo/{ASH}/default.tar.gz"


def built(web: Client, target: str = FILE) -> ClientResponse:
    """Return the response to *target* once its archive exists."""
    web.get(target, prefer="respond-async")
    web.work()
    return web.get(target)


def test_a_file_is_the_archive_of_its_rev_and_suffix(web: Client) -> None:
    as_file = built(web, f"/get/hgmo/{ASH}/default.zip?subdir=testing/mozharness")
    plain = web.get(f"/archiver/hgmo/{ASH}/default?suffix=zip&subdir=testing/mozharness")
    assert (as_file.status, plain.status) == (302, 302)
    assert as_file.headers["location"] == plain.headers["location"]
    assert as_file.headers["link"] == plain.headers["link"]
    assert len(web.world.engine.tasks) == 1


def test_a_missing_file_is_built(web: Client) -> None:
    response = web.get(FILE, prefer="respond-async")
    assert response.status == 202
    assert response.headers["location"] == (
        f"{PUBLIC_URL}/archiver/status/hgmo:projects:ash:-:{web.world.node}:-:tar.gz"
    )


def test_a_file_lies_in_the_preferred_region(web: Client) -> None:
    built(web)
    assert web.get(f"{FILE}?preferred_region=us-west-2").headers["archiver-region"] == "us-west-2"


def test_head_of_a_file_creates_no_task_and_is_presigned_for_head(web: Client) -> None:
    assert (web.head(FILE).status, web.world.engine.tasks) == (404, {})
    got, headed = built(web), web.head(FILE)
    assert (got.status, headed.status) == (302, 302)
    with pytest.raises(PermissionError):
        web.world.storage.download(headed.headers["location"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rev", ("FIREFOX_60.0", "a", "A.zip", "A.tar", "A.tar.gz", ".tar", "1.x"))
def test_a_rev_may_have_dots_and_end_like_a_suffix(rev: str, suffix: str) -> None:
    assert split_file_name(f"{rev}.{suffix}") == (rev, suffix)


@pytest.mark.parametrize("name", ("", "default", "default.7z", "zip", "tar.", "a.tgz", "a.ZIP"))
def test_a_name_without_a_supported_suffix_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        split_file_name(name)
    assert refused.value.parameter == "suffix"
    assert refused.value.allowed == ", ".join(SUFFIXES)


@pytest.mark.parametrize(
    ("target", "parameter"),
    (
        (f"/get/hgmo/{ASH}/default", "suffix"),
        (f"/get/hgmo/{ASH}/.tar.gz", "rev"),
        (f"{FILE}?suffix=zip", "suffix"),
        ("/get/hgmo/default.zip", "repo"),
        (f"/get/hgmo/{ASH}/a%2F..%2Fdefault.zip", "rev"),
        ("/get/hgmo/projects%2Fash.zip?rev=default", "repo"),
        ("/get/hgmo/.zip?rev=default", "repo"),
        (f"/get/hgmo/{ASH}/default.zip/", "suffix"),
        (f"/get/hgmo/{ASH}/.sha256", "suffix"),
        (f"{FILE}.sha256.sha256", "suffix"),
        (f"/sha256/{'g' * 64}", "digest"),
        (f"/sha256/{'0' * 63}", "digest"),
        (f"/sha256/{'0' * 64}?suffix=zip", "suffix"),
        (f"/sha256/{'0' * 64}?preferred_region=..", "preferred_region"),
    ),
)
def test_the_invalid_part_of_an_address_is_named(web: Client, target: str, parameter: str) -> None:
    response = web.get(target)
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.json["parameter"] == parameter
    assert web.world.untouched


def test_the_name_of_a_file_is_decoded_once(web: Client) -> None:
    web.world.source.commit(ASH, FILES, "V 1.0")
    assert web.get(f"/get/hgmo/{ASH}/V%201%2E0%2Ezip?wait=0").status == 503
    assert web.get(f"/get/hgmo/{ASH}/V%25201.0.zip").code == "unknown_rev"


def test_a_checksum_of_a_rev_in_the_query_names_the_file_of_the_repo(web: Client) -> None:
    web.world.source.commit(ASH, FILES, "REL/2.0")
    built(web, f"/get/hgmo/{ASH}.zip?rev=REL/2.0")
    response = web.get(f"/get/hgmo/{ASH}.zip.sha256?rev=REL/2.0")
    assert response.body.endswith(b"  ash.zip\n")


def test_a_checksum_has_the_format_of_sha256sum(web: Client) -> None:
    data = web.world.storage.download(built(web).headers["location"])
    response = web.get(f"{FILE}.sha256")
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.body == f"{hashlib.sha256(data).hexdigest()}  default.tar.gz\n".encode()


def test_a_checksum_names_the_file_as_its_url_does(web: Client) -> None:
    web.world.source.commit(ASH, FILES, "V 1")
    target = f"/get/hgmo/{ASH}/V%201.zip"
    built(web, target)
    assert web.get(f"{target}.sha256").body.endswith(b"  V%201.zip\n")
    raw = f"/get/hgmo/{ASH}/é.zip".encode()
    web.world.source.commit(ASH, FILES, "é")
    web.get(raw + b"?wait=0")
    web.work()
    assert web.get(raw + b".sha256").body.endswith("  é.zip\n".encode())


def test_the_time_to_a_404_does_not_depend_on_the_lookup(web: Client) -> None:
    began = time.monotonic()
    assert web.get(f"/sha256/{'0' * 64}").status == 404
    assert time.monotonic() - began >= ABSENT_AFTER_S


def test_only_the_checksum_of_a_full_node_may_be_cached(web: Client) -> None:
    built(web)
    moving = web.get(f"{FILE}.sha256")
    fixed = web.get(f"/get/hgmo/{ASH}/{web.world.node}.tar.gz.sha256")
    assert moving.headers["cache-control"] == "no-store"
    assert fixed.headers["cache-control"] == "private, max-age=86400, immutable"


def test_a_missing_checksum_has_its_archive_built_except_for_head(web: Client) -> None:
    assert web.head(f"{FILE}.sha256").status == 404
    assert not web.world.engine.tasks
    assert web.get(f"{FILE}.sha256?wait=0").status == 503
    web.work()
    assert web.head(f"{FILE}.sha256").status == 200


def test_a_checksum_never_redirects_to_the_host(web: Client) -> None:
    query = "on_miss=redirect&wait=0"
    archive, line = web.get(f"{FILE}?{query}"), web.get(f"{FILE}.sha256?{query}")
    assert archive.status == 302
    assert (line.status, line.code) == (503, "not_ready_yet")
    assert web.head(f"{FILE}.sha256?on_miss=redirect").status == 404
    assert web.get(f"{FILE}.sha256?on_miss=none").status == 404


def test_a_sha256_leads_to_its_archive(web: Client) -> None:
    sha256 = built(web).headers["archiver-sha256"]
    for digest in (sha256, sha256.upper()):
        response = web.get(f"/sha256/{digest}?preferred_region=us-west-2")
        assert (response.status, response.headers["archiver-sha256"]) == (302, sha256)
        assert response.headers["archiver-region"] == "us-west-2"
        data = web.world.storage.download(response.headers["location"])
        assert hashlib.sha256(data).hexdigest() == sha256
        assert "canonical" not in response.headers["link"]


def test_a_sha256_is_presigned_for_head(web: Client) -> None:
    headed = web.head(f"/sha256/{built(web).headers['archiver-sha256']}")
    assert headed.status == 302
    with pytest.raises(PermissionError):
        web.world.storage.download(headed.headers["location"])


def test_an_unknown_sha256_is_absent(web: Client) -> None:
    response = web.get(f"/sha256/{'0' * 64}")
    assert (response.status, response.code) == (404, "absent")
    assert web.world.untouched


def test_the_sha256_of_a_deleted_archive_is_absent(web: Client) -> None:
    sha256 = built(web).headers["archiver-sha256"]
    for manifests in web.world.storage.manifests.values():
        manifests.clear()
    web.run(web.world.index.forget(web.world.archive()))
    assert web.get(f"/sha256/{sha256}").status == 404


def test_a_sha256_never_leads_to_other_bytes(web: Client) -> None:
    """The index may be wrong; the manifest decides."""
    built(web)
    copies = web.run(web.world.index.copies(web.world.archive()))
    assert copies
    web.world.index.digests["0" * 64] = [web.world.archive()]
    assert web.get(f"/sha256/{'0' * 64}").status == 404


def test_the_sha256_of_a_removed_source_is_absent(web: Client) -> None:
    gone = Archive(source="gone", repo=ASH, node=web.world.node, subdir="", suffix="zip")
    web.world.index.digests["0" * 64] = [gone]
    assert web.get(f"/sha256/{'0' * 64}").status == 404


def test_a_sha256_leads_past_a_deleted_archive_to_another_one(
    web: Client,
) -> None:
    sha256 = built(web).headers["archiver-sha256"]
    there = web.world.archive()
    gone = replace(there, source="gone")
    lost = replace(there, subdir="lost")
    web.world.index.digests[sha256] = [gone, lost, there]
    response = web.get(f"/sha256/{sha256}")
    assert (response.status, response.headers["archiver-sha256"]) == (302, sha256)


def test_a_request_by_sha256_repairs_a_missing_copy(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    sha256 = built(web).headers["archiver-sha256"]
    web.world.engine.repairs.clear()
    assert web.get(f"/sha256/{sha256}").status == 302
    assert list(web.world.engine.repairs.values()) == [("us-west-2",)]


def test_without_the_engine_a_sha256_is_not_absent(web: Client) -> None:
    web.world.index.outage = EngineUnavailable("the engine does not answer")
    response = web.get(f"/sha256/{'0' * 64}")
    assert (response.status, response.code) == (503, "engine_unavailable")


@pytest.mark.parametrize("route", ("file", "digest"))
def test_a_crowd_gets_repeated_responses_until_a_notification(web: Client, route: str) -> None:
    sha256 = built(web).headers["archiver-sha256"]
    target = FILE if route == "file" else f"/sha256/{sha256}"
    for _ in range(2):
        web.get(target)
    for manifests in web.world.storage.manifests.values():
        manifests.clear()
    web.world.index.digests.clear()
    assert web.get(target).headers["archiver-sha256"] == sha256
    web.run(web.world.index.forget(web.world.archive()))
    assert web.get(target, prefer="respond-async").status == {"file": 202, "digest": 404}[route]


def test_hits_are_measured_by_their_route_and_status() -> None:
    def answered(route: str, code: int) -> float:
        labels = {"route": route, "method": "GET", "code": str(code)}
        return REGISTRY.get_sample_value(f"{DURATION}_count", labels) or 0

    kinds = (("file", 302), ("checksum", 200), ("digest", 302))
    before = [answered(*kind) for kind in kinds]
    with client(World()) as web:
        sha256 = built(web).headers["archiver-sha256"]
        for target in (FILE, f"{FILE}.sha256", f"/sha256/{sha256}"):
            for _ in range(4):
                web.get(target)
    after = [answered(*kind) for kind in kinds]
    assert [now - then for now, then in zip(after, before, strict=True)] == [5, 4, 4]


def test_other_hashes_than_sha256_are_no_routes(web: Client) -> None:
    response = web.get(f"/sha512/{'0' * 128}")
    assert (response.status, response.code) == (404, "no_such_route")


def test_a_client_that_waits_for_a_checksum_gets_it_and_not_the_file() -> None:
    with client(World()) as web:
        file, checksum = web.run(_both_while_it_is_made(web))
    assert (file.status, checksum.status) == (302, 200)
    assert checksum.body.decode() == f"{file.headers['archiver-sha256']}  default.tar.gz\n"


async def _both_while_it_is_made(web: Client) -> list[ClientResponse]:
    requests = asyncio.gather(web.request_async(FILE), web.request_async(f"{FILE}.sha256"))
    async with asyncio.timeout(10):
        while METRICS.waiters._value.get() < 2:  # noqa: SLF001
            await asyncio.sleep(0.005)
    await web.world.work()
    return list(await requests)


def test_a_client_that_waits_for_a_file_is_redirected_to_the_same_name() -> None:
    config = replace(CONFIG, wait_limits=replace(CONFIG.wait_limits, hold_s=0.05))
    with client(World(), config=config) as web:
        response = web.get(f"/get/hgmo/{ASH}/d%65fault.tar.gz.sha256?subdir=testing&wait=3")
    assert (response.status, response.headers["archiver-cache"]) == (302, "miss")
    assert response.headers["location"] == (
        f"{PUBLIC_URL}/get/hgmo/{ASH}/d%65fault.tar.gz.sha256?subdir=testing&wait=1&hop=1"
    )


def test_a_name_sent_as_raw_bytes_comes_back_encoded() -> None:
    config = replace(CONFIG, wait_limits=replace(CONFIG.wait_limits, hold_s=0.05))
    with client(World(), config=config) as web:
        web.world.source.commit(ASH, FILES, "é")
        response = web.get(f"/get/hgmo/{ASH}/é.zip?wait=3".encode())
        assert response.headers["location"] == (
            f"{PUBLIC_URL}/get/hgmo/{ASH}/%C3%A9.zip?wait=1&hop=1"
        )
        again = web.get(response.headers["location"].removeprefix(PUBLIC_URL))
    assert again.headers["archiver-node"] == response.headers["archiver-node"]
