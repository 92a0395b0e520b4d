"""``archiver drain``: its arguments, its output and its errors."""

import json

import pytest

from archiver.cli.drain_report import format_drained, to_json_line, to_json_summary
from archiver.model import TaskId
from archiver.upkeep.drain import Drained, DrainState
from tests.parts.commands import Run
from tests.parts.json_output import check_json
from tests.parts.process import free_port

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
