"""``archiver fetch`` replaces what it has brought, and nothing else."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_extraction import contents
from tests.client.test_lock import content_of, fetch, node_of, serve
from tests.parts.commands import Run
from tests.parts.json_output import documents
from tests.parts.scripted_server import ScriptedServer

NAME = "repo00"
OURS = b"written by hand"

KILLED = """
import os, signal, sys
from archiver.client.new_folder import NewFolder
from archiver.cli import main

publish = NewFolder.publish
when = sys.argv.pop(1)

def publish_and_die(folder, *, replace):
    if when == "after":
        publish(folder, replace=replace)
    os.kill(os.getpid(), signal.SIGKILL)

NewFolder.publish = publish_and_die
main()
"""
"""``archiver``, which dies before or after it replaces a folder."""


def locked(name: str = NAME, commit: int = 0, **members: object) -> dict[str, object]:
    content = content_of(name, commit)
    return {
        "source": "hgmo",
        "repo": f"projects/{name}",
        "rev": "default",
        "suffix": "tar",
        "node": node_of(name, commit),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        **members,
    }


def write_lock(folder: Path, **entries: Mapping[str, object]) -> None:
    text = json.dumps({"version": 1, "archives": entries})
    (folder / "deps.json").write_text(text)


@pytest.fixture(autouse=True)
def both(server: ScriptedServer) -> None:
    """Serve two commits."""
    for commit in range(2):
        serve(server, NAME, commit=commit)


@pytest.mark.parametrize("when", ("before", "after"))
def test_a_kill_while_a_folder_is_replaced_is_noticed(
    run: Run, server: ScriptedServer, tmp_path: Path, when: str
) -> None:
    write_lock(tmp_path, zero=locked(extract="zero", strip=1))
    assert fetch(run, server).exit_code == 0
    write_lock(tmp_path, zero=locked(commit=1, extract="zero", strip=1))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, when, "fetch", "deps.json", "--server", server.url],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    write_lock(tmp_path, zero=locked(extract="zero", strip=1))
    result = fetch(run, server)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "zero") == {"file": b"repo00 0" * 100}


@pytest.mark.parametrize("members", ({"file": "mine"}, {"extract": "mine", "strip": 1}))
def test_what_fetch_did_not_bring_stays_unless_forced(
    run: Run, server: ScriptedServer, tmp_path: Path, members: dict[str, Any]
) -> None:
    mine = tmp_path / "mine"
    file = mine
    if "extract" in members:
        mine.mkdir()
        file = mine / "note"
    file.write_bytes(OURS)
    write_lock(tmp_path, zero=locked(**members))
    refused = fetch(run, server)
    assert refused.exit_code == 1
    assert "--force replaces it" in refused.stderr
    assert file.read_bytes() == OURS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deps.json", "mine"]
    assert fetch(run, server, "--force").exit_code == 0
    write_lock(tmp_path, zero=locked(commit=1, **members))
    upgraded = fetch(run, server)
    assert upgraded.exit_code == 0, upgraded.output
    if mine.is_dir():
        assert contents(mine) == {"file": b"repo00 1" * 100}
    else:
        assert mine.read_bytes() == content_of(NAME, 1)


def test_a_failed_fetch_claims_nothing(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    write_lock(tmp_path, zero=locked(file="mine"))
    serve(server, NAME, broken=True)
    assert fetch(run, server).exit_code == 5
    (tmp_path / "mine").write_bytes(OURS)
    serve(server, NAME)
    assert fetch(run, server).exit_code == 1
    assert (tmp_path / "mine").read_bytes() == OURS


def test_a_file_with_the_right_bytes_is_the_result(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(content_of(NAME))
    write_lock(tmp_path, zero=locked(file="mine", size=0))
    assert fetch(run, server).exit_code == 0
    assert not server.requests


@pytest.mark.parametrize(
    "members", ({"file": "up/victim/x"}, {"extract": "up/victim"}, {"file": "up/x"})
)
def test_no_link_leads_out_of_the_folder(
    run: Run, server: ScriptedServer, tmp_path: Path, members: dict[str, Any]
) -> None:
    folder = tmp_path / "below"
    folder.mkdir()
    (folder / "up").symlink_to("..")
    write_lock(tmp_path, good=locked(), zero=locked(**members))
    result = fetch(run, server, "-C", "below", "--force")
    assert result.exit_code == 1
    assert "zero: " in result.stderr
    assert "symbolic link" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", "deps.json"]
    assert (folder / "good.tar").exists()


@pytest.mark.parametrize("members", ({"file": "link"}, {"extract": "link"}))
def test_a_link_is_replaced_and_not_followed(
    run: Run, server: ScriptedServer, tmp_path: Path, members: dict[str, Any]
) -> None:
    folder, outside = tmp_path / "below", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(content_of(NAME))
    (folder / "link").symlink_to(outside)
    write_lock(tmp_path, zero=locked(**members))
    assert fetch(run, server, "-C", "below").exit_code == 1
    write_lock(tmp_path, zero=locked(commit=1, **members))
    assert fetch(run, server, "-C", "below", "--force").exit_code == 0
    assert outside.read_bytes() == content_of(NAME)
    assert not (folder / "link").is_symlink()


def test_two_names_of_one_place_are_refused(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    write_lock(tmp_path, one=locked(file="a/x"), two=locked(commit=1, file="b/x"))
    result = fetch(run, server)
    assert result.exit_code == 2
    assert not server.requests


def test_a_place_that_cannot_be_written_is_the_failure_of_one_archive(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "blocker").write_bytes(OURS)
    (tmp_path / ".note.locked").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    write_lock(
        tmp_path,
        a=locked(file="blocker/x"),
        b=locked(extract="blocker/y/z"),
        c=locked(file="note"),
        d=locked(file="x" * 255),
        e=locked(file="loop/x"),
        good=locked(),
    )
    result = fetch(run, server, "--json", "--jobs", "1")
    assert result.exit_code == 1, result.output
    lines = {line["name"]: "error" in line for line in documents(result.stdout)}
    assert lines == {"a": True, "b": True, "c": True, "d": True, "e": True, "good": False}
    assert (tmp_path / "good.tar").read_bytes() == content_of(NAME)


def test_processes_that_fetch_the_same_folder_wait_for_each_other(
    server: ScriptedServer, tmp_path: Path
) -> None:
    write_lock(tmp_path, zero=locked(extract="zero", strip=1))
    words = [sys.executable, "-m", "archiver", "fetch", "deps.json", "--server", server.url]
    processes = [
        subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=50)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sum("1 of them downloaded" in text for text in said) == 1
    assert contents(tmp_path / "zero") == {"file": b"repo00 0" * 100}


@pytest.mark.parametrize("note", ("link", "fifo"))
def test_a_note_that_is_no_file_is_refused(
    run: Run, server: ScriptedServer, tmp_path: Path, note: str
) -> None:
    path = tmp_path / ".zero.locked"
    if note == "link":
        path.symlink_to("outside")
    else:
        os.mkfifo(path)
    write_lock(tmp_path, zero=locked(extract="zero"))
    result = fetch(run, server, "--force")
    assert result.exit_code == 1
    assert ".zero.locked" in result.stderr
    assert not (tmp_path / "outside").exists()


def test_a_name_that_the_locale_cannot_encode_is_a_failure(
    server: ScriptedServer, tmp_path: Path
) -> None:
    write_lock(tmp_path, good=locked(), zero=locked(file="\u00e9"))
    result = subprocess.run(
        [sys.executable, "-m", "archiver", "fetch", "deps.json", "--server", server.url],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "the locale has no encoding for" in result.stderr
    assert (tmp_path / "good.tar").exists()
