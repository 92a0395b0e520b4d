"""Tokens and passwords reach the Archiver server, and no other."""

import base64
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, GET, OBJECT, REV_URL, STATUS
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

NETRC = "machine 127.0.0.1 login x password from-netrc\n"
BASIC = f"Basic {base64.b64encode(b'x:from-netrc').decode()}"


@pytest.fixture
def found(server: ScriptedServer, hit: Response) -> ScriptedServer:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    return server


def credentials(server: ScriptedServer) -> list[str | None]:
    """Return the credentials of each request."""
    return [headers.get("Authorization") for _, headers in server.requests]


@pytest.mark.parametrize(
    ("netrc", "token", "sent"),
    (
        (NETRC, "", BASIC),
        ("default login x password from-netrc", "", BASIC),
        ("machine other.test login x password from-netrc", "", None),
        (NETRC, "archiver_t", "Bearer archiver_t"),
        (None, "", None),
    ),
)
def test_the_server_gets_them_and_s3_does_not(
    run: Run, found: ScriptedServer, tmp_path: Path, netrc: str | None, token: str, sent: str | None
) -> None:
    path = tmp_path / "netrc"
    if netrc is not None:
        path.write_text(netrc)
    env = {"NETRC": str(path), "ARCHIVER_TOKEN": token}
    result = run(*GET, "--server", found.url, "-o", "-", **env)
    assert result.exit_code == 0, result.output
    assert credentials(found) == [sent, None]


def test_the_file_of_the_user_is_read(run: Run, found: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / ".netrc"
    path.write_text(NETRC)
    path.chmod(0o600)
    assert run(*GET, "--server", found.url, "-o", "-", HOME=str(tmp_path)).exit_code == 0
    assert credentials(found) == [BASIC, None]


@pytest.mark.parametrize("content", (b"machine x password \xff\n", b"secret-word\n"))
def test_a_damaged_file_is_named_without_its_content(
    run: Run, found: ScriptedServer, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "netrc"
    path.write_bytes(content)
    result = run(*GET, "--server", found.url, NETRC=str(path))
    assert result.exit_code == 2
    assert str(path) in result.stderr
    assert "secret-word" not in result.output
    assert not found.requests


@pytest.mark.parametrize(("path", "is_archivers"), ((STATUS, True), (OBJECT, False)))
def test_only_an_address_with_archivers_paths_may_be_its_own(
    run: Run, server: ScriptedServer, path: str, *, is_archivers: bool
) -> None:
    elsewhere = {"Location": f"http://archiver.test{path}"}
    server.respond(REV_URL, Response(status=202, headers=elsewhere))
    env = {"ARCHIVER_TOKEN": "t", "ARCHIVER_URL": server.url}
    result = run(*GET, **env)
    assert result.exit_code == 1
    assert "http://archiver.test would not get it" in result.stderr
    advice = "Hint: If both are the same server, use --server http://archiver.test\n"
    assert result.stderr.endswith(advice) is is_archivers
    asked = run("status", f"http://archiver.test{path}", **env)
    assert (asked.exit_code, asked.stderr.endswith(advice)) == (2, is_archivers)
