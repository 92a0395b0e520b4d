"""The client for programs, with and without asyncio."""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from archiver.client import (
    ArchiveRequest,
    Client,
    InvalidUsage,
    NotFound,
    TimedOut,
    Unfinished,
    WrongBytes,
)
from archiver.client.async_client import AsyncClient
from tests.client.responses import CONTENT, OBJECT, PART, REV_URL, SHA256, STATUS, problem, progress
from tests.parts.scripted_server import Response, ScriptedServer, ranged

ASH = ArchiveRequest("hgmo", "projects/ash", "default")


class Recorder:
    """Implements Events, and remembers them."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.size_bytes = 0
        self.sentences: list[str] = []

    def update(self, phase: str, done: int, total: int | None = None) -> None:  # noqa: ARG002
        self.phases.append(phase)

    def advance(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes

    def notice(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def kept(self, part: Path) -> None:
        self.sentences.append(part.name)


@pytest.fixture
def found(server: ScriptedServer, hit: Response) -> ScriptedServer:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    return server


def test_flags_are_the_last_fields_of_a_request_and_sent_only_if_they_are_set(
    found: ScriptedServer,
) -> None:
    assert [field.name for field in fields(ArchiveRequest)][-2:] == ["submodules", "lfs"]
    with Client(found.url) as client:
        client.locate(ASH)
        client.locate(replace(ASH, submodules=True, lfs=True))
    plain, complete = (urlsplit(path).query for path, _ in found.requests)
    assert parse_qsl(complete) == [*parse_qsl(plain), ("submodules", "1"), ("lfs", "1")]


def test_an_archive_is_downloaded_with_its_progress(found: ScriptedServer, tmp_path: Path) -> None:
    events, path = Recorder(), tmp_path / "here"
    with Client(found.url, events=events) as client:
        got = client.get(ASH, str(path))
        assert client.locate(ASH) == got.located
    assert path.read_bytes() == CONTENT
    assert (got.located.sha256, got.path, got.downloaded) == (SHA256, str(path), True)
    assert (events.phases, events.size_bytes) == (["download"], len(CONTENT))


def test_failures_are_kinds_of_their_own(
    server: ScriptedServer, hit: Response, miss: Response
) -> None:
    server.respond(REV_URL, problem(404, "unknown_rev"), problem(409, "other_bytes"), hit, miss)
    server.respond(STATUS, progress("STARTED"))
    with Client(server.url, wait_s=0.1) as client:
        with pytest.raises(NotFound, match="unknown_rev: because of unknown_rev"):
            client.locate(ASH)
        for request in (ASH, ArchiveRequest("hgmo", "projects/ash", "default", sha256="0" * 64)):
            with pytest.raises(WrongBytes):
                client.locate(request)
        with pytest.raises(Unfinished):
            client.locate(ASH)
        assert client.status(server.url + STATUS).state == "STARTED"
    with Client(server.url, timeout_s=0.1) as client, pytest.raises(TimedOut):
        client.locate(ASH)
    for urls in ((), ("ftp://archiver.test",)):
        with pytest.raises(InvalidUsage):
            Client(*urls)


def test_a_failed_download_leaves_what_it_has(
    found: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found.respond(OBJECT, ranged(CONTENT, broken_at=100))
    events = Recorder()
    with Client(found.url, retries=0, events=events) as client, pytest.raises(Exception):  # noqa: B017, PT011
        client.get(ASH, "here")
    assert (tmp_path / PART).read_bytes() == CONTENT[:100]
    assert events.sentences == [PART]


def test_many_archives_are_downloaded_at_a_time(found: ScriptedServer, tmp_path: Path) -> None:
    async def get_all() -> None:
        async with AsyncClient(Client(found.url)) as client:
            names = [str(tmp_path / str(number)) for number in range(8)]
            gots = await asyncio.gather(*(client.get(ASH, name) for name in names))
            assert [got.path for got in gots] == names
            assert await client.locate(ASH) == gots[0].located

    asyncio.run(get_all())
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {CONTENT}


def test_a_cancelled_call_ends_its_thread(server: ScriptedServer, miss: Response) -> None:
    asked = threading.Event()

    def report(_headers: Mapping[str, str]) -> Response:
        asked.set()
        return progress("STARTED")

    server.respond(REV_URL, miss)
    server.respond(STATUS, report)

    async def cancel() -> None:
        client = AsyncClient(Client(server.url))
        call = asyncio.create_task(client.locate(ASH))
        await asyncio.to_thread(asked.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())  # waits for the thread
