"""``archiver drain``: its arguments, its output and its errors."""

import asyncio
import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.cli.drain_report import format_drained, to_json_line, to_json_summary
from archiver.jetstream.connection import connect
from archiver.jetstream.link import Servers
from archiver.jetstream.worker_reports import Reporter
from archiver.model import TaskId
from archiver.testing import MemoryStorage
from archiver.upkeep.drain import Drained, DrainState
from archiver.wiring.adapters import NAMESPACE
from archiver.worker.activity import Activity
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import HUNG_AFTER_S
from tests.parts.json_output import check_json, documents
from tests.parts.nats import command
from tests.parts.process import accepts, free_port, running

BUSY = Drained(worker="host:1", state=DrainState.DRAINING, running=(TaskId("a:b"), TaskId("c")))
GONE = Drained(worker="host:1", state=DrainState.GONE)


@pytest.mark.parametrize("words", ((), ("--all", "host:1"), ("host:1", "--timeout", "-1")))
def test_contradictory_or_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    assert run("drain", *words, ARCHIVER_ENGINE__URL="nats://127.0.0.1:1").exit_code == 2


def test_an_engine_that_does_not_answer_is_asked_later(run: Run) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    result = run("drain", "--all", "--json", ARCHIVER_ENGINE__URL=url)

    assert result.exit_code == 75
    assert json.loads(result.stdout)["error"]["code"] == "engine_unavailable"


def test_a_line_names_the_worker_and_its_tasks() -> None:
    assert format_drained(BUSY) == "draining     host:1  runs 2 tasks: a:b, c"
    assert format_drained(GONE) == "gone         host:1"
    assert "\x1b" not in format_drained(Drained(worker="\x1b[1m", state=DrainState.SILENT))


def test_the_json_is_as_described() -> None:
    lines = [to_json_line(BUSY), to_json_line(GONE), to_json_summary([GONE], 1.0)]

    check_json(("drain", "--all", "--json"), "\n".join(lines), 0)


def test_a_worker_of_an_earlier_release_goes_on_and_others_drain(tmp_path: Path) -> None:
    port = free_port()
    servers = Servers(urls=[f"nats://127.0.0.1:{port}"])
    activity = Activity()
    reporter = Reporter(storage=MemoryStorage(), activity=activity)

    async def report() -> bytes:
        return b'{"name": "old:1", "regions": {}}'

    async def play() -> subprocess.CompletedProcess[str]:
        earlier = connect(servers, namespace=NAMESPACE, name="old", report=report)
        present = connect(
            servers,
            namespace=NAMESPACE,
            name="new",
            report=reporter.answer,
            drains=(reporter.name, reporter.obey),
        )
        async with earlier as one, present as other:
            for each in (one, other):
                await each.link.wait(timedelta(seconds=HUNG_AFTER_S))
            words = ("drain", "--all", "--json", "--no-wait")
            engine = f"nats://127.0.0.1:{port}"
            return await asyncio.to_thread(run_alone, tmp_path, *words, engine=engine, regions={})

    with running(command(tmp_path, port), log=tmp_path / "log", ready=lambda: accepts(port)):
        result = asyncio.run(play())
    assert result.returncode == 1, result
    assert "of a release that cannot drain: old:1" in result.stderr
    states = {each["worker"]: each["state"] for each in documents(result.stdout)[:-1]}
    assert states == {"old:1": "unsupported", reporter.name: "draining"}
    assert activity.draining.is_set()
