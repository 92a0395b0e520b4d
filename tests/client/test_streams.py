"""Standard streams that are closed or full."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, OBJECT, REV_URL
from tests.parts.scripted_server import Response, ScriptedServer, ranged

GET = "get hgmo projects/ash default --server"


def shell(folder: Path, words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with the redirections in *words*."""
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m archiver {words}"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def found(server: ScriptedServer, hit: Response) -> ScriptedServer:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    return server


@pytest.mark.parametrize("redirection", ("2>&-", "2>/dev/full", "<&-", "<&- >&- 2>&-"))
def test_no_stream_for_messages_fails_a_command(
    found: ScriptedServer, tmp_path: Path, redirection: str
) -> None:
    result = shell(tmp_path, f"{GET} {found.url} -o here {redirection}")
    assert result.returncode == 0
    assert (tmp_path / "here").read_bytes() == CONTENT
    wrong = shell(tmp_path, f"{GET} ftp://nowhere {redirection}")
    assert (wrong.returncode, wrong.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("redirection", "why"),
    ((">&-", "standard output is closed"), (">/dev/full", "No space left on device")),
)
@pytest.mark.parametrize("options", ("-o -", "-o here --json"))
def test_results_that_cannot_be_written_are_one_sentence(
    found: ScriptedServer, tmp_path: Path, redirection: str, why: str, options: str
) -> None:
    result = shell(tmp_path, f"{GET} {found.url} {options} --quiet {redirection}")
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line in {f"Error: {why}", f"Error: -: {why}"}
