"""The needs of the original service's client, which is deployed and will not change.

``archiver_client.py`` of mozilla/build-tools asks, polls the status while it is PENDING, and then
takes the URL of its region, or any other.
"""

from urllib.parse import urlsplit

from archiver.errors import NotAnArchive
from tests.memory_world import ASH
from tests.web.client import Client


def request_of(region: str, subdir: str, rev: str) -> str:
    """Return the target as the client makes it, the empty first parameter included."""
    query = f"?&preferred_region={region}&suffix=tar.gz&subdir={subdir}"
    return f"/archiver/hgmo/{ASH}/{rev}{query}"


def test_the_original_clients_requests_end_with_the_bytes(web: Client) -> None:
    target = request_of("us-west-2", "testing/mozharness", web.world.node[:12])
    accepted = web.get(target, user_agent="Python-urllib/2.7", connection="close")
    assert accepted.status == 202
    assert set(accepted.json) == {"result"}

    location = urlsplit(accepted.headers["location"])
    assert location.scheme, "urllib2 cannot open a relative URL"
    pending = web.get(location.path).result
    assert pending["state"] == "PENDING"
    assert pending["status"]

    web.work()
    done = web.get(location.path).result
    assert done["state"] == "SUCCESS"
    body = web.world.storage.download(done["s3_urls"]["us-west-2"])

    found = web.get(target)
    assert found.status == 302
    assert web.world.storage.download(found.headers["location"]) == body


def test_a_bad_archive_is_polled_until_it_is_a_failure(web: Client) -> None:
    target = request_of("us-east-1", "", "default")
    path = urlsplit(web.get(target).headers["location"]).path
    attempt = web.world.engine.claim()
    assert attempt
    web.world.engine.fail(attempt, NotAnArchive("the host sent something else"))
    failed = web.get(path).result
    assert failed["state"] == "FAILURE"
    assert failed["s3_urls"] == {}


def test_a_region_that_is_unknown_here_still_finds_the_archive(web: Client) -> None:
    web.get(request_of("us-west-1", "", "default"))
    web.work()
    assert web.get(request_of("us-west-1", "", "default")).status == 302
