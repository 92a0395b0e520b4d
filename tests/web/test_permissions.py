"""Every route, requested by each kind of caller."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.model import Archive
from archiver.telemetry import METRICS
from archiver.testing import FakeSource
from archiver.web.app import ROUTES
from archiver.web.router import Permission
from tests.memory_world import ASH, World
from tests.web.client import Client, ClientResponse, client

PRIVATE = "vault"
ADDRESS = f"/archiver/{PRIVATE}/{ASH}/default"

TOKENS = {name: create_token() for name in ("reader", "creator", "admin", "elsewhere")}
"""``elsewhere`` is valid, and covers other repos only."""

NAMES = {hash_token(token): name for name, token in TOKENS.items()}
GRANTS = {
    "reader": Grant(scope=Scope.READ),
    "creator": Grant(scope=Scope.CREATE),
    "admin": Grant(scope=Scope.ADMIN),
    "elsewhere": Grant(scope=Scope.ADMIN, sources=["other", "nowhere"]),
}

PUBLIC = "public"
"""Requests without credentials."""

WRONG = "wrong"
"""A token that is not known."""

STRANGERS = (PUBLIC, WRONG, "elsewhere")


def new_world() -> World:
    return World(source=FakeSource(name=PRIVATE))


def policy(*, private: bool = False, anonymous: Scope = Scope.CREATE) -> Policy:
    vault = SourcePolicy(private=private, anonymous=anonymous)
    other = SourcePolicy(anonymous=Scope.NONE)
    return Policy(sources={PRIVATE: vault, "other": other}, grants=GRANTS, names=NAMES)


@pytest.fixture
def locked() -> Iterator[Client]:
    """An application whose only source is private, with one stored archive and one task."""
    world = new_world()
    with client(world, access=Access(policy(private=True))) as web:
        creator = credentials("creator")
        web.get(ADDRESS, **creator)
        web.work()
        web.get(f"{ADDRESS}?suffix=zip", **creator)
        yield web


def credentials(caller: str) -> dict[str, str]:
    if caller == PUBLIC:
        return {}
    return {"authorization": f"Bearer {TOKENS.get(caller) or create_token()}"}


def archive_in(world: World, source: str, suffix: str = "tar.gz") -> Archive:
    return Archive(source=source, repo=ASH, node=world.node, subdir="", suffix=suffix)


def targets(world: World, source: str) -> dict[str, str]:
    """Return a target for each route, whose archive is stored if *source* is the world's."""
    return {
        "archive": f"/archiver/{source}/{ASH}/default",
        "purge": f"/archiver/{source}/{ASH}/{world.node}?reason=test",
        "pin": f"/archiver/status/{archive_in(world, source).task_id}/pin?reason=test",
        "unpin": f"/archiver/status/{archive_in(world, source).task_id}/pin",
        "archives": f"/archiver/archives?source={source}",
        "tasks": f"/archiver/tasks?source={source}",
        "prewarm": "/archiver/tasks",
        "hook": "/hooks/vault",
        "status": f"/archiver/status/{archive_in(world, source).task_id}",
        "events": f"/archiver/status/{archive_in(world, source).task_id}/events",
        "checksum": f"/get/{source}/{ASH}/default.tar.gz.sha256",
        "file": f"/get/{source}/{ASH}/default.tar.gz",
        "digest": f"/sha256/{'0' * 64}",
        "version": "/__version__",
        "heartbeat": "/__heartbeat__",
        "lbheartbeat": "/__lbheartbeat__",
        "metrics": "/metrics",
        "openapi": "/openapi.json",
        "robots": "/robots.txt",
    }


def send(
    web: Client, name: str, method: str, source: str, headers: dict[str, str]
) -> ClientResponse:
    """Request a route for *source*; a batch names it in its body, and others have none."""
    target = targets(web.world, source)[name]
    if method != "POST":
        return web.request(method, target, **headers)
    requests = [
        {"source": source, "repo": ASH, "rev": rev} for rev in ("default", web.world.node, "none")
    ]
    return web.post_json(target, {"requests": requests}, **headers)


def comparable(response: ClientResponse, source: str) -> tuple[object, ...]:
    """Return everything of a response but the request's id, without the name of the source."""
    headers = [
        (name, value.replace(source, "SOURCE"))
        for name, value in response.headers.items()
        if name not in {"x-request-id", "content-length"}
    ]
    body = response.body.decode().replace(source, "SOURCE")
    return response.status, headers, body.replace(response.headers["x-request-id"], "ID")


REQUESTS = [(route.name, method) for route in ROUTES for method in route.methods]
METHODS = {route.name: route.methods[0] for route in ROUTES}


def test_every_route_is_walked() -> None:
    assert targets(new_world(), PRIVATE).keys() == {route.name for route in ROUTES}


@pytest.mark.parametrize("caller", STRANGERS)
@pytest.mark.parametrize(("name", "method"), REQUESTS)
def test_a_private_source_is_like_none_to_those_who_may_not_read_it(
    locked: Client, name: str, caller: str, method: str
) -> None:
    asked = len(locked.world.source.asked)
    existing, absent = targets(locked.world, PRIVATE)[name], targets(locked.world, "nowhere")[name]
    if existing == absent and method != "POST":
        assert PRIVATE not in locked.request(method, existing, **credentials(caller)).body.decode()
    else:
        responses = [
            comparable(send(locked, name, method, source, credentials(caller)), source)
            for source in (PRIVATE, "nowhere")
        ]
        assert responses[0] == responses[1]
    assert len(locked.world.source.asked) == asked
    assert locked.get(ADDRESS, **credentials("reader")).status == 302


@pytest.mark.parametrize("caller", STRANGERS)
@pytest.mark.parametrize("query", ("", "?wait=1", "?suffix=zip", "?suffix=no", "?on_miss=redirect"))
def test_no_query_reveals_a_private_source(locked: Client, caller: str, query: str) -> None:
    responses = [
        comparable(
            locked.get(f"/archiver/{source}/{ASH}/default{query}", **credentials(caller)), source
        )
        for source in (PRIVATE, "nowhere")
    ]
    assert responses[0] == responses[1]


@pytest.mark.parametrize("caller", ("reader", "creator", "admin"))
def test_those_who_may_read_a_private_source_use_every_route(locked: Client, caller: str) -> None:
    for name, target in targets(locked.world, PRIVATE).items():
        expected = {
            "archive": 302,
            "file": 302,
            "digest": 404,
            "metrics": 200 if caller == "admin" else 403,
            "purge": 400 if caller == "admin" else 403,
            "pin": 400 if caller == "admin" else 403,
            "unpin": 404 if caller == "admin" else 403,
            "archives": 200 if caller == "admin" else 403,
            "tasks": 200 if caller == "admin" else 403,
            "prewarm": 403 if caller == "reader" else 200,
            "hook": 403,
        }.get(name, 200)
        if METHODS[name] == "POST":
            response = send(locked, name, "POST", PRIVATE, credentials(caller))
        else:
            target = target.replace("?reason=test", "")  # noqa: PLW2901 - nothing changes
            response = locked.request(METHODS[name], target, **credentials(caller))
        assert response.status == expected, name
    result = locked.get(targets(locked.world, PRIVATE)["status"], **credentials(caller)).result
    assert result["state"] == "SUCCESS"


@pytest.mark.parametrize("caller", STRANGERS)
def test_the_sha256_of_a_private_archive_is_not_found(locked: Client, caller: str) -> None:
    sha256 = locked.get(ADDRESS, **credentials("reader")).headers["archiver-sha256"]
    assert locked.get(f"/sha256/{sha256}", **credentials("reader")).status == 302
    refused = locked.get(f"/sha256/{sha256}", **credentials(caller))
    assert comparable(refused, sha256) == comparable(
        locked.get(f"/sha256/{'0' * 64}", **credentials(caller)), "0" * 64
    )


@pytest.mark.parametrize("first", ("reader", PUBLIC, "elsewhere"))
def test_remembered_answers_never_reach_another_caller(locked: Client, first: str) -> None:
    """The same target three times, so that it is remembered, and then by all the others."""
    for target in targets(locked.world, PRIVATE).values():
        for _ in range(3):
            locked.get(target, **credentials(first))
    for target in (ADDRESS, targets(locked.world, PRIVATE)["file"]):
        for caller in STRANGERS:
            assert locked.get(target, **credentials(caller)).status in {401, 404}
        assert locked.get(target, **credentials("reader")).status == 302


async def _crowd(web: Client, target: str, callers: list[str]) -> dict[str, set[int]]:
    requests = [web.request_async(target, headers=credentials(caller)) for caller in callers]
    found: dict[str, set[int]] = {}
    for caller, response in zip(callers, await asyncio.gather(*requests), strict=True):
        found.setdefault(caller, set()).add(response.status)
    return found


def test_a_crowd_of_callers_at_once_shares_no_answer(locked: Client) -> None:
    callers = ["reader", PUBLIC, WRONG, "elsewhere", "creator"] * 20
    found = locked.run(_crowd(locked, ADDRESS, callers))
    expected = {"reader": {302}, "creator": {302}, PUBLIC: {401}, WRONG: {401}, "elsewhere": {404}}
    assert found == expected


def test_only_a_creator_has_an_archive_built(locked: Client) -> None:
    target = f"{ADDRESS}?suffix=tar"
    before = len(locked.world.engine.tasks)
    refused = locked.get(target, **credentials("reader"))
    assert (refused.status, refused.code) == (403, "forbidden")
    assert locked.head(target, **credentials("reader")).status == 404
    assert len(locked.world.engine.tasks) == before
    assert locked.get(target, **credentials("creator")).status == 202


def test_without_credentials_some_may_read_but_not_create() -> None:
    with client(new_world(), access=Access(policy(anonymous=Scope.READ))) as web:
        refused = web.get(ADDRESS)
        assert (refused.status, refused.code) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
        web.get(ADDRESS, **credentials("creator"))
        web.work()
        assert web.get(ADDRESS).status == 302
        assert web.get(ADDRESS, **credentials("elsewhere")).status == 302
        assert web.get(ADDRESS, **credentials(WRONG)).status == 401


def test_netrc_sends_basic_with_the_token_as_password(locked: Client) -> None:
    encoded = base64.b64encode(f"anyone:{TOKENS['reader']}".encode()).decode()
    assert locked.get(ADDRESS, authorization=f"Basic {encoded}").status == 302


def test_a_removed_token_ends_remembered_answers_and_event_streams() -> None:
    access = Access(policy(private=True))
    world = new_world()
    with client(world, access=access) as web:
        web.get(ADDRESS, **credentials("creator"))
        events = f"/archiver/status/{world.archive().task_id}/events"
        started = asyncio.Event()

        async def takes(piece: bytes) -> None:
            if b"PENDING" in piece:
                started.set()

        async def scenario() -> ClientResponse:
            stream = asyncio.ensure_future(
                web.request_async(events, takes=takes, headers=credentials("reader"))
            )
            await started.wait()
            access.replace(Policy(sources=policy(private=True).sources))
            world.engine.claim()
            world.notifications.publish(world.archive().key_hash)
            async with asyncio.timeout(20):
                return await stream

        response = web.run(scenario())
        assert response.status == 200
        assert b"STARTED" not in response.body
        assert web.get(ADDRESS, **credentials("creator")).status == 401


def test_the_log_names_the_caller_and_not_its_token(
    locked: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    locked.get(f"{ADDRESS}?suffix=tar", **credentials("reader"))
    text = capsys.readouterr().out
    assert "token:reader" in text
    assert TOKENS["reader"] not in text


def test_every_route_states_a_permission() -> None:
    public = {route.name for route in ROUTES if route.permission is Permission.PUBLIC}
    assert public == {"version", "heartbeat", "lbheartbeat", "openapi", "robots", "hook"}


@pytest.mark.parametrize(
    "target", (f"{ADDRESS}?wait=5", f"{ADDRESS}?wait=5&sha256={'0' * 64}", "status")
)
def test_a_token_that_is_removed_during_a_wait_gets_nothing(target: str) -> None:
    access, world = Access(policy(private=True)), new_world()
    with client(world, access=access) as web:
        web.get(ADDRESS, **credentials("creator"))
        if target == "status":
            target = f"{targets(world, PRIVATE)['status']}?wait=5"

        async def scenario() -> ClientResponse:
            waiting = asyncio.ensure_future(
                web.request_async(target, headers=credentials("creator"))
            )
            while not METRICS.waiters._value.get():  # noqa: SLF001 - it has no other reader
                await asyncio.sleep(0.005)
            access.replace(replace(policy(private=True), grants={}, names={}))
            await world.work()
            return await waiting

        response = web.run(scenario())
        assert response.status in {401, 404}
        assert b"http" not in response.body
        assert "location" not in response.headers
