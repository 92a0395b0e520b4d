"""``archiver get`` and the responses of a server."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from archiver.client.api_response import FINAL, LIMITS, TEMPORARY, UNKNOWN
from archiver.errors import ArchiverError, BadArchive, NotFound, SourceError
from tests.client.responses import (
    CONTENT,
    GET,
    NODE,
    NODE_URL,
    OBJECT,
    PART,
    REV_URL,
    SHA256,
    SIGNATURE,
    STATUS,
    problem,
    progress,
)
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged


def test_a_hit_is_downloaded_under_its_own_name(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ash-42bf42bf42bf.tar.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["ash-42bf42bf42bf.tar.gz"]
    assert result.stdout == ""
    assert SHA256 in result.stderr


@pytest.mark.parametrize("rev", ("@", "REL/2.0", "a#b?c&d=%2F", "caf\xe9", "..", "a+b", ""))
def test_a_rev_that_a_proxy_may_change_in_a_path_is_sent_as_a_parameter(
    run: Run, server: ScriptedServer, rev: str
) -> None:
    server.respond("/archiver/hgmo/projects/ash", problem(404, "unknown_rev"))
    assert run("get", "hgmo", "projects/ash", rev, "--server", server.url).exit_code == 3
    query = urlsplit(server.requests[0][0]).query
    assert parse_qs(query, keep_blank_values=True) == {"rev": [rev], "suffix": ["tar.gz"]}


@pytest.mark.parametrize(
    ("options", "flags"),
    (
        ((), {}),
        (("--submodules",), {"submodules": ["1"]}),
        (("--lfs",), {"lfs": ["1"]}),
        (("--lfs", "--submodules"), {"submodules": ["1"], "lfs": ["1"]}),
    ),
)
def test_a_complete_archive_is_requested_with_flags_also_after_a_broken_download(
    run: Run,
    server: ScriptedServer,
    hit: Response,
    options: Sequence[str],
    flags: dict[str, list[str]],
) -> None:
    server.respond(REV_URL, hit)
    server.respond(NODE_URL, hit)
    server.respond(OBJECT, ranged(CONTENT, broken_at=100), ranged(CONTENT))
    result = run(*GET, *options, "--server", server.url)
    assert result.exit_code == 0, result.output
    asked = [urlsplit(path) for path, _ in server.requests if path.startswith("/archiver/")]
    assert [url.path for url in asked] == [REV_URL, NODE_URL]
    for url in asked:
        query = parse_qs(url.query)
        assert {name: query[name] for name in query.keys() & {"submodules", "lfs"}} == flags


def test_a_miss_is_requested_again_after_its_task_succeeded(
    run: Run, server: ScriptedServer, hit: Response, miss: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, miss, hit)
    server.respond(STATUS, progress("PENDING"), progress("STARTED"), progress("SUCCESS"))
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url, "-o", "here", "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    document = json.loads(result.stdout)
    assert document.pop("duration_s") > 0
    assert document == {
        "file": "here",
        "sha256": SHA256,
        "size": len(CONTENT),
        "node": NODE,
        "region": "us-west-2",
        "proof": None,
        "waited": True,
    }
    assert [path.partition("?")[0] for path, _ in server.requests] == [
        REV_URL,
        *[STATUS] * 3,
        REV_URL,
        OBJECT,
    ]


def test_every_argument_is_part_of_the_request(run: Run, server: ScriptedServer) -> None:
    run(
        *("get", "hgmo", "projects/a b", "v1/2"),
        *("--subdir", "testing/mozharness", "--suffix", "zip", "--region", "eu"),
        *("--server", server.url + "/"),
    )
    assert server.requests[0][0] == (
        "/archiver/hgmo/projects/a%20b"
        "?rev=v1/2&subdir=testing/mozharness&suffix=zip&preferred_region=eu"
    )


def test_the_server_can_come_from_the_environment(run: Run, server: ScriptedServer) -> None:
    run(*GET, ARCHIVER_URL=server.url)
    assert len(server.requests) == 1


def test_standard_output_receives_only_the_archive(
    run: Run, server: ScriptedServer, hit: Response
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url, "-o", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == CONTENT


def test_s3_receives_the_unchanged_link_and_no_credentials(
    run: Run, server: ScriptedServer, hit: Response
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    run(*GET, "--server", server.url)
    path, headers = server.requests[-1]
    assert path == f"{OBJECT}?{SIGNATURE}"
    assert not {"authorization", "cookie"} & {name.lower() for name in headers}


@pytest.mark.parametrize("flag", ("--quiet", "--json", None))
def test_a_presigned_url_is_never_shown(
    run: Run, server: ScriptedServer, hit: Response, flag: str | None
) -> None:
    server.respond(REV_URL, hit)
    for said in (
        Response(body=CONTENT),
        Response(body=b"other"),
        Response(status=403, body=SIGNATURE.encode()),
    ):
        server.respond(OBJECT, said)
        words = (*GET, "--server", server.url, "--force", "--retries", "0")
        result = run(*words, *([flag] if flag else []))
        assert "X-Amz" not in result.output


@pytest.mark.parametrize("output", ("here", "-"))
def test_wrong_bytes_exit_with_5(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path, output: str
) -> None:
    server.respond(REV_URL, hit)
    server.respond(NODE_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT[:-1] + b"!"))
    result = run(*GET, "--server", server.url, "-o", output)
    assert result.exit_code == 5
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_when_the_new_one_is_incomplete(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text("older")
    server.respond(REV_URL, hit)
    server.respond(
        OBJECT, Response(body=CONTENT[:100], headers={"Content-Length": str(len(CONTENT))})
    )
    result = run(*GET, "--server", server.url, "-o", "here", "--retries", "0")
    assert result.exit_code == 75
    assert (tmp_path / "here").read_text() == "older"
    assert (tmp_path / PART).read_bytes() == CONTENT[:100]
    assert f"{PART} is kept" in result.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"), (("unsafe_member", 1), ("workers_lost", 1), ("corrupt_archive", 75))
)
def test_a_failed_task_ends_the_command_with_its_reason(
    run: Run, server: ScriptedServer, miss: Response, code: str, exit_code: int
) -> None:
    server.respond(REV_URL, miss)
    error = {"code": code, "message": "a block was not what its sum says"}
    server.respond(STATUS, progress("FAILURE", error=error))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == exit_code
    assert f"{code}: a block was not what its sum says" in result.stderr
    assert ("again later" in result.stderr) is (exit_code == 75)


@pytest.mark.parametrize(
    ("said", "exit_code"),
    (
        (problem(400, "invalid_request"), 2),
        (problem(404, "unknown_rev"), 3),
        (problem(502, "source_unavailable"), 75),
        (problem(503, "engine_unavailable"), 75),
        (Response(status=429), 75),
        (problem(504, "source_timeout"), 75),
        (problem(500, "internal_error"), 1),
        (Response(status=400, body=b"[" * 100_000), 2),
        (Response(status=404, body=b'{"code": ["a"], "detail": 7, "allowed": {}}'), 3),
        (Response(status=200, body=b"a web page"), 1),
        (Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), 1),
        (Response(status=202), 1),
        (Response(status=202, headers={"Location": "/archiver/status/x"}), 1),
        (Response(status=202, headers={"Location": "http://[::1/"}), 1),
    ),
)
def test_each_error_response_has_its_exit_code(
    run: Run, server: ScriptedServer, said: Response, exit_code: int
) -> None:
    server.respond(REV_URL, said)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == exit_code
    assert result.stderr.startswith("Error: ")
    assert result.stdout == ""


def limited(code: str, retry_after: str) -> Response:
    response = problem(503 if code == "queue_full" else 429, code)
    return replace(response, headers={**response.headers, "Retry-After": retry_after})


@pytest.mark.parametrize("code", sorted(LIMITS))
def test_a_limit_is_waited_for(run: Run, server: ScriptedServer, hit: Response, code: str) -> None:
    server.respond(REV_URL, limited(code, "0"), limited(code, "-1"), hit)
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"{code}: because of {code}; waiting") == 1


@pytest.mark.parametrize("retry_after", ("60", "1e300"))
def test_a_limit_outlasts_the_patience_of_the_user(
    run: Run, server: ScriptedServer, retry_after: str
) -> None:
    server.respond(REV_URL, limited("too_many_tasks", retry_after))
    result = run(*GET, "--server", server.url, "--wait", "0.1", "--quiet")
    assert result.exit_code == 75
    assert result.stderr.splitlines() == [
        "Error: too_many_tasks: because of too_many_tasks",
        "Hint: Run the same command again later.",
    ]


def leaves(kind: type[ArchiverError]) -> Iterator[type[ArchiverError]]:
    for each in kind.__subclasses__():
        yield from leaves(each) if each.__subclasses__() else (each,)


def test_the_client_knows_the_failures_that_no_retry_can_end() -> None:
    """So ``get`` ends with the same code, whether it waited for the task or came after it."""
    of_hosts = (*leaves(SourceError), *leaves(BadArchive))
    assert {each.code for each in of_hosts if not each.retryable} == FINAL
    assert {each.code for each in leaves(NotFound)} == UNKNOWN
    ours = {"mirror_failed", "no_room", "conversion_lost", "storage_unavailable"}
    assert {each.code for each in of_hosts if each.retryable} | ours == TEMPORARY


@pytest.mark.parametrize("code", sorted(FINAL))
def test_a_final_failure_is_not_tried_again(run: Run, server: ScriptedServer, code: str) -> None:
    server.respond(REV_URL, problem(502, code))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"Error: {code}: because of {code}"
    assert "again" not in result.stderr
    assert len(server.requests) == 1


def test_a_task_that_found_no_such_subdir_exits_with_3(
    run: Run, server: ScriptedServer, miss: Response
) -> None:
    server.respond(REV_URL, miss)
    error = {"code": "unknown_subdir", "message": "no file is there"}
    server.respond(STATUS, progress("FAILURE", error=error))
    assert run(*GET, "--server", server.url).exit_code == 3


def test_a_server_that_does_not_respond_exits_with_75(run: Run) -> None:
    result = run(*GET, "--server", "http://127.0.0.1:9")
    assert result.exit_code == 75
    assert "127.0.0.1:9 does not respond" in result.stderr


def test_a_timeout_exits_with_4(run: Run, server: ScriptedServer, miss: Response) -> None:
    server.respond(REV_URL, miss)
    server.respond(STATUS, progress("STARTED"))
    result = run(*GET, "--server", server.url, "--timeout", "0.5")
    assert result.exit_code == 4


def test_polling_survives_a_short_outage_of_the_server(
    run: Run, server: ScriptedServer, hit: Response, miss: Response
) -> None:
    server.respond(REV_URL, miss, hit)
    server.respond(STATUS, problem(503, "engine_unavailable"), progress("SUCCESS"))
    server.respond(OBJECT, Response(body=CONTENT))
    assert run(*GET, "--server", server.url).exit_code == 0


def test_the_archive_is_requested_again_from_a_server_that_was_down(
    run: Run, server: ScriptedServer, hit: Response, miss: Response
) -> None:
    def status(_headers: Mapping[str, str]) -> Response:
        """Respond like an Archiver that was down, and has lost the task until the next request."""
        paths = [target.partition("?")[0] for target, _ in server.requests]
        if paths.count(STATUS) == 2:
            return problem(502, "")
        return progress("SUCCESS" if paths.count(REV_URL) > 1 else "PENDING")

    server.respond(REV_URL, miss, miss, hit)
    server.respond(STATUS, status)
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url, "--timeout", "20")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("segment", "name"),
    (
        ("a%2F..%2F..%2Fetc", "etc"),
        (".hidden", "hidden"),
        ("%0A", "archive"),
        ("a%20b", "a-b"),
        ("a" + "-rf" + "x" * 197, "rf" + "x" * 197),
        ("a" + ".bashrc" + "x" * 193, "bashrc" + "x" * 193),
        ("a" + "-." * 100, "archive"),
    ),
)
def test_a_file_name_from_the_server_is_made_safe(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path, segment: str, name: str
) -> None:
    path = f"/bucket/{segment}"
    server.respond(
        REV_URL, Response(status=302, headers={**hit.headers, "Location": server.url + path})
    )
    server.respond(path, Response(body=CONTENT))
    assert run(*GET, "--server", server.url).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "words",
    (
        (*GET, "-o", "-", "--json"),
        (*GET, "--server", "ftp://example.org"),
        ("get", "hgmo"),
        ("no-such-command",),
    ),
)
def test_wrong_usage_exits_with_2(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_an_unwritable_file_is_named(run: Run, server: ScriptedServer, hit: Response) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url, "-o", "no/such/folder")
    assert result.exit_code == 1
    assert "no/such/folder: No such file or directory" in result.stderr


def test_a_server_that_sends_etags_is_asked_to_hold_the_next_request(
    run: Run, server: ScriptedServer, hit: Response, miss: Response
) -> None:
    pending, unchanged = progress("PENDING"), Response(status=304)
    tagged = Response(body=pending.body, headers={"ETag": 'W/"1"'})
    server.respond(REV_URL, miss, hit)
    server.respond(STATUS, tagged, unchanged, problem(503, "too_many_waiters"), progress("SUCCESS"))
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0, result.output
    requests = [
        (target.removeprefix(STATUS), headers.get("If-None-Match"))
        for target, headers in server.requests
        if target.startswith(STATUS)
    ]
    held = ("?wait=10", 'W/"1"')
    assert requests == [("", None), held, held, ("", None)]


def test_a_wait_that_is_too_short_exits_with_75(
    run: Run, server: ScriptedServer, miss: Response
) -> None:
    server.respond(REV_URL, miss)
    server.respond(STATUS, progress("STARTED"))
    result = run(*GET, "--server", server.url, "--wait", "0.1")
    assert result.exit_code == 75
    assert "still being built after 0.1 s" in result.stderr


def test_a_status_at_another_address_may_refuse_the_bytes(
    run: Run, server: ScriptedServer, miss: Response
) -> None:
    elsewhere = miss.headers["Location"].replace("127.0.0.1", "localhost")
    server.respond(REV_URL, replace(miss, headers={**miss.headers, "Location": elsewhere}))
    server.respond(STATUS, problem(409, "other_bytes"))
    result = run(*GET, "--server", server.url, "--sha256", "0" * 64)
    assert result.exit_code == 5
    assert "other_bytes" in result.stderr
    assert "public_url" not in result.stderr


def test_other_bytes_than_those_insisted_on_are_refused(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond("/archiver/hgmo/projects/ash/default", problem(409, "other_bytes"))
    words = [*GET, "--server", server.url, "--sha256", "0" * 64]
    refused = run(*words)
    assert refused.exit_code == 5
    assert "other_bytes" in refused.stderr
    assert parse_qs(urlsplit(server.requests[0][0]).query)["sha256"] == ["0" * 64]
    server.respond("/archiver/hgmo/projects/ash/default", hit)
    offered = run(*words)
    assert offered.exit_code == 5
    assert f"the server offers the SHA-256 {SHA256}" in offered.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_next_server_is_asked_if_one_does_not_respond(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    gone = "http://127.0.0.1:9"
    result = run(*GET, "--server", gone, "--server", server.url, "-o", "here")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert "127.0.0.1:9 does not respond: Connection refused" in result.stderr
    named = run(*GET, "-o", "there", ARCHIVER_URL=f"{gone} {server.url}")
    assert named.exit_code == 0, named.output
    alone = run(*GET, "-o", "there", "--server", gone, "--server", gone)
    assert alone.exit_code == 75


@pytest.mark.parametrize("status", (400, 401, 404, 409))
def test_no_other_server_is_asked_for_what_one_refuses(
    run: Run, server: ScriptedServer, status: int
) -> None:
    server.respond(REV_URL, problem(status, "refused"))
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    assert run(*GET, "--server", server.url, "--server", elsewhere).exit_code != 0
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "strange",
    (
        problem(500, "internal_error"),
        Response(status=500),
        Response(status=401),
        Response(status=404, body=b"<html>Not found</html>"),
        Response(body=b"<html>Log in first.</html>"),
        Response(status=302, headers={"Location": "https://login.example.org/"}),
        Response(status=202),
        Response(status=404, body=b"x" * 2_000_000),
    ),
)
def test_the_next_server_is_asked_if_it_is_not_archiver_that_refuses(
    run: Run, server: ScriptedServer, hit: Response, strange: Response
) -> None:
    server.respond(REV_URL, strange, hit)
    server.respond(OBJECT, ranged(CONTENT))
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    words = ("-o", "here", "--server", server.url, "--server", elsewhere)
    result = run(*GET, *words)
    assert result.exit_code == 0, result.output


def test_a_download_goes_on_while_something_else_responds_for_archiver(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, hit)
    server.respond(NODE_URL, Response(status=500))
    server.respond(OBJECT, Response(status=503), ranged(CONTENT))
    result = run(*GET, "-o", "here", "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
