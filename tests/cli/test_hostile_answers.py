"""Answers that no Archiver gives: each is one sentence, quickly, with nothing in it but text."""

import json

import pytest

from tests.cli.conftest import Run, Said, Script
from tests.cli.test_get import ASKED, STATUS, WORDS, hit, miss, progress

__all__ = ["hit", "miss"]

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\r"
"""Sets the title, the colour, clears the screen, and writes backwards."""

STATUSES = {
    "no JSON": b"<html>",
    "no object": b"[1]",
    "nested without end": b'{"result": {"state": "PENDING", "x": ' + b"[" * 100_000,
    "nested deeply": b'{"result": {"state": "PENDING", "x": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "not UTF-8": b'{"result": {"state": "\xff"}}',
    "a list for a text": b'{"result": {"state": ["PENDING"]}}',
    "a text for a number": b'{"result": {"state": "PENDING", "bytes_done": "many"}}',
    "an infinite number": b'{"result": {"state": "PENDING", "bytes_done": 1e999}}',
    "less than nothing": b'{"result": {"state": "PENDING", "bytes_done": -1}}',
    "an error that is a list": b'{"result": {"state": "FAILURE", "error": [1]}}',
    "links that are numbers": b'{"result": {"state": "SUCCESS", "s3_urls": {"a": 1}}}',
}


@pytest.mark.parametrize("body", STATUSES.values(), ids=STATUSES)
def test_a_status_that_is_none_is_one_sentence(run: Run, script: Script, body: bytes) -> None:
    script.say(STATUS, Said(body=body))
    for words in ((), ("--json",)):
        result = run("status", script.url + STATUS, *words)
        if result.exit_code or body != STATUSES["nested deeply"]:
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr == "Error: the response is not the status of a task\n"


def test_an_answer_without_end_is_not_read_to_its_end(run: Run, script: Script) -> None:
    script.say(ASKED, Said(status=404, body=b"x" * 65_536, times=10_000))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 1
    assert "sent more than 1,048,576 bytes" in result.stderr


def test_text_from_a_server_does_nothing_to_a_terminal(
    run: Run, script: Script, miss: Said
) -> None:
    refused = json.dumps({"code": EVIL, "detail": EVIL, "allowed": EVIL}).encode()
    failed = progress("FAILURE", phase=EVIL, error={"code": EVIL, "message": f"a\n{EVIL}"})
    script.say(ASKED, Said(status=400, body=refused), miss)
    script.say(STATUS, failed)
    for words in (WORDS, WORDS, ("status", STATUS), ("status", STATUS, "--json")):
        target = [script.url + word if word == STATUS else word for word in words]
        result = run(*target, *(() if STATUS in words else ("--server", script.url)))
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
def test_a_redirect_with_a_header_that_is_wrong_is_not_followed(
    run: Run, script: Script, hit: Said, name: str, value: str
) -> None:
    script.say(ASKED, Said(status=302, headers={**hit.headers, name: value}))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code in {1, 75}
    assert len(script.asked) == 1
    assert result.stderr.isascii()


def test_a_public_url_that_is_unreachable_is_named_at_once(run: Run, script: Script) -> None:
    location = {"Location": f"http://127.0.0.1:9{STATUS}"}
    script.say(ASKED, Said(status=202, headers=location))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 75
    assert "127.0.0.1:9 does not respond: Connection refused" in result.stderr
    assert f"{script.url} sends its clients there" in result.stderr
    assert "server.public_url" in result.stderr


@pytest.mark.parametrize(
    ("status", "reason"), ((404, "Not Found"), (502, "Bad Gateway"), (503, "Service Unavailable"))
)
def test_a_public_url_at_which_something_else_answers_is_named(
    run: Run, script: Script, status: int, reason: str
) -> None:
    elsewhere = script.url.replace("127.0.0.1", "localhost")
    script.say(ASKED, Said(status=202, headers={"Location": elsewhere + STATUS}))
    script.say(STATUS, Said(status=status))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 1
    assert f"{elsewhere} returns no status ({status}: {reason})" in result.stderr
    assert "server.public_url" in result.stderr


def test_a_redirect_to_another_address_of_archiver_is_explained(run: Run, script: Script) -> None:
    script.say(ASKED, Said(status=301, headers={"Location": "https://archiver.example.org/a"}))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 1
    assert "https://archiver.example.org" in result.stderr
