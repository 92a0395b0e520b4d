"""Lists of archives and tasks over HTTP, for operators."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.errors import EngineUnavailable
from archiver.model import Archive, Region
from archiver.ports.bucket_contents import StoredObject
from archiver.tasks import Phase, TaskState
from archiver.testing.bucket_contents import MemoryContents
from archiver.upkeep.operations import AT_A_TIME, WAITING_MAX
from tests.memory_world import ASH, World
from tests.parts.fleet import an_archive, copies_of
from tests.web.client import Client, ClientResponse, client

TOKENS = {name: create_token() for name in ("admin", "hgmo", "ash", "reader")}
GRANTS = {
    "admin": Grant(scope=Scope.ADMIN),
    "hgmo": Grant(scope=Scope.ADMIN, sources=["hg*"]),
    "ash": Grant(scope=Scope.ADMIN, repos=["projects/*"]),
    "reader": Grant(scope=Scope.READ),
}
POLICY = Policy(
    sources={"hgmo": SourcePolicy()},
    grants=GRANTS,
    names={hash_token(token): name for name, token in TOKENS.items()},
)
EAST = Region("us-east-1")


def access() -> Access:
    return Access(POLICY)


@pytest.fixture
def web() -> Iterator[Client]:
    with client(World(), access=access()) as web:
        yield web


def get(
    web: Client, path: str, query: Mapping[str, object] | None = None, *, caller: str = "admin"
) -> ClientResponse:
    target = f"/archiver/{path}?{urlencode(query or {})}"
    return web.get(target, authorization=f"Bearer {TOKENS[caller]}")


def put(web: Client, archive: Archive, **changes: object) -> Archive:
    manifest = replace(copies_of(archive).manifest, **changes)  # type: ignore[arg-type]
    web.world.storage.manifests[EAST][archive.key] = manifest
    return archive


def tasks_of(response: ClientResponse, name: str = "archives") -> list[str]:
    assert response.status == 200, response.body
    return [each["task"] for each in response.json[name]]


def test_archives_are_listed_page_by_page(web: Client) -> None:
    stored = {put(web, an_archive()).task_id for _ in range(5)}
    found: list[str] = []
    query: dict[str, object] = {"limit": 2}
    for _ in range(3):
        response = get(web, "archives", query)
        found += tasks_of(response)
        query["cursor"] = response.json["next"]
    assert query["cursor"] is None
    assert len(found) == 5
    assert set(found) == stored


def test_an_archive_has_the_fields_of_the_command(web: Client) -> None:
    archive = put(web, an_archive(), size_bytes=5)
    manifest = web.world.storage.manifests[EAST][archive.key]
    body = get(web, "archives").json
    assert body == {
        "archives": [
            {
                "task": archive.task_id,
                "source": "hgmo",
                "repo": ASH,
                "node": archive.node,
                "subdir": "",
                "suffix": "zip",
                "submodules": False,
                "lfs": False,
                "size": 5,
                "sha256": manifest.sha256,
                "created": manifest.created_at.isoformat(),
                "last_use": manifest.created_at.date().isoformat(),
                "supersedes": None,
            }
        ],
        "next": None,
        "unreadable": 0,
    }


def test_last_uses_are_those_that_the_engine_knows(web: Client) -> None:
    created = datetime.now(UTC) - timedelta(days=90)
    used, unused = (put(web, an_archive(), created_at=created) for _ in range(2))
    long_ago, lately = (created.date() + timedelta(days=days) for days in (1, 80))
    asyncio.run(web.world.uses.record([], long_ago))
    asyncio.run(web.world.uses.record([used.key_hash], lately))
    found = get(web, "archives").json["archives"]
    assert {each["task"]: each["last_use"] for each in found} == {
        used.task_id: lately.isoformat(),
        unused.task_id: long_ago.isoformat(),
    }
    assert tasks_of(get(web, "archives", {"unused": 60})) == [unused.task_id]
    web.world.uses.outage = EngineUnavailable("away")
    found = get(web, "archives").json["archives"]
    assert [each["last_use"] for each in found] == [None, None]
    response = get(web, "archives", {"unused": 60})
    assert (response.status, response.json["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize(
    ("query", "count"),
    (
        ({"source": "hgmo"}, 1),
        ({"repo": "proj*"}, 2),
        ({"repo": "x"}, 0),
        ({"suffix": "zip"}, 2),
        ({"suffix": "tar"}, 0),
        ({"older": 1}, 0),
        ({"unused": 0}, 2),
        ({"unused": 1}, 0),
        ({"min_bytes": 10**12}, 1),
    ),
)
def test_archives_are_selected(web: Client, query: dict[str, object], count: int) -> None:
    put(web, an_archive(), size_bytes=10**12)
    put(web, an_archive("retired"))
    assert len(tasks_of(get(web, "archives", query))) == count


@pytest.mark.parametrize(
    ("path", "query", "parameter"),
    (
        ("archives", {"limit": 0}, "limit"),
        ("archives", {"limit": 1001}, "limit"),
        ("archives", {"limit": "1" * 5000}, "limit"),
        ("archives", {"older": -1}, "older"),
        ("archives", {"older": 10**9}, "older"),
        ("archives", {"unused": "x"}, "unused"),
        ("archives", {"min_bytes": "1k"}, "min_bytes"),
        ("archives", {"suffix": "rar"}, "suffix"),
        ("archives", {"repo": ""}, "repo"),
        ("archives", {"repo": "*" * 2000}, "repo"),
        ("archives", {"cursor": "b/../x"}, "cursor"),
        ("archives", {"cursor": f"b{an_archive('git').key}", "source": "hgmo"}, "cursor"),
        ("archives", {"state": "PENDING"}, "state"),
        ("tasks", {"state": "SUCCESS"}, "state"),
        ("tasks", {"limit": 201}, "limit"),
        ("tasks", {"cursor": "x"}, "cursor"),
    ),
)
def test_wrong_parameters_are_named(
    web: Client, path: str, query: dict[str, object], parameter: str
) -> None:
    response = get(web, path, query)
    assert (response.status, response.json["parameter"]) == (400, parameter)


def create(web: Client, count: int, *, state: TaskState | None = None, **changes: object) -> None:
    async def enqueue() -> None:
        for _ in range(count):
            archive = an_archive()
            await web.world.engine.enqueue(archive, client="192.0.2.1")
            if state:
                web.world.engine.change(archive, state=state, phase=Phase.CONNECTING, **changes)

    web.run(enqueue())


def test_tasks_are_counted_and_listed(web: Client) -> None:
    create(web, 3)
    create(web, 2, state=TaskState.STARTED)
    body: dict[str, Any] = get(web, "tasks", {"limit": 1}).json
    assert [(each["state"], each["client"]) for each in body["tasks"]] == [
        ("STARTED", "192.0.2.1"),
        ("PENDING", "192.0.2.1"),
    ]
    assert body["counts"] == [
        {"state": "PENDING", "source": "hgmo", "tasks": 3},
        {"state": "STARTED", "source": "hgmo", "tasks": 2},
    ]
    assert body["clients"] == [{"client": "192.0.2.1", "tasks": 5}]
    assert (body["codes"], body["since"]) == ([], None)
    running = get(web, "tasks", {"state": "started", "source": "hgmo"})
    assert len(tasks_of(running, "tasks")) == 2


@pytest.mark.parametrize("path", ("archives", "tasks"))
def test_only_an_operator_of_all_that_is_listed_gets_a_list(web: Client, path: str) -> None:
    put(web, an_archive())
    put(web, an_archive("retired"))
    create(web, 1)
    expected = {
        ("admin", ""): 200,
        ("admin", "hgmo"): 200,
        ("admin", "nowhere"): 404,
        ("hgmo", ""): 403,
        ("hgmo", "hgmo"): 200,
        ("hgmo", "hgnowhere"): 404,
        ("ash", ""): 403,
        ("ash", "hgmo"): 403,
        ("reader", ""): 403,
        ("reader", "hgmo"): 403,
    }
    found = {
        (token, source): get(web, path, {"source": source} if source else {}, caller=token).status
        for token, source in expected
    }
    assert found == expected
    assert web.get(f"/archiver/{path}").status == 401


@pytest.mark.parametrize("path", ("archives", "tasks"))
def test_lists_are_never_remembered(web: Client, path: str) -> None:
    for count in range(3):
        create(web, 1)
        put(web, an_archive())
        assert len(tasks_of(get(web, path), path)) == count + 1
        assert get(web, path).headers["cache-control"] == "no-store"


def test_a_lost_dependency_is_a_503(web: Client) -> None:
    web.world.storage.down.update(web.world.storage.regions)
    assert get(web, "archives").code == "storage_unavailable"
    web.world.engine.down = True
    assert get(web, "tasks").code == "engine_unavailable"


class Hanging(MemoryContents):
    """Contents whose listing waits for ``released``, and counts those that wait at a time."""

    released: asyncio.Event
    at_a_time = 0

    async def iter_manifests(
        self, region: Region, source: str | None = None, *, after: Archive | None = None
    ) -> AsyncGenerator[StoredObject, None]:
        self.at_a_time += 1
        await self.released.wait()
        self.at_a_time -= 1
        async for each in super().iter_manifests(region, source, after=after):
            yield each


def test_few_lists_are_made_at_a_time_while_hits_go_on() -> None:
    world = World()
    storage = world.storage
    hanging = Hanging(
        objects=storage.objects,
        manifests=storage.manifests,
        down=storage.down,
        unreadable=storage.unreadable,
        marks=storage.marks,
    )
    storage.contents = hanging
    hanging.released = asyncio.Event()
    with client(world, access=access()) as web:
        web.get(f"/archiver/hgmo/{ASH}/default", authorization=f"Bearer {TOKENS['admin']}")
        web.work()

        async def crowd() -> list[int]:
            headers = {"authorization": f"Bearer {TOKENS['admin']}"}
            count = AT_A_TIME + WAITING_MAX + 3
            lists = [
                asyncio.ensure_future(web.request_async("/archiver/archives", headers=headers))
                for _ in range(count)
            ]
            refused, _ = await asyncio.wait(lists, return_when=asyncio.FIRST_COMPLETED)
            assert [each.result().code for each in refused] == ["too_many_waiters"] * len(refused)
            assert hanging.at_a_time == AT_A_TIME
            hit = await web.request_async(f"/archiver/hgmo/{ASH}/default", headers=headers)
            assert hit.status == 302
            hanging.released.set()
            return sorted([(await each).status for each in lists])

        statuses = web.run(crowd())
    assert statuses == [200] * (AT_A_TIME + WAITING_MAX) + [503] * 3
