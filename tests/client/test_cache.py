"""Processes that share a folder or a cache download an archive once."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from archiver.client.cache import Cache
from tests.client.responses import CONTENT, GET, OBJECT, REV_URL, SHA256
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

CLIENTS = 12


@pytest.fixture(autouse=True)
def served(server: ScriptedServer, hit: Response) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))


def downloads(server: ScriptedServer) -> int:
    return sum(path.startswith(OBJECT) for path, _ in server.requests)


def run_together(folder: Path, commands: Sequence[Sequence[str]]) -> list[str]:
    """Run these commands at the same time, and return what they wrote about failures."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "archiver", *words],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    said = [process.communicate(timeout=100)[1] for process in processes]
    return [text for text, each in zip(said, processes, strict=True) if each.returncode]


@pytest.mark.thorough
def test_twelve_processes_fill_one_file(server: ScriptedServer, tmp_path: Path) -> None:
    words = (*GET, "--server", server.url, "-o", "here")
    assert run_together(tmp_path, [words] * CLIENTS) == []
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.thorough
def test_twelve_processes_share_a_cache(server: ScriptedServer, tmp_path: Path) -> None:
    commands = [
        (*GET, "--server", server.url, "--cache", "cache", "-o", str(number))
        for number in range(CLIENTS)
    ]
    assert run_together(tmp_path, commands) == []
    for number in range(CLIENTS):
        assert (tmp_path / str(number)).read_bytes() == CONTENT
    assert downloads(server) == 1
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == [SHA256]


def test_a_damaged_archive_in_the_cache_is_replaced(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    words = (*GET, "--server", server.url, "-o", "here")
    for number in range(2):
        assert run(*words, ARCHIVER_CACHE=str(tmp_path / "cache")).exit_code == 0
        assert downloads(server) == 1 + number
        (stored,) = (tmp_path / "cache").glob("*/*")
        stored.write_bytes(b"x" * len(CONTENT))
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_what_was_used_longest_ago_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=250)
    paths = [cache.path(f"{number}" * 64) for number in range(4)]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    part = paths[3].with_name("x.part")
    part.touch()
    cache.keep(paths[2])
    assert [path.exists() for path in paths] == [True, False, True, False]
    assert part.exists()
    os.utime(part, (1000, 1000))
    cache.keep(paths[2])
    assert not part.exists()


def test_an_archive_larger_than_the_cache_is_kept_until_the_next(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    words = (*GET, "--server", server.url, "--cache", "cache", "--cache-max-bytes", "1")
    assert run(*words, "-o", "here").exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_named(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("")
    result = run(*GET, "--server", server.url, "--cache", "cache/below", "-o", "here")
    assert result.exit_code == 1
    assert "cache/below" in result.stderr
