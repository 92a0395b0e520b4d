"""Clients that insist on a SHA-256 get these bytes or a 409, and no other bytes."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.memory_world import ASH, World
from tests.web.client import DEFAULT, Client, client
from tests.web.waiters import PATIENT, crowd

OTHER = "ab" * 32


def sha256_of(web: Client) -> str:
    """Build the archive and return its SHA-256."""
    web.get(DEFAULT)
    web.work()
    return web.get(DEFAULT).headers["archiver-sha256"]


@pytest.mark.parametrize("method", ("GET", "HEAD"))
@pytest.mark.parametrize("query", ("", "&on_miss=none", "&wait=5"))
def test_the_archive_is_found_or_refused_by_its_bytes(web: Client, method: str, query: str) -> None:
    sha256 = sha256_of(web)
    for _ in range(3):  # the second answer may be a remembered one
        right = web.request(method, f"{DEFAULT}?sha256={sha256.upper()}{query}")
        assert (right.status, right.headers["archiver-sha256"]) == (302, sha256)
        wrong = web.request(method, f"{DEFAULT}?sha256={OTHER}{query}")
        assert wrong.status == 409
        assert "location" not in wrong.headers
        if method == "GET":
            assert (wrong.json["code"], wrong.json["sha256"]) == ("other_bytes", sha256)


def test_files_and_checksums_take_the_parameter_too(web: Client) -> None:
    sha256 = sha256_of(web)
    for path in (f"/get/hgmo/{ASH}/default.tar.gz", f"/get/hgmo/{ASH}/default.tar.gz.sha256"):
        assert web.get(f"{path}?sha256={sha256}").status in {200, 302}
        assert web.get(f"{path}?sha256={OTHER}").status == 409


def test_clients_that_wait_together_each_get_what_they_insist_on() -> None:
    with client(World()) as first:
        sha256 = sha256_of(first)
    with client(World()) as web:  # builds the same bytes
        targets = [PATIENT, f"{PATIENT}&sha256={sha256}", f"{PATIENT}&sha256={OTHER}"] * 5
        responses = crowd(web, targets)
    assert [response.status for response in responses] == [302, 302, 409] * 5


def test_a_miss_is_built_and_then_refused(web: Client) -> None:
    target = f"{DEFAULT}?sha256={OTHER}"
    missed = web.get(target)
    joined = web.get(target)
    assert missed.status == joined.status == 202
    assert missed.headers["location"] == joined.headers["location"]
    web.work()
    assert web.get(target).status == 409
    assert web.get(DEFAULT).status == 302


@pytest.mark.parametrize("method", ("GET", "HEAD"))
@pytest.mark.parametrize("wait", ("", "&wait=5"))
def test_a_status_has_no_links_to_other_bytes(web: Client, method: str, wait: str) -> None:
    status = urlsplit(web.get(f"{DEFAULT}?sha256={OTHER}").headers["location"])
    target = f"{status.path}?{status.query}"
    assert web.get(target).json["result"]["state"] == "PENDING"
    web.work()
    wrong = web.request(method, f"{target}{wait}")
    assert wrong.status == 409
    if method == "GET":
        sha256 = web.get(DEFAULT).headers["archiver-sha256"]
        assert (wrong.json["code"], wrong.json["sha256"]) == ("other_bytes", sha256)
        right = web.get(f"{status.path}?sha256={sha256}{wait}")
        assert right.json["result"]["s3_urls"]
    assert web.get(f"{status.path}?sha256=abc").status == 400


def test_a_remembered_answer_does_not_outlive_other_bytes(web: Client) -> None:
    sha256 = sha256_of(web)
    target = f"{DEFAULT}?sha256={sha256}"
    assert [web.get(target).status for _ in range(3)] == [302] * 3
    storage = web.world.storage
    for manifests in storage.manifests.values():
        for key, manifest in manifests.items():
            manifests[key] = replace(manifest, sha256=OTHER)
    archive = web.world.archive()
    web.run(web.world.index.remove(archive, ()))
    assert web.get(target).status == 409


def test_a_client_learns_that_its_bytes_expired(web: Client) -> None:
    sha256_of(web)
    for manifests in web.world.storage.manifests.values():
        for key, manifest in manifests.items():
            manifests[key] = replace(manifest, sha256="cd" * 32, supersedes=OTHER)
    web.run(web.world.index.remove(web.world.archive(), ()))
    refused = web.get(f"{DEFAULT}?sha256={OTHER}")
    assert refused.status == 409
    assert refused.json["detail"].endswith("it expired, and was built again")


@pytest.mark.parametrize(
    ("query", "parameter"),
    (
        ("sha256=", "sha256"),
        ("sha256=abc", "sha256"),
        (f"sha256={'g' * 64}", "sha256"),
        (f"sha256={OTHER}0", "sha256"),
        (f"sha256={OTHER}&on_miss=redirect", "on_miss"),
    ),
)
def test_what_cannot_be_promised_is_refused(web: Client, query: str, parameter: str) -> None:
    response = web.get(f"{DEFAULT}?{query}")
    assert (response.status, response.json["parameter"]) == (400, parameter)
