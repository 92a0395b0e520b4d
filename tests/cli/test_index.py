"""``archiver index rebuild``: its arguments and its output."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.cli.index import format_summary, to_json_line
from archiver.cli.progress import ProgressLines
from archiver.model import Region
from archiver.upkeep.rebuild import Tally
from tests.parts.commands import Run, run_alone
from tests.parts.nats import Nats
from tests.parts.process import free_port
from tests.parts.s3 import Home

TALLY = Tally(phase="dropping", listed=1200, read=1200, written=1000, kept=199, unread=1, dropped=3)


def test_the_summary_counts_archives() -> None:
    assert format_summary(TALLY) == "1,200 archives: 1,000 written, 199 kept, 3 dropped"
    assert format_summary(Tally(listed=1, kept=1)) == "1 archive: 0 written, 1 kept, 0 dropped"


def test_the_json_is_one_line_with_every_detail() -> None:
    assert json.loads(to_json_line(TALLY, 1.23456)) == {
        "listed": 1200,
        "written": 1000,
        "kept": 199,
        "unread": 1,
        "dropped": 3,
        "silent": [],
        "complete": False,
        "duration_s": 1.235,
    }


@pytest.mark.parametrize(
    ("tally", "complete"),
    (
        (Tally(), True),
        (Tally(dropped=1), True),
        (Tally(unread=1), False),
        (Tally(silent=[Region("us-west-2")]), False),
    ),
)
def test_a_rebuild_is_complete_if_every_region_responded(tally: Tally, *, complete: bool) -> None:
    assert tally.complete is complete


def test_progress_is_printed_in_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ProgressLines(interval_s=0)
    lines.report("listing", 2000, None)
    lines.report("reading", 1500, 2000)
    lines.report("dropping", 3, None)
    assert capsys.readouterr().err.splitlines() == [
        "listing: 2,000",
        "reading: 1,500 of 2,000",
        "dropping: 3",
    ]
    lines.repeat()
    assert capsys.readouterr().err == "dropping: 3, no progress\n"
    ProgressLines(interval_s=60).report("dropping", 3, None)
    assert capsys.readouterr().err == ""


def region(home: Home, name: str) -> dict[str, str]:
    return {
        "bucket": name,
        "endpoint": home.server.endpoint,
        "access_key_id": home.server.access_key,
        "secret_access_key": home.server.secret_key,
    }


def rebuild(
    folder: Path, *words: str, engine: str, regions: Mapping[str, Mapping[str, str]]
) -> subprocess.CompletedProcess[str]:
    return run_alone(folder, "index", "rebuild", *words, engine=engine, regions=regions)


def test_an_empty_installation_is_rebuilt(tmp_path: Path, home: Home, nats: Nats) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    result = rebuild(tmp_path, "--json", engine=nats.url, regions=regions)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["listed"] == 0
    assert "0 archives: 0 written, 0 kept" in result.stderr

    quiet = rebuild(tmp_path, "--quiet", "--source", "hgmo", engine=nats.url, regions=regions)
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert "archives:" not in quiet.stderr


@pytest.mark.thorough
def test_a_missing_engine_exits_with_75(tmp_path: Path, home: Home) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    result = rebuild(tmp_path, engine=f"nats://127.0.0.1:{free_port()}", regions=regions)
    assert result.returncode == 75
    assert "Error: engine_unavailable" in result.stderr


@pytest.mark.thorough
def test_missing_regions_exit_with_75(tmp_path: Path, home: Home, nats: Nats) -> None:
    lost = {"us-east-1": region(home, "bucket-that-is-lost")}
    result = rebuild(tmp_path, engine=nats.url, regions=lost)
    assert result.returncode == 75
    assert "Error: storage_unavailable" in result.stderr


@pytest.mark.parametrize("words", ((), ("--source", "nowhere"), ("--source", "../hgmo")))
def test_contradictory_or_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    regions = {"ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "b"}}'} if words else {}
    engine = {"ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1"} if words else {}
    result = run("index", "rebuild", *words, **regions, **engine)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words or "; no `archiver serve` runs in " in result.stderr
