"""``archiver tasks``: its output, and a run against a real server."""

import asyncio
import json
import secrets
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from archiver.cli.tasks_report import format_task, tables
from archiver.jetstream.link import Servers
from archiver.ports.task_list import ListedTask
from archiver.tasks import Failure, Phase, Task, TaskState
from archiver.upkeep.census import Overview
from archiver.upkeep.census_json import render_counts, render_task
from tests.cli.test_fsck import lines
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import Fleet, an_archive
from tests.parts.nats import Nats
from tests.parts.process import free_port

ARCHIVE = an_archive()
AT = datetime(2026, 11, 28, 1, 2, 3, tzinfo=UTC)
FAILED = ListedTask(
    task=Task(
        archive=ARCHIVE,
        state=TaskState.FAILURE,
        phase=Phase.DONE,
        attempt=2,
        failures=2,
        error=Failure(code="source_refused", message="no"),
        created_at=AT,
    ),
    client="token:ci\x1b",
)
OVERVIEW = Overview(
    since=AT,
    counts=Counter({(TaskState.PENDING, "hgmo"): 20_000, (TaskState.FAILURE, "git"): 3}),
    codes=Counter({(TaskState.FAILURE, "source_refused"): 3}),
    clients=Counter({"192.0.2.1": 19_999, "token:ci[red]": 1}),
)


def text(overview: Overview) -> list[list[str]]:
    console = Console(width=100)
    with console.capture() as capture:
        for table in tables(overview):
            console.print(table)
    return [line.split() for line in capture.get().splitlines()]


def test_tasks_are_counted_in_tables() -> None:
    assert text(OVERVIEW) == [
        ["source", "STARTED", "RETRY", "PENDING", "FAILURE"],
        ["git", "0", "0", "0", "3"],
        ["hgmo", "0", "0", "20,000", "0"],
        ["code", "state", "tasks"],
        ["source_refused", "FAILURE", "3"],
        ["client", "open", "tasks"],
        ["192.0.2.1", "19,999"],
        ["token:ci[red]", "1"],
    ]
    assert text(Overview()) == []


def test_a_task_is_one_line_without_control_characters() -> None:
    assert format_task(FAILED).split() == [
        "FAILURE",
        "2026-11-28",
        "01:02:03",
        r"token:ci\x1b",
        ARCHIVE.task_id,
        "source_refused",
    ]
    waiting = Task(archive=ARCHIVE, state=TaskState.PENDING, phase=Phase.QUEUED)
    line = format_task(ListedTask(task=waiting, client=""))
    assert line.split() == ["PENDING", "unknown", "-", ARCHIVE.task_id]


def test_the_json_has_every_detail() -> None:
    assert json.loads(json.dumps(render_task(FAILED))) == {
        "task": ARCHIVE.task_id,
        "source": "hgmo",
        "repo": "projects/ash",
        "node": ARCHIVE.node,
        "subdir": "",
        "suffix": "zip",
        "submodules": False,
        "lfs": False,
        "state": "FAILURE",
        "phase": "done",
        "client": "token:ci\x1b",
        "attempt": 2,
        "failures": 2,
        "error": {"code": "source_refused", "message": "no"},
        "created_at": "2026-11-28T01:02:03+00:00",
        "started_at": None,
        "updated_at": None,
    }
    assert json.loads(json.dumps(render_counts(OVERVIEW))) == {
        "counts": [
            {"state": "PENDING", "source": "hgmo", "tasks": 20_000},
            {"state": "FAILURE", "source": "git", "tasks": 3},
        ],
        "codes": [{"state": "FAILURE", "code": "source_refused", "tasks": 3}],
        "clients": [
            {"client": "192.0.2.1", "tasks": 19_999},
            {"client": "token:ci[red]", "tasks": 1},
        ],
        "since": "2026-11-28T01:02:03+00:00",
    }


def tasks(
    folder: Path, engine: str, *words: str, source: str = "hgmo"
) -> subprocess.CompletedProcess[str]:
    template = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"
    config = f'[sources.{source}]\nkind = "hgweb"\nurl_template = "{template}"\n'
    (folder / "archiver.toml").write_text(config)
    return run_alone(folder, "tasks", "--source", source, *words, engine=engine, regions={})


def test_the_tasks_of_a_real_queue_are_listed(tmp_path: Path, nats: Nats) -> None:
    fleet = Fleet(servers=Servers(urls=[nats.url]), namespace="archiver")
    source = f"s{secrets.token_hex(4)}"
    archives = [an_archive(source) for _ in range(3)]

    async def fill() -> None:
        await fleet.prepare()
        async with fleet.queue() as queue:
            for archive in archives:
                await queue.enqueue(archive, client="192.0.2.1")

    asyncio.run(fill())
    words = ("--json", "--limit", "2", "--state", "pending")
    found = tasks(tmp_path, nats.url, *words, source=source)
    assert found.returncode == 0, found.stderr
    *listed, summary = lines(found)
    assert [each["task"] for each in listed] == [archive.task_id for archive in archives[:2]]
    assert summary["counts"] == [{"state": "PENDING", "source": source, "tasks": 3}]
    table = tasks(tmp_path, nats.url, "--limit", "1", source=source)
    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[-1].startswith("PENDING")
    assert "192.0.2.1" in table.stdout


@pytest.mark.thorough
def test_a_missing_engine_exits_with_75(tmp_path: Path) -> None:
    result = tasks(tmp_path, f"nats://127.0.0.1:{free_port()}")
    assert result.returncode == 75
    assert "Error: engine_unavailable" in result.stderr


@pytest.mark.parametrize(
    "words", (("--state", "SUCCESS"), ("--source", "nowhere"), ("--limit", "-1"))
)
def test_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    result = run("tasks", *words, ARCHIVER_ENGINE__URL="nats://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (2, "")
