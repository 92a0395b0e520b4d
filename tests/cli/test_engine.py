"""``archiver engine``: its output and its errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from archiver.cli.engine import format_table
from archiver.jetstream.replication import ReplicaStatus, StreamStatus
from archiver.wiring.adapters import NAMESPACE
from tests.parts.commands import Run
from tests.parts.fleet import prepared
from tests.parts.json_output import documents
from tests.parts.nats import Nats, command
from tests.parts.process import accepts, free_port, running


def engine(folder: Path, *words: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process, because it sets up the log."""
    return subprocess.run(
        [sys.executable, "-m", "archiver", "engine", *words],
        env={**os.environ, "ARCHIVER_ENGINE__URL": url},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_single_server_is_shown_and_cannot_have_three_replicas(
    tmp_path: Path, nats: Nats
) -> None:
    prepared(nats, NAMESPACE)
    shown = engine(tmp_path, "show", "--json", url=nats.url)
    assert shown.returncode == 0, shown.stderr
    replicas = {stream["name"]: stream["replicas"] for stream in documents(shown.stdout)}
    assert "archiver_tasks" in replicas
    assert set(replicas.values()) == {1}

    refused = engine(tmp_path, "set-replicas", "3", url=nats.url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the engine has fewer servers" in refused.stderr


@pytest.mark.thorough
def test_an_engine_without_streams_cannot_have_replicas(tmp_path: Path) -> None:
    port = free_port()
    start = command(tmp_path, port)
    with running(start, log=tmp_path / "log", ready=lambda: accepts(port)):
        refused = engine(tmp_path, "set-replicas", "1", url=f"nats://127.0.0.1:{port}")
    assert (refused.returncode, refused.stdout) == (75, "")
    assert "there are no streams yet" in refused.stderr


def test_the_table_shows_a_stream_without_a_leader(capsys: pytest.CaptureFixture[str]) -> None:
    led = ReplicaStatus(name="hi_hgmo", replicas=3, leader="a", current=3)
    tasks = ReplicaStatus(name="archiver_tasks", replicas=3, leader="a", current=2)
    lost = ReplicaStatus(name="KV_archiver_revs", replicas=0, leader=None, current=0)
    streams = [
        StreamStatus(stream=tasks, messages=1200, size_bytes=0, max_bytes=2048, consumers=(led,)),
        StreamStatus(stream=lost, messages=0, size_bytes=0, max_bytes=-1, consumers=()),
    ]
    Console(width=100).print(format_table(streams))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["stream", "leader", "replicas", "complete", "messages", "bytes", "limit", "consumers"],
        ["archiver_tasks", "a", "3", "2", "1,200", "0", "2,048", "1"],
        ["KV_archiver_revs", "none", "0", "0", "0", "0", "none", "0"],
    ]


@pytest.mark.thorough
def test_an_engine_that_does_not_respond_is_a_case_for_doctor(tmp_path: Path) -> None:
    shown = engine(tmp_path, "show", url=f"nats://127.0.0.1:{free_port()}")
    assert shown.returncode == 75
    assert "Hint: `archiver doctor` says what is wrong with the engine." in shown.stderr


@pytest.mark.parametrize("words", (("set-replicas", "2"), ("set-replicas",), ("show",)))
def test_contradictory_or_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    settings = {} if words == ("show",) else {"ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1"}
    assert run("engine", *words, **settings).exit_code == 2
