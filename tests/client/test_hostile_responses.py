"""Responses that Archiver never sends: a command reports each in one printable sentence."""

import json

import pytest

from tests.client.responses import GET, OBJECT, REV_URL, STATUS, progress
from tests.parts.commands import Run
from tests.parts.json_output import documents
from tests.parts.scripted_server import Response, ScriptedServer

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r"
"""Sets the title and the colour, clears the screen, and reverses the writing direction."""

STATUSES = {
    "not JSON": b"<html>",
    "not an object": b"[1]",
    "nested too deeply": b'{"result": {"state": "PENDING", "x": ' + b"[" * 100_000,
    "nested deeply": b'{"result": {"state": "PENDING", "x": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "not UTF-8": b'{"result": {"state": "\xff"}}',
    "a list instead of a string": b'{"result": {"state": ["PENDING"]}}',
    "a string instead of a number": b'{"result": {"state": "PENDING", "bytes_done": "many"}}',
    "an infinite number": b'{"result": {"state": "PENDING", "bytes_done": 1e999}}',
    "an infinite number elsewhere": b'{"result": {"state": "PENDING", "x": -1e999}}',
    "a number that is none": b'{"result": {"state": "PENDING", "x": NaN}}',
    "a huge number": b'{"result": {"state": "PENDING", "bytes_done": 1%s}}' % (b"0" * 400),
    "a huge number elsewhere": b'{"result": {"state": "PENDING", "x": 1%s}}' % (b"0" * 4000),
    "a negative number": b'{"result": {"state": "PENDING", "bytes_done": -1}}',
    "an error that is a list": b'{"result": {"state": "FAILURE", "error": [1]}}',
    "links that are numbers": b'{"result": {"state": "SUCCESS", "s3_urls": {"a": 1}}}',
}


@pytest.mark.parametrize("body", STATUSES.values(), ids=STATUSES)
def test_a_malformed_status_is_reported_in_one_sentence(
    run: Run, server: ScriptedServer, body: bytes
) -> None:
    server.respond(STATUS, Response(body=body))
    for words in ((), ("--json",)):
        result = run("status", server.url + STATUS, *words)
        if result.exit_code or body != STATUSES["nested deeply"]:
            assert (result.exit_code, documents(result.stdout)) == (1, [])
            assert result.stderr == "Error: the response is not the status of a task\n"


def test_an_endless_response_is_abandoned(run: Run, server: ScriptedServer) -> None:
    server.respond(REV_URL, Response(status=404, body=b"x" * 65_536, times=10_000))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 1
    assert "sent more than 8,388,608 bytes" in result.stderr


def test_text_from_a_server_cannot_control_the_terminal(
    run: Run, server: ScriptedServer, miss: Response
) -> None:
    refused = json.dumps({"code": EVIL, "detail": EVIL, "allowed": EVIL}).encode()
    failed = progress("FAILURE", phase=EVIL, error={"code": EVIL, "message": f"a\n{EVIL}"})
    server.respond(REV_URL, Response(status=400, body=refused), miss)
    server.respond(STATUS, failed)
    for words in (GET, GET, ("status", STATUS), ("status", STATUS, "--json")):
        target = [server.url + word if word == STATUS else word for word in words]
        result = run(*target, *(() if STATUS in words else ("--server", server.url)))
        assert result.exit_code in {1, 2}
        assert "owned" in result.output
        assert all(line.isprintable() for line in result.output.split("\n"))


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("Archiver-Region", EVIL.strip("\r").encode().decode("latin-1")),
        ("Archiver-SHA256", "0" * 63),
        ("Archiver-Size", "-1"),
        ("Archiver-Node", "default"),
        ("Location", "file:///etc/passwd"),
    ),
)
def test_a_redirect_with_a_malformed_header_is_not_followed(
    run: Run, server: ScriptedServer, hit: Response, name: str, value: str
) -> None:
    server.respond(REV_URL, Response(status=302, headers={**hit.headers, name: value}))
    result = run(*GET, "--server", server.url)
    assert result.exit_code in {1, 75}
    assert len(server.requests) == 1
    assert result.stderr.isascii()


def test_an_unreachable_public_url_is_reported_at_once(run: Run, server: ScriptedServer) -> None:
    location = {"Location": f"http://127.0.0.1:9{STATUS}"}
    server.respond(REV_URL, Response(status=202, headers=location))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 75
    assert "127.0.0.1:9 does not respond: Connection refused" in result.stderr
    assert f"{server.url} sends its clients there" in result.stderr
    assert "server.public_url" in result.stderr


@pytest.mark.parametrize(
    ("status", "reason"), ((404, "Not Found"), (502, "Bad Gateway"), (503, "Service Unavailable"))
)
def test_a_public_url_served_by_another_program_is_reported(
    run: Run, server: ScriptedServer, status: int, reason: str
) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.respond(REV_URL, Response(status=202, headers={"Location": elsewhere + STATUS}))
    server.respond(STATUS, Response(status=status))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 1
    assert f"{elsewhere} returns no status ({status}: {reason})" in result.stderr
    assert "server.public_url" in result.stderr


@pytest.mark.parametrize(
    ("path", "moved"), ((REV_URL, True), (OBJECT, False), ("/login?next=/archiver/", False))
)
def test_only_a_redirect_to_the_same_path_may_be_another_address_of_archiver(
    run: Run, server: ScriptedServer, path: str, *, moved: bool
) -> None:
    location = {"Location": f"https://archiver.example.org{path}"}
    server.respond(REV_URL, Response(status=301, headers=location))
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 1
    assert "redirects to https://archiver.example.org, not to an archive" in result.stderr
    advice = "Hint: If Archiver moved there, use --server https://archiver.example.org\n"
    assert result.stderr.endswith(advice) is moved
