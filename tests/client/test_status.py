"""``archiver status``."""

import json

import pytest

from tests.client.responses import STATUS, problem, progress
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer

TOKEN = {"ARCHIVER_TOKEN": "archiver_x"}
TWO_LINES = {"ARCHIVER_TOKEN": "a\nb"}
TASK = "hgmo:projects:ash"
LINKS = {"us-west-2": "http://s3/two?X-Amz-Signature=1", "us-east-1": "http://s3/one?X-Amz-a=2"}


@pytest.mark.parametrize("by_url", (True, False))
def test_a_task_may_be_given_as_id_or_url(
    run: Run, server: ScriptedServer, *, by_url: bool
) -> None:
    server.respond(STATUS, progress("STARTED"))
    words = (server.url + STATUS,) if by_url else (TASK, "--server", server.url)
    result = run("status", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["state", "STARTED"]


@pytest.mark.parametrize("flags", ((), ("--json",)))
def test_regions_are_shown_without_their_links(
    run: Run, server: ScriptedServer, flags: tuple[str, ...]
) -> None:
    server.respond(STATUS, progress("SUCCESS", s3_urls=LINKS))
    result = run("status", TASK, "--server", server.url, *flags)
    assert result.exit_code == 0
    assert "us-east-1" in result.stdout
    assert "X-Amz" not in result.output


def test_json_is_the_servers_result_without_links(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, progress("SUCCESS", s3_urls=LINKS, attempt=2))
    told = json.loads(run("status", TASK, "--server", server.url, "--json").stdout)
    assert told["attempt"] == 2
    assert told["regions"] == ["us-east-1", "us-west-2"]


def test_an_unknown_task_is_not_watched_for_ever(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, progress("PENDING", created_at=None))
    result = run("status", TASK, "--server", server.url, "--watch")
    assert result.exit_code == 3
    assert "there is no such task" in result.stderr


def test_watching_ends_with_the_task(run: Run, server: ScriptedServer) -> None:
    waiting = progress("PENDING", created_at="2026-01-02T03:04:05+00:00")
    server.respond(STATUS, waiting, waiting, progress("STARTED"), progress("SUCCESS"))
    result = run("status", TASK, "--server", server.url, "--watch", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "SUCCESS"


@pytest.mark.parametrize("flags", ((), ("--watch",)))
def test_a_failed_task_is_shown_with_exit_code_1(
    run: Run, server: ScriptedServer, flags: tuple[str, ...]
) -> None:
    server.respond(
        STATUS, progress("FAILURE", error={"code": "wrong_root", "message": "two roots"})
    )
    result = run("status", TASK, "--server", server.url, *flags)
    assert result.exit_code == 1
    assert "wrong_root: two roots" in result.stdout


def test_a_server_outage_exits_with_75(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, problem(503, "engine_unavailable"))
    result = run("status", TASK, "--server", server.url)
    assert result.exit_code == 75
    assert "engine_unavailable" in result.stderr


def test_a_wait_ends_when_the_status_changes(run: Run, server: ScriptedServer) -> None:
    pending = Response(body=progress("PENDING").body, headers={"ETag": 'W/"1"'})
    server.respond(STATUS, pending, progress("STARTED"))
    result = run("status", TASK, "--server", server.url, "--wait", "7", "--json")
    assert json.loads(result.stdout)["state"] == "STARTED"
    assert [target for target, _ in server.requests] == [STATUS, f"{STATUS}?wait=7"]


def test_the_token_goes_to_the_server_that_was_named_and_to_no_other(
    run: Run, server: ScriptedServer
) -> None:
    server.respond(STATUS, progress("STARTED"), progress("STARTED"))
    assert run("status", TASK, "--server", server.url, **TOKEN).exit_code == 0
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    result = run("status", elsewhere + STATUS, "--server", server.url, **TOKEN)
    assert result.exit_code == 2
    assert f"use --server {elsewhere}" in result.output
    assert run("status", elsewhere + STATUS, "--server", server.url).exit_code == 0
    sent = [headers.get("Authorization") for _, headers in server.requests]
    assert sent == ["Bearer archiver_x", None]


def test_a_token_that_cannot_be_sent_is_refused(run: Run, server: ScriptedServer) -> None:
    result = run("status", TASK, "--server", server.url, **TWO_LINES)
    assert result.exit_code == 2
    assert "ARCHIVER_TOKEN" in result.output


def test_the_first_server_that_responds_is_asked(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, progress("STARTED"))
    result = run("status", TASK, ARCHIVER_URL=f"http://127.0.0.1:1 {server.url}")
    assert result.exit_code == 0, result.output
    assert "127.0.0.1:1 does not respond" in result.stderr


def test_an_unknown_task_is_not_found(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, progress("PENDING", created_at=None))
    assert run("status", TASK, "--server", server.url).exit_code == 3


def test_the_url_of_an_archive_is_not_that_of_a_task(run: Run, server: ScriptedServer) -> None:
    server.respond(STATUS, Response(status=202, headers={"Location": server.url + STATUS}))
    result = run("status", server.url + STATUS)
    assert result.exit_code == 1
    assert "Hint: The URL of an archive leads to its task" in result.stderr


def test_credentials_in_the_url_of_a_server_are_refused(run: Run) -> None:
    result = run("status", TASK, "--server", "http://token:secret@127.0.0.1:1")
    assert result.exit_code == 2
    assert "must not contain a user name" in result.stderr
    assert "secret" not in result.output
