"""``archiver prewarm``."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from archiver.client.archive_request import ArchiveRequest
from archiver.client.client import Client
from archiver.client.prewarm import BATCH_MAX
from archiver.errors import ArchiverError
from tests.client.responses import NODE
from tests.parts.commands import Run
from tests.parts.json_output import documents
from tests.parts.scripted_server import Response, ScriptedServer

TARGET = "/archiver/tasks"
LINES = """
# the trees of tonight
hgmo/projects/ash@default
github/torvalds/linux@release/6.1

{"source": "hgmo", "repo": "projects/birch", "node": "NODE", "suffix": "zip", "size": 5}
""".replace("NODE", NODE)


def created(number: int = 1) -> dict[str, object]:
    url = f"http://127.0.0.1/archiver/status/{number}"
    return {"outcome": "created", "task": f"task:{number}", "status_url": url}


def refused(code: str, status: int, **members: object) -> dict[str, object]:
    problem = {"code": code, "status": status, "detail": "no", **members}
    return {"outcome": "problem", "problem": problem}


def results(*each: Mapping[str, object]) -> Response:
    return Response(body=json.dumps({"results": each}).encode())


def sent(server: ScriptedServer, number: int = 0) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = json.loads(server.bodies[number])["requests"]
    return requests


@pytest.fixture
def prewarm(run: Run, server: ScriptedServer) -> Callable[..., Result]:
    def call(*words: str, text: str = LINES) -> Result:
        Path("list").write_text(text)
        return run("prewarm", "list", *words, "--server", server.url)

    return call


Prewarm = Callable[..., Result]


def test_each_line_is_a_request_with_the_options_as_defaults(
    prewarm: Prewarm, server: ScriptedServer
) -> None:
    server.respond(TARGET, results(created(1), {**created(2), "outcome": "joined"}, created(3)))
    result = prewarm("--suffix", "tar", "--subdir", "docs", "--lfs")
    assert result.exit_code == 0, result.output
    assert result.stderr == "3 archives: 0 stored, 2 tasks created, 1 joined, 0 refused\n"
    base = {"subdir": "docs", "suffix": "tar", "submodules": False, "lfs": True}
    assert sent(server) == [
        {"source": "hgmo", "repo": "projects/ash", "rev": "default", **base},
        {"source": "github", "repo": "torvalds/linux", "rev": "release/6.1", **base},
        {"source": "hgmo", "repo": "projects/birch", "rev": NODE, **base, "suffix": "zip"},
    ]
    (target, headers) = server.requests[0]
    assert (target, headers["Content-Type"]) == (TARGET, "application/json")


def test_a_lock_file_names_the_locked_nodes(prewarm: Prewarm, server: ScriptedServer) -> None:
    entry = {"source": "hgmo", "repo": "projects/ash", "rev": "default", "suffix": "zip"}
    locked = {**entry, "node": NODE, "sha256": "0" * 64, "size": 1}
    lock = {"version": 1, "archives": {"a": entry, "b": {**locked, "file": "b.zip"}}}
    server.respond(TARGET, results(created(1), created(2)))
    result = prewarm(text=json.dumps(lock, indent=2))
    assert result.exit_code == 0, result.output
    assert [each["rev"] for each in sent(server)] == ["default", NODE]


def test_standard_input_may_have_the_lines(run: Run, server: ScriptedServer) -> None:
    server.respond(TARGET, results(created()))
    result = run("prewarm", "-", "--server", server.url, stdin="hgmo/projects/ash@default\n")
    assert result.exit_code == 0, result.output


def test_json_has_a_line_for_each_archive(prewarm: Prewarm, server: ScriptedServer) -> None:
    server.respond(
        TARGET, results(created(), refused("unknown_rev", 404), {**created(), "outcome": "hit"})
    )
    result = prewarm("--json", "--quiet")
    assert result.exit_code == 3
    first, second, third = documents(result.stdout)
    assert first["outcome"], first["task"] == ("created", "task:1")
    assert (second["repo"], second["error"]["code"]) == ("torvalds/linux", "unknown_rev")
    assert (third["outcome"], third["error"]) == ("hit", None)


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    (
        ([("unknown_repo", 404)] * 3, 3),
        ([("forbidden", 403)] * 3, 1),
        ([("source_unavailable", 502)] * 3, 75),
        ([("unknown_repo", 404), ("source_unavailable", 502), ("forbidden", 403)], 1),
    ),
)
def test_the_exit_code_is_the_one_that_all_refusals_have(
    prewarm: Prewarm, server: ScriptedServer, codes: Sequence[tuple[str, int]], exit_code: int
) -> None:
    server.respond(TARGET, results(*(refused(*each) for each in codes)))
    result = prewarm()
    assert result.exit_code == exit_code
    assert "github/torvalds/linux@release/6.1: " in result.stderr
    assert len(server.requests) == 1


def test_what_a_limit_does_not_allow_yet_is_sent_again(
    prewarm: Prewarm, server: ScriptedServer
) -> None:
    late = refused("too_many_tasks", 429, retry_after=0.2)
    server.respond(
        TARGET,
        results(created(1), late, refused("not_reached", 503, retry_after=0.2)),
        results(created(2), refused("queue_full", 503, retry_after=0.2)),
        results(created(3)),
    )
    result = prewarm()
    assert result.exit_code == 0, result.output
    assert "3 tasks created" in result.stderr
    done = "of 3 stored or with a task"
    reasons = "too_many_tasks: no; not_reached: no"
    assert f"1 {done}, 2 waiting; next try in 1 s: {reasons}" in result.stderr
    assert f"2 {done}, 1 waiting; next try in 1 s: queue_full: no" in result.stderr
    assert [len(sent(server, number)) for number in range(3)] == [3, 2, 1]


def test_a_limit_that_stays_ends_at_the_timeout_with_what_was_done(
    prewarm: Prewarm, server: ScriptedServer
) -> None:
    late = refused("too_many_tasks", 429, retry_after=3600)
    server.respond(TARGET, results(created(), refused("unknown_repo", 404), late))
    result = prewarm("--timeout", "0.5")
    assert result.exit_code == 4
    summary = "0 stored, 1 task created, 0 joined, 1 refused, 1 without a result"
    waits = "1 of 3 stored or with a task, 1 refused, 1 waiting; next try in 3600 s"
    assert f"{waits}: too_many_tasks: no\n" in result.stderr
    assert f"3 archives: {summary}\n" in result.stderr
    assert "unknown_repo: no" in result.stderr


def test_the_same_reason_is_not_repeated_at_each_try(
    prewarm: Prewarm, server: ScriptedServer
) -> None:
    late = refused("too_many_lookups", 429, retry_after=0.2)
    batches = [results(*[created()] * done, *[late] * (3 - done)) for done in (0, 1)]
    server.respond(TARGET, *batches, results(created(), created()))
    result = prewarm()
    assert result.stderr.count("next try") == 1
    assert "0 of 3 stored or with a task, 3 waiting; next try in 1 s" in result.stderr


def test_ctrl_c_ends_with_what_was_done(tmp_path: Path, server: ScriptedServer) -> None:
    late = refused("too_many_tasks", 429, retry_after=3600)
    server.respond(TARGET, results(created(), refused("unknown_repo", 404), late))
    (tmp_path / "list").write_text(LINES)
    command = [sys.executable, "-m", "archiver", "prewarm", "list", "--json"]
    with subprocess.Popen(
        [*command, "--server", server.url],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert "1 waiting; next try in 3600 s" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [json.loads(line)["outcome"] for line in stdout.splitlines()] == ["created", "problem"]
    assert "0 stored, 1 task created, 0 joined, 1 refused, 1 without a result\n" in stderr
    assert "torvalds/linux@release/6.1: unknown_repo: no" in stderr


def test_one_archive_is_singular(prewarm: Prewarm, server: ScriptedServer) -> None:
    server.respond(TARGET, results(created()))
    result = prewarm(text="hgmo/projects/ash@default\n")
    assert result.stderr == "1 archive: 0 stored, 1 task created, 0 joined, 0 refused\n"


def test_many_archives_are_sent_in_batches(prewarm: Prewarm, server: ScriptedServer) -> None:
    server.respond(TARGET, results(*[created()] * BATCH_MAX), results(created()))
    text = "".join(f"hgmo/projects/ash@r{number}\n" for number in range(BATCH_MAX + 1))
    result = prewarm(text=text)
    assert result.exit_code == 0, result.output
    assert [len(sent(server, number)) for number in range(2)] == [BATCH_MAX, 1]


@pytest.mark.parametrize(
    "line",
    (
        "hgmo",
        "hgmo/projects/ash",
        "@default",
        "hgmo/@default",
        "{}",
        "[]",
        '{"source": "hgmo"',
        '{"source": "hgmo", "repo": "a", "rev": 5}',
        '{"source": "hgmo", "repo": "a", "rev": "b", "lfs": "yes"}',
        '{"source": "hgmo", "repo": "a", "rev": "b", "suffix": "tgz"}',
        '{"source": "hgmo", "repo": "a", "rev": "\\ud800"}',
        "[" * 100_000,
    ),
)
def test_a_wrong_line_is_named_and_nothing_is_sent(
    prewarm: Prewarm, server: ScriptedServer, line: str
) -> None:
    result = prewarm(text=f"hgmo/projects/ash@default\n{line}\n")
    assert result.exit_code == 2, result.output
    assert "list, line 2" in result.stderr
    assert server.requests == []


@pytest.mark.parametrize("text", ("", "# nothing\n\n"))
def test_a_file_without_archives_is_refused(prewarm: Prewarm, text: str) -> None:
    assert prewarm(text=text).exit_code == 2


@pytest.mark.parametrize(
    "response",
    (
        results(),
        results(created()),
        results(created(), created(), {}),
        results(created(), created(), {"outcome": "created"}),
        results(created(), created(), {"outcome": "lost", "task": "x", "status_url": "http://x"}),
        results(created(), created(), {**created(), "status_url": "javascript:1"}),
        results(created(), created(), {"outcome": "problem", "problem": {}}),
        Response(body=b"<html>"),
        Response(body=b'{"results": 5}'),
        Response(status=404, body=b"<html>"),
        Response(status=302, headers={"Location": "https://elsewhere.example/"}),
    ),
)
def test_a_response_that_is_not_one_of_archiver_is_no_result(
    prewarm: Prewarm, server: ScriptedServer, response: Response
) -> None:
    server.respond(TARGET, response)
    result = prewarm()
    assert result.exit_code not in {0, None}
    assert "Traceback" not in result.output


def test_programs_get_the_same_results(server: ScriptedServer) -> None:
    server.respond(TARGET, results(created()))
    with Client(server.url) as client:
        (result,) = client.prewarm([ArchiveRequest("hgmo", "projects/ash", "default")])
    assert (result.outcome, result.task) == ("created", "task:1")


def test_no_code_of_archiver_is_sent_again_unless_it_ends_with_time() -> None:
    from archiver.client.prewarm_batches import NOT_YET  # noqa: PLC0415

    def codes(kind: type[ArchiverError]) -> set[str]:
        own = {kind.code} if "code" in vars(kind) else set()
        return own.union(*map(codes, kind.__subclasses__()))

    assert NOT_YET - {"not_reached"} <= codes(ArchiverError)
