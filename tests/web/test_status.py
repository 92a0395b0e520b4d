"""``/archiver/status/{task_id}``, in a world of fakes."""

import pytest

from archiver.errors import SourceUnavailable, UnknownSubdir
from archiver.model import Region
from archiver.tasks import Phase
from tests.web.client import DEFAULT, PUBLIC_URL, Client

KEYS_OF_THE_ORIGINAL = {"state", "status", "src_url", "s3_urls"}


def status_of(web: Client, target: str = DEFAULT) -> str:
    """Request an archive and return the target of its status."""
    return web.get(target).headers["location"].removeprefix(PUBLIC_URL)


def test_a_waiting_task_is_pending(web: Client) -> None:
    result = web.get(status_of(web)).result
    assert result["state"] == "PENDING"
    assert result["status"] == "Waiting for a worker."
    assert result["src_url"] == web.world.source.url(web.world.archive())
    assert result["s3_urls"] == {}
    assert result["created_at"]


def test_a_running_task_has_its_progress(web: Client) -> None:
    status = status_of(web)
    attempt = web.world.engine.claim()
    assert attempt
    attempt.report(Phase.FETCHING, 4321)
    result = web.get(status).result
    assert (result["state"], result["phase"], result["bytes_done"]) == ("STARTED", "fetching", 4321)
    assert result["attempt"] == 1
    assert "4,321 bytes" in result["status"]


def test_a_task_that_will_be_retried_has_a_reason(web: Client) -> None:
    status = status_of(web)
    attempt = web.world.engine.claim()
    assert attempt
    web.world.engine.retry(attempt, SourceUnavailable("the host is away"))
    result = web.get(status).result
    assert (result["state"], result["failures"]) == ("RETRY", 1)
    assert result["error"] == {"code": "source_unavailable", "message": "the host is away"}
    assert "the host is away" in result["status"]


def test_success_has_a_link_for_each_region(web: Client) -> None:
    status = status_of(web)
    web.work()
    result = web.get(status).result
    assert result["state"] == "SUCCESS"
    assert result["status"] == "Stored in 2 regions."
    assert set(result["s3_urls"]) == {"us-east-1", "us-west-2"}
    bodies = {web.world.storage.download(url) for url in result["s3_urls"].values()}
    assert [len(body) for body in bodies] == [result["size"]]
    assert result["sha256"] == web.get(DEFAULT).headers["archiver-sha256"]
    assert result["node"] == web.world.node
    assert result["links_outside"] == 0


def test_success_in_some_regions_lists_the_missing_ones(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    status = status_of(web)
    web.work()
    result = web.get(status).result
    assert result["state"] == "SUCCESS"
    assert result["regions_missing"] == ["us-west-2"]
    assert "1 of 2 regions" in result["status"]


def test_a_failure_is_never_a_success_without_links(web: Client) -> None:
    status = status_of(web, f"{DEFAULT}?subdir=no/such")
    web.work()
    result = web.get(status).result
    assert (result["state"], result["s3_urls"]) == ("FAILURE", {})
    assert result["error"]["code"] == UnknownSubdir.code
    assert result["error"]["message"] in result["status"]


@pytest.mark.parametrize(
    "task_id",
    (
        "nonsense",
        "hgmo_projects_ash-default.tar.gz",
        "hgxx:projects:ash:-:0123456789abcdef0123456789abcdef01234567:-:tar.gz",
        "%E2%98%83",
        "a%0Ab",
        "a%2Fb",
        "..",
        "-",
    ),
)
def test_an_id_of_no_task_is_pending_as_the_original_documents(web: Client, task_id: str) -> None:
    result = web.get(f"/archiver/status/{task_id}").result
    assert result["state"] == "PENDING"
    assert result["status"] == "no status available at this point."
    assert (result["src_url"], result["s3_urls"]) == ("", {})
    assert web.world.untouched


def test_the_status_of_an_unrequested_archive_is_pending_and_creates_no_task(
    web: Client,
) -> None:
    result = web.get(f"/archiver/status/{web.world.archive().task_id}").result
    assert (result["state"], result["status"]) == ("PENDING", "no status available at this point.")
    assert web.world.untouched


def test_every_status_has_the_same_keys(web: Client) -> None:
    unknown = web.get("/archiver/status/nonsense").result
    pending = web.get(status_of(web)).result
    assert unknown.keys() == pending.keys()
    assert pending.keys() >= KEYS_OF_THE_ORIGINAL


def test_an_encoded_id_is_the_same_id(web: Client) -> None:
    status = status_of(web)
    encoded = status.replace(":", "%3A")
    assert web.get(encoded).result == web.get(status).result


def test_a_status_may_not_be_cached(web: Client) -> None:
    assert web.get(status_of(web)).headers["cache-control"] == "no-store"


def test_a_status_takes_no_parameter(web: Client) -> None:
    response = web.get("/archiver/status/nonsense?verbose=1")
    assert (response.status, response.json["parameter"]) == (400, "verbose")


def test_an_id_that_is_not_utf8_is_a_400(web: Client) -> None:
    response = web.get("/archiver/status/%ff")
    assert (response.status, response.json["parameter"]) == (400, "task_id")


def test_without_the_engine_a_stored_archive_is_a_success(web: Client) -> None:
    status = status_of(web)
    web.work()
    web.world.engine.down = True
    assert web.get(status).result["state"] == "SUCCESS"


def test_without_the_engine_the_status_of_a_missing_archive_is_a_503(web: Client) -> None:
    status = status_of(web)
    web.world.engine.down = True
    response = web.get(status)
    assert (response.status, response.code) == (503, "engine_unavailable")
