"""The scripts in docs/how-to/use-in-ci.md, with the client as one file."""

import os
import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.client.responses import problem
from tests.client.test_lock import NAMES, content_of, entry, node_of, serve
from tests.client.test_zipapp import ROOT, build, libraries
from tests.parts.commands import Run
from tests.parts.scripted_server import ScriptedServer

__all__ = ["libraries"]

pytestmark = pytest.mark.thorough

PAGE = (ROOT / "docs" / "how-to" / "use-in-ci.md").read_text()
NAME = NAMES[0]


def script_of_github() -> str:
    found = re.search(r"^      run: \|\n((?: {8}.*\n|\n)+)", PAGE, re.MULTILINE)
    assert found
    return dedent(found[1])


def script_of_taskcluster() -> str:
    found = re.search(r"^    - -c\n    - (.*)$", PAGE, re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def workspace(tmp_path: Path, libraries: Path, run: Run, server: ScriptedServer) -> Path:
    """Return a folder with the client, a lock file, and programs that the scripts call."""
    build(tmp_path, libraries)
    serve(server, NAME)
    named = {"source": "hgmo", "repo": f"projects/{NAME}", "rev": "default", "suffix": "tar"}
    (tmp_path / "deps.json").write_text(entry(NAME, **named))
    assert run("lock", "deps.json", "--server", server.url).exit_code == 0
    programs = {"sleep": "echo slept >> slept", "build.sh": "touch built"}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run_script(script: str, folder: Path, server: ScriptedServer) -> int:
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "GITHUB_WORKSPACE": str(folder),
        "ARCHIVER_URL": server.url,
        "ARCHIVER_CACHE": "~/.cache/archiver",
        "LOCK": "deps.json",
    }
    return subprocess.run(["/bin/bash", "-c", script], cwd=folder, env=env, check=False).returncode


def test_the_action_fetches_the_archives(workspace: Path, server: ScriptedServer) -> None:
    assert run_script(script_of_github(), workspace, server) == 0
    assert (workspace / f"{NAME}.tar").read_bytes() == content_of(NAME)
    assert [*(workspace / ".cache" / "archiver").glob("*/*")]


@pytest.mark.parametrize(("status", "tries"), ((503, 4), (404, 1)))
def test_the_action_repeats_only_what_may_succeed_later(
    workspace: Path, server: ScriptedServer, status: int, tries: int
) -> None:
    server.respond(f"/archiver/hgmo/projects/{NAME}/{node_of(NAME)}", problem(status, "refused"))
    assert run_script(script_of_github(), workspace, server) == {503: 75, 404: 3}[status]
    assert (workspace / "slept").read_text().count("slept") == tries


def test_the_task_builds_what_it_has_fetched(workspace: Path, server: ScriptedServer) -> None:
    assert run_script(script_of_taskcluster(), workspace, server) == 0
    assert (workspace / "built").exists()
