"""The client without the libraries of the server."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, GET, OBJECT, REV_URL
from tests.parts.scripted_server import Response, ScriptedServer, ranged

PACKAGES = ("archiver", "click", "rich", "urllib3", "markdown_it", "mdurl", "pygments")
"""What pip installs with ``source-archiver``. The last three are for rich."""

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from archiver.cli import main; main()"
LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
import archiver.cli.get
print(sorted({*sys.modules} & {*sys.argv[2:]}))
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder that has these packages and no other."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec
        assert spec.origin
        (folder / name).symlink_to(Path(spec.origin).parent)
    return folder


def run(packages: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run *code* with these packages and the standard library alone."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(packages), *words],
        cwd=packages.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_archive_is_downloaded(packages: Path, server: ScriptedServer, hit: Response) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    result = run(packages, RUN, *GET, "--server", server.url, "-o", "here")
    assert result.returncode == 0, result.stderr
    assert (packages.parent / "here").read_bytes() == CONTENT


@pytest.mark.parametrize("words", (("worker",), ("gc", "--apply", "--json"), ("purge", "--help")))
def test_a_command_of_the_server_says_what_to_install(
    packages: Path, words: tuple[str, ...]
) -> None:
    result = run(packages, RUN, *words)
    assert result.returncode == 2
    assert f"`archiver {words[0]}` needs " in result.stderr
    assert "Install source-archiver[server]" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_proof_says_what_to_install(packages: Path) -> None:
    result = run(packages, RUN, "verify", "here", "--node", "0" * 40)
    assert result.returncode == 2
    assert "a proof needs " in result.stderr
    assert "install source-archiver[server]" in result.stderr


def test_all_commands_are_listed(packages: Path) -> None:
    result = run(packages, RUN, "--help")
    assert result.returncode == 0
    assert "Download the archive of REV" in result.stdout
    assert "Not installed: part of source-archiver[server]." in result.stdout


def test_a_download_loads_nothing_that_starts_slowly(packages: Path) -> None:
    slow = ("asyncio", "rich", "archiver.model", "http.server", "email.mime")
    result = run(packages, LOADED, *slow)
    assert result.stdout.strip() == "[]"
