"""Every route, for clients that may read a repo but not a submodule whose files are in an archive.

They get what they would get if no source served the submodule's URL.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from archiver.errors import ArchiverError, SourceUnavailable, SubmoduleMissing, SubmoduleRefused
from archiver.model import Archive, Manifest
from archiver.testing import FakeAttempt
from archiver.web.app import ROUTES
from archiver.web.waiting.waiters import WaitLimits
from tests.memory_world import ASH
from tests.part_world import (
    NARROWED,
    OPEN,
    ORIGIN,
    OUTSIDERS,
    PartWorld,
    credentials,
    part_of,
)
from tests.parts.fleet import HUNG_AFTER_S
from tests.web.client import CONFIG, Client, ClientResponse, client
from tests.web.waiters import settled

REFUSED = SubmoduleRefused.of(ORIGIN.path, ORIGIN.url)
UNREADABLE = part_of(ORIGIN)

FAILURES = {
    "built": None,
    "missing": SubmoduleMissing(f"vault has no commit {UNREADABLE.node}").within(ORIGIN),
    "away": SourceUnavailable("the host of vault is away").within(ORIGIN),
}
"""What happened to the archive; None if it is stored."""

BY_ADDRESS = ("archive", "checksum", "file")
PATIENT = replace(CONFIG, wait_limits=WaitLimits(hold_s=600))

NO_ARCHIVE = {"version", "heartbeat", "lbheartbeat", "metrics", "openapi", "robots", "hook"}
"""A delivery names no outcome of archives with submodules: see ``test_hooks``."""


@contextmanager
def world_with(fault: ArchiverError | None, *, complete: bool) -> Iterator[Client]:
    """Yield an application whose world has had an archive requested, and built with *fault*."""
    world = PartWorld()
    with client(world, access=world.access) as web:
        world.source.fault = fault
        web.run(world.engine.enqueue(wanted(world, complete=complete), client="token:whole"))
        web.work()
        yield web


def wanted(world: PartWorld, *, complete: bool) -> Archive:
    return world.complete() if complete else world.archive()


def world_of(web: Client) -> PartWorld:
    assert isinstance(web.world, PartWorld)
    return web.world


def targets(web: Client, *, complete: bool) -> dict[str, str]:
    """Return a target for each route that leads to an archive; with *complete*, by its task."""
    world = world_of(web)
    sha256 = next(iter(world.index.digests), "0" * 64)
    status = f"/archiver/status/{wanted(world, complete=complete).task_id}"
    by_task = {
        "status": status,
        "events": f"{status}/events",
        "pin": f"{status}/pin?reason=test",
        "unpin": f"{status}/pin",
        "archives": f"/archiver/archives?source={OPEN}",
        "tasks": f"/archiver/tasks?source={OPEN}&limit=20",
        "digest": f"/sha256/{sha256}",
    }
    flag, node = "?submodules=1" if complete else "", wanted(world, complete=complete).node
    by_address = {
        "archive": f"/archiver/{OPEN}/{ASH}/default{flag}",
        "checksum": f"/get/{OPEN}/{ASH}/default.tar.gz.sha256{flag}",
        "file": f"/get/{OPEN}/{ASH}/default.tar.gz{flag}",
        "purge": f"/archiver/{OPEN}/{ASH}/{node}{flag}&reason=test",
    }
    if complete:
        return by_task | by_address | {"prewarm": "/archiver/tasks"}
    del by_address["purge"]
    return by_address | {
        "status": status,
        "events": f"{status}/events",
        "prewarm": "/archiver/tasks",
    }


def send(web: Client, name: str, method: str, caller: str, *, complete: bool) -> ClientResponse:
    """Request a route; a batch has the archive twice."""
    target = targets(web, complete=complete)[name]
    if method != "POST":
        return web.request(method, target, **credentials(caller))
    request = {"source": OPEN, "repo": ASH, "rev": "default", "submodules": complete}
    return web.post_json(target, {"requests": [request, request]}, **credentials(caller))


METHODS = {route.name: route.methods for route in ROUTES}
REQUESTS = [
    (complete, name, method)
    for complete, names in (
        (False, (*BY_ADDRESS, "status", "events", "prewarm")),
        (True, (*BY_ADDRESS, "status", "events", "pin", "unpin", "archives", "tasks", "digest")),
        (True, ("prewarm",)),
        (True, ("purge",)),
    )
    for name in names
    for method in METHODS[name]
]


def test_every_route_that_leads_to_an_archive_is_walked() -> None:
    assert {name for _, name, _ in REQUESTS} | NO_ARCHIVE == METHODS.keys()


def comparable(response: ClientResponse) -> tuple[object, ...]:
    """Return everything of a response but ids and times. An odd id of an event stays odd."""
    text = response.body.decode().replace(response.headers["x-request-id"], "ID")
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00", "TIME", text)
    text = re.sub(r"\bid: (\d+)", lambda match: f"id: {int(match[1]) % 2}", text)
    varying = {"x-request-id": "ID", "etag": "ETAG"}
    headers = [
        (name, varying.get(name, value))
        for name, value in response.headers.items()
        if name != "content-length"  # times have one digit more or less
    ]
    return response.status, headers, text


@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize("caller", OUTSIDERS)
@pytest.mark.parametrize(("complete", "name", "method"), REQUESTS)
def test_a_hidden_part_is_like_one_whose_url_no_source_serves(
    outcome: str, caller: str, *, complete: bool, name: str, method: str
) -> None:
    responses = []
    for fault in (FAILURES[outcome], REFUSED):
        with world_with(fault, complete=complete) as web:
            response = send(web, name, method, caller, complete=complete)
            responses.append(comparable(response))
            assert_no_secret(response, secrets_of(web, complete=complete))
    assert responses[0] == responses[1]


@pytest.mark.parametrize("caller", OUTSIDERS)
@pytest.mark.parametrize(
    "query",
    ("on_miss=none", "on_miss=redirect", "wait=1", f"sha256={'0' * 64}", "preferred_region=x"),
)
def test_no_query_reveals_a_hidden_part(caller: str, query: str) -> None:
    responses = []
    for fault in (None, REFUSED):
        with world_with(fault, complete=False) as web:
            for name in BY_ADDRESS:
                target = f"{targets(web, complete=False)[name]}?{query}"
                responses.append(comparable(web.get(target, **credentials(caller))))
            for query_of_status in ("wait=1", f"sha256={'0' * 64}"):
                target = f"{targets(web, complete=False)['status']}?{query_of_status}"
                responses.append(comparable(web.get(target, **credentials(caller))))
    assert responses[:5] == responses[5:]


def secrets_of(web: Client, *, complete: bool) -> list[str]:
    """Return all that a client must not learn of a stored archive and of its hidden part."""
    key, storage = wanted(world_of(web), complete=complete).key, web.world.storage
    manifests = [each[key] for each in storage.manifests.values() if key in each]
    return [
        *(secret for manifest in manifests[:1] for secret in secrets_in(manifest)),
        "s3.example",
        ORIGIN.source,
        ORIGIN.repo,
        UNREADABLE.node,
        UNREADABLE.tree,
    ]


def secrets_in(manifest: Manifest) -> list[str]:
    return [manifest.sha256, f'"size":{manifest.size_bytes}', manifest.object_key]


def assert_no_secret(response: ClientResponse, secrets: Sequence[str]) -> None:
    sent = str(response.headers.raw) + response.body.decode()
    assert "archiver-size" not in response.headers
    for secret in secrets:
        assert secret not in sent


@pytest.mark.parametrize("complete", (False, True))
def test_a_client_that_may_read_all_parts_uses_every_route(*, complete: bool) -> None:
    """The secrets are really there, so that the other tests can find them."""
    with world_with(None, complete=complete) as web:
        secrets = secrets_of(web, complete=complete)[:3]
        found: dict[str, bytes] = {}
        for name in targets(web, complete=complete):
            response = send(web, name, METHODS[name][0], "whole", complete=complete)
            assert response.status in {200, 204, 302}, name
            found[name] = str(response.headers.raw).encode() + response.body
        for secret in secrets:
            assert any(secret.encode() in body for body in found.values()), secret
        assert b"SUCCESS" in found["status"]


def test_a_remembered_redirect_never_reaches_another_client() -> None:
    with world_with(None, complete=False) as web:
        for target in [targets(web, complete=False)[name] for name in BY_ADDRESS]:
            for _ in range(3):
                assert web.get(target, **credentials("whole")).status in {200, 302}
            for caller in OUTSIDERS:
                refused = web.get(target, **credentials(caller))
                assert (refused.status, refused.code) == (502, "submodule_refused")


def test_a_permission_that_is_removed_ends_remembered_redirects() -> None:
    with world_with(None, complete=False) as web:
        target = targets(web, complete=False)["archive"]
        for _ in range(3):
            assert web.get(target, **credentials("whole")).status == 302
        world_of(web).access.replace(NARROWED)
        assert web.get(target, **credentials("whole")).code == "submodule_refused"


def waiting_together(
    web: Client, targets: Sequence[tuple[str, str]], *then: Callable[[], object]
) -> list[ClientResponse]:
    """Return the responses to pairs of caller and target, which wait while *then* is called."""

    async def play() -> list[ClientResponse]:
        async with asyncio.TaskGroup() as group:
            requests = [
                group.create_task(web.request_async(target, headers=credentials(caller)))
                for caller, target in targets
            ]
            await settled()
            for act in then:
                act()
                await settled()
            await web.world.work()
        return [request.result() for request in requests]

    return web.run(play())


CROWD = ("whole", "anonymous", "outer", "whole", "anonymous")


@pytest.mark.parametrize("callers", (CROWD, CROWD[::-1], CROWD[1:]))
def test_clients_that_wait_together_each_get_their_own_answer(callers: Sequence[str]) -> None:
    world = PartWorld()
    with client(world, access=world.access) as web:
        waits = [(caller, f"/archiver/{OPEN}/{ASH}/default?wait=5") for caller in callers]
        for caller, response in zip(callers, waiting_together(web, waits), strict=True):
            if caller == "whole":
                assert response.status == 302
            else:
                assert response.code == "submodule_refused"
                assert_no_secret(response, secrets_of(web, complete=False))


@pytest.mark.parametrize("callers", (CROWD, CROWD[::-1], CROWD[1:]))
def test_event_streams_of_one_task_differ_where_a_part_is_hidden(callers: Sequence[str]) -> None:
    world = PartWorld()
    with client(world, access=world.access) as web:
        web.run(world.engine.enqueue(world.complete()))
        events = targets(web, complete=True)["events"]
        streams = [(caller, events) for caller in callers]
        for caller, stream in zip(callers, waiting_together(web, streams), strict=True):
            end = b"event: done" if caller == "whole" else b"event: failed"
            assert end in stream.body
            assert (b"https://us-east-1.s3.example" in stream.body) is (caller == "whole")


def claimed(web: Client) -> FakeAttempt:
    attempt = web.world.engine.claim()
    assert attempt
    return attempt


@pytest.mark.parametrize("kind", ("archive", "status", "events"))
def test_an_error_in_a_hidden_part_ends_a_wait_although_the_task_goes_on(kind: str) -> None:
    world = PartWorld()
    with client(world, access=world.access) as web:
        web.run(world.engine.enqueue(world.archive()))
        attempt, waited = claimed(web), []

        def fail() -> None:
            world.engine.retry(attempt, SourceUnavailable("the host of vault").within(ORIGIN))

        async def play() -> None:
            wait = "" if kind == "events" else "?wait=5"
            target = targets(web, complete=False)[kind] + wait
            requests = {
                caller: asyncio.ensure_future(
                    web.request_async(target, headers=credentials(caller))
                )
                for caller in ("whole", "anonymous")
            }
            await settled()
            fail()
            async with asyncio.timeout(HUNG_AFTER_S / 2):
                waited.append(await requests["anonymous"])
            await world.work()
            await requests["whole"]

        web.run(play())
        assert b"vault" not in waited[0].body
        assert REFUSED.message.encode() in waited[0].body
        assert (b"event: failed" in waited[0].body) is (kind == "events")


def test_a_client_that_has_seen_the_refusal_gets_no_more_events() -> None:
    """As after every end of a task: the status that stays hidden is no change."""
    with world_with(None, complete=True) as web:
        events = targets(web, complete=True)["events"]
        first = web.get(events)
        last_id = re.findall(rb"id: (\d+)", first.body)[-1].decode()
        assert web.get(events, last_event_id=last_id).status == 204


@pytest.mark.parametrize("kind", ("status", "events"))
def test_the_refusal_of_a_task_that_goes_on_is_its_end(kind: str) -> None:
    """A client that knows it does not wait for a change."""
    world = PartWorld()
    with client(world, access=world.access, config=PATIENT) as web:
        web.run(world.engine.enqueue(world.complete()))
        world.engine.retry(claimed(web), SourceUnavailable("the host of vault").within(ORIGIN))
        by_route = targets(web, complete=True)
        status, events = web.get(by_route["status"]), web.get(by_route["events"])
        if kind == "status":
            known = {"if-none-match": status.headers["etag"]}
        else:
            known = {"last-event-id": re.findall(rb"id: (\d+)", events.body)[-1].decode()}
        target = by_route["events"] if kind == "events" else f"{by_route['status']}?wait=600"
        request = web.request_async(target, headers=known)
        response = web.run(asyncio.wait_for(request, HUNG_AFTER_S / 2))
        assert response.status == (304 if kind == "status" else 204)
        web.work()


def test_the_etag_of_a_refusal_is_known_again() -> None:
    with world_with(None, complete=True) as web:
        status = targets(web, complete=True)["status"]
        etag = web.get(status).headers["etag"]
        assert web.get(status, if_none_match=etag).status == 304
        assert web.get(f"{status}?wait=5", if_none_match=etag).status == 304
        assert "etag" not in web.get(status, **credentials("whole")).headers


@pytest.mark.parametrize("target", ("?wait=5", f"?wait=5&sha256={'0' * 64}", "status", "events"))
def test_a_permission_that_is_removed_during_a_wait_is_honoured(target: str) -> None:
    world = PartWorld()
    with client(world, access=world.access) as web:
        web.run(world.engine.enqueue(world.archive()))
        by_route = targets(web, complete=False)
        path = {"status": f"{by_route['status']}?wait=5", "events": by_route["events"]}.get(
            target, by_route["archive"] + target
        )

        def narrow() -> None:
            world.access.replace(NARROWED)

        [response] = waiting_together(web, [("whole", path)], narrow)
        assert_no_secret(response, secrets_of(web, complete=False))
        assert (b"submodule_refused" in response.body) is (target != "status")


def test_a_permission_that_is_removed_while_the_archive_is_found_is_honoured() -> None:
    world = PartWorld()
    with client(world, access=world.access) as web:
        world.archiver.hits.add(lambda _: world.access.replace(NARROWED))
        target = targets(web, complete=False)["archive"]
        [response] = waiting_together(web, [("whole", f"{target}?wait=5")])
        assert response.code == "submodule_refused"


def test_the_pin_of_a_hidden_archive_does_not_show() -> None:
    with world_with(None, complete=True) as web:
        by_route = targets(web, complete=True)
        assert web.request("PUT", by_route["pin"], **credentials("whole")).status == 204
        for caller, pinned in (("whole", True), ("outer", False), ("anonymous", False)):
            result = web.get(by_route["status"], **credentials(caller)).result
            assert result["pinned"] is pinned


@pytest.mark.parametrize("caller", ("outer", "whole"))
def test_only_clients_that_may_read_everything_pin_complete_archives(caller: str) -> None:
    """Whether the archive exists makes no difference."""
    for fault in (None, REFUSED):
        with world_with(fault, complete=True) as web:
            for method, name in (("PUT", "pin"), ("DELETE", "unpin")):
                target = targets(web, complete=True)[name]
                response = web.request(method, target, **credentials(caller))
                assert (response.status == 403) is (caller == "outer")


def test_lists_of_operators_that_may_not_read_everything_lack_complete_archives() -> None:
    with world_with(FAILURES["missing"], complete=True) as web:
        world = world_of(web)
        world.source.fault = None
        web.run(world.engine.enqueue(world.complete("zip")))
        web.work()
        for name in ("archives", "tasks"):
            target = targets(web, complete=True)[name]
            for caller, listed in (("whole", 1), ("outer", 0)):
                assert len(web.get(target, **credentials(caller)).json[name]) == listed
