"""The three requests of the original against real servers, and their effects on clients."""

import hashlib
import io
import os
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.parts.hgweb import Ash, Hgweb
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.client import ended, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

MOZHARNESS = "subdir=testing/mozharness"


@pytest.fixture(scope="module")
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        yield host


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, hgweb: Hgweb, host: SlowHost
) -> Iterator[Stack]:
    template = hgweb.template_for(host.port)
    with (
        servers(tmp_path_factory.mktemp("stack"), template=template) as stack,
        stack.web(),
        stack.worker("worker-1"),
        stack.worker("worker-2"),
    ):
        yield stack


def test_the_three_requests_of_the_original(stack: Stack, hgweb: Hgweb, ash: Ash) -> None:
    url = stack.url(ash.repo, ash.feature, f"?&preferred_region=us-west-2&{MOZHARNESS}"[1:])

    accepted = fetch(url)
    results = poll(accepted.location, stored)
    redirected = fetch(url)
    body = fetch(redirected.location)

    assert (accepted.status, accepted.json) == (202, {"result": {}})
    assert accepted.location.startswith(f"{stack.public}/archiver/status/")
    assert int(accepted.headers["Retry-After"]) >= 1
    states = [result["state"] for result in results]
    assert states == sorted(states, key=["PENDING", "STARTED", "SUCCESS"].index)
    assert results[-1]["state"] == "SUCCESS"
    assert set(results[-1]["s3_urls"]) == set(REGIONS)
    assert redirected.status == 302
    assert redirected.headers["Archiver-Region"] == "us-west-2"
    assert f":{stack.regions['us-west-2'].port}/" in redirected.location
    theirs = hgweb.archive(ash.repo, ash.feature, "tar.gz", "testing/mozharness")
    assert body.body == theirs
    assert redirected.headers["Archiver-SHA256"] == hashlib.sha256(theirs).hexdigest()
    assert int(redirected.headers["Archiver-Size"]) == len(theirs)


def test_each_region_serves_the_same_bytes_at_its_own_url(stack: Stack, ash: Ash) -> None:
    result = _built(stack, ash, "")

    bodies = {region: fetch(url).body for region, url in result["s3_urls"].items()}

    assert set(bodies) == set(REGIONS)
    assert {hashlib.sha256(body).hexdigest() for body in bodies.values()} == {result["sha256"]}


def test_the_root_directory_has_the_name_that_the_originals_client_expects(
    stack: Stack, ash: Ash
) -> None:
    result = _built(stack, ash, "")

    archive = fetch(next(iter(result["s3_urls"].values()))).body

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        roots = {name.split("/")[0] for name in tar.getnames()}
    assert roots == {f"ash-{ash.node[:12]}"}


def test_all_names_of_a_changeset_lead_to_one_archive(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    _built(stack, ash, "")
    fetched = len(host.archives())

    answers = [fetch(stack.url(ash.repo, quote(rev, safe=""))) for rev in ash.spellings]
    by_query = f"{stack.public}/archiver/hgmo/{ash.repo}?rev="
    answers += [fetch(by_query + quote(rev, safe="")) for rev in ash.spellings]

    assert {"@", "rel/2.0"} <= {*ash.spellings}
    assert {answer.status for answer in answers} == {302}
    assert {answer.headers["Archiver-Node"] for answer in answers} == {ash.node}
    assert len({answer.headers["Archiver-SHA256"] for answer in answers}) == 1
    assert len(host.archives()) == fetched


@pytest.mark.parametrize("suffix", ("tar.bz2", "zip"))
def test_every_suffix_of_the_host_is_served_with_the_hosts_bytes(
    stack: Stack, hgweb: Hgweb, ash: Ash, suffix: str
) -> None:
    result = _built(stack, ash, f"suffix={suffix}")

    body = fetch(result["s3_urls"]["us-east-1"])

    assert body.body == hgweb.archive(ash.repo, ash.node, suffix)
    disposition = body.headers["Content-Disposition"]
    assert disposition == f'attachment; filename="ash-{ash.node[:12]}.{suffix}"'
    if suffix == "zip":
        assert body.headers["Content-Type"] == "application/zip"
        assert zipfile.ZipFile(io.BytesIO(body.body)).testzip() is None


def test_concurrent_requests_cause_one_fetch_from_the_host(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    url = stack.url(ash.repo, ash.old, MOZHARNESS)
    before = len(host.archives())

    with ThreadPoolExecutor(32) as crowd:
        answers = list(crowd.map(fetch, [url] * 200))
    statuses = Counter(answer.status for answer in answers)
    location = next(answer.location for answer in answers if answer.status == 202)
    poll(location, stored)

    assert set(statuses) <= {202, 302}
    assert {answer.location for answer in answers if answer.status == 202} == {location}
    assert len(host.archives()) == before + 1


def test_an_unknown_region_is_replaced_and_the_response_names_the_region(
    stack: Stack, ash: Ash
) -> None:
    _built(stack, ash, "")

    answer = fetch(stack.url(ash.repo, ash.node, "preferred_region=mars-north-1"))

    assert answer.status == 302
    assert answer.headers["Archiver-Region"] == REGIONS[0]


@pytest.mark.parametrize(
    ("repo", "rev", "code"),
    (
        ("projects/ash", "no-such-tag", "unknown_rev"),
        ("projects/ash", "f" * 40, "unknown_rev"),
        ("projects/ash", "0123456789ab", "unknown_rev"),
        ("projects/nowhere", "tip", "unknown_repo"),
        ("projects/nowhere", "1" * 40, "unknown_repo"),
    ),
)
def test_an_unknown_repo_or_rev_is_a_404_at_once_and_is_cached(
    stack: Stack, ash: Ash, host: SlowHost, repo: str, rev: str, code: str
) -> None:
    assert ash.repo == "projects/ash"
    processes = len(os.sched_getaffinity(0))  # of the web, each with its own cache
    requests_before = len(host.targets)

    answers = [fetch(stack.url(repo, rev)) for _ in range(3 * processes)]

    assert {(answer.status, answer.json["code"]) for answer in answers} == {(404, code)}
    assert answers[0].headers["Content-Type"] == "application/problem+json"
    assert 1 <= len(host.targets) - requests_before <= processes


def test_a_task_for_an_unknown_subdir_fails_and_names_it(stack: Stack, ash: Ash) -> None:
    url = stack.url(ash.repo, ash.node, "subdir=no/such/place")

    result = poll(fetch(url).location, ended)[-1]
    again = fetch(url)
    while again.status == 202:  # the notification may arrive after the task is written
        poll(again.location, ended)
        again = fetch(url)

    assert result["state"] == "FAILURE"
    assert result["error"]["code"] == "unknown_subdir"
    assert "no/such/place" in result["error"]["message"]
    assert result["s3_urls"] == {}
    assert result["attempt"] == 1
    assert again.status == 404
    assert again.json["code"] == "unknown_subdir"


def test_head_finds_an_archive_and_creates_none(stack: Stack, ash: Ash, host: SlowHost) -> None:
    _built(stack, ash, "")
    fetched = len(host.archives())

    hit = fetch(stack.url(ash.repo, ash.node), method="HEAD")
    miss = fetch(stack.url(ash.repo, ash.node, "subdir=testing"), method="HEAD")
    signed = fetch(hit.location, method="HEAD")
    time.sleep(0.5)

    assert (hit.status, miss.status, signed.status) == (302, 404, 200)
    assert signed.headers["Content-Length"] == hit.headers["Archiver-Size"]
    assert len(host.archives()) == fetched


def test_an_unknown_task_is_pending_as_the_original_documents(stack: Stack) -> None:
    answer = fetch(f"{stack.public}/archiver/status/never-heard-of")

    assert answer.status == 200
    assert answer.json["result"]["state"] == "PENDING"
    assert answer.json["result"]["status"]


def test_the_algorithm_of_the_originals_client_extracts_its_files(stack: Stack, ash: Ash) -> None:
    """The client relies on an absolute Location, ``state`` and ``status``, and any region's URL."""
    url = stack.url(
        ash.repo, ash.node[:12], f"&preferred_region=us-west-2&suffix=tar.gz&{MOZHARNESS}"
    )
    response = fetch(url)
    location = response.headers["Location"]
    while response.status == 202:
        result = fetch(location).json["result"]
        assert isinstance(result["status"], str)
        if result["state"] == "SUCCESS":
            urls = result["s3_urls"]
            location = urls.get("us-west-2") or next(iter(urls.values()))
            break
        time.sleep(0.05)

    root = f"ash-{ash.node[:12]}/testing/mozharness/"
    with tarfile.open(fileobj=io.BytesIO(fetch(location).body), mode="r|gz") as tar:
        extracted = [member.name for member in tar if member.name.startswith(root)]
    assert len(extracted) == len(ash.mozharness)


def test_a_url_with_a_forged_signature_is_rejected(stack: Stack, ash: Ash) -> None:
    link = _built(stack, ash, "")["s3_urls"]["us-east-1"]

    forged = link[:-4] + ("0000" if not link.endswith("0000") else "1111")

    assert fetch(link).status == 200
    assert fetch(forged).status == 403


def test_the_endpoints_for_operators_respond(stack: Stack) -> None:
    heartbeat = fetch(f"{stack.public}/__heartbeat__")
    metrics = fetch(f"{stack.public}/metrics")

    assert (heartbeat.status, heartbeat.json["status"]) == (200, "ok"), heartbeat.body
    assert fetch(f"{stack.public}/__version__").json["version"]
    assert b"archiver_http_request_duration_seconds" in metrics.body
    assert fetch(f"{stack.public}/robots.txt").body == b"User-agent: *\nDisallow: /\n"


def test_no_presigned_url_and_no_secret_is_in_any_log(stack: Stack, ash: Ash) -> None:
    _built(stack, ash, "")
    answer = fetch(stack.url(ash.repo, ash.node))
    signature = answer.location.rpartition("X-Amz-Signature=")[2]

    assert stack.lines("request.finished")
    assert stack.lines("task.succeeded")
    logs = stack.logs()

    assert "X-Amz" not in logs
    assert signature not in logs
    assert stack._secret not in logs  # noqa: SLF001


def _built(stack: Stack, ash: Ash, query: str) -> dict[str, Any]:
    """Request an archive of ``ash.node``, and return its status when it is stored."""
    answer = fetch(stack.url(ash.repo, ash.node, query))
    link = answer.headers["Link"] or ""
    status = answer.location if answer.status == 202 else link.partition(">")[0].strip("<")
    result = poll(status, stored)[-1]
    assert set(result["s3_urls"]) == set(REGIONS), (result, stack.logs()[-3000:])
    return result
