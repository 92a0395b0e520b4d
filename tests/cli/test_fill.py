"""``archiver fill``: its output and its exit codes, and runs with real servers and workers."""

import asyncio
import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.cli.fill_report import (
    format_filled,
    format_summary,
    to_json_line,
    to_json_summary,
)
from archiver.upkeep.filled import Filled, Tally
from tests.cli.test_fsck import DATA, EAST, WEST, lines, store
from tests.cli.test_index import region
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import an_archive
from tests.parts.nats import Nats
from tests.parts.process import free_port
from tests.parts.s3 import Home

ARCHIVE = an_archive()
COPIED = Filled(archive=ARCHIVE, outcome="copied", size_bytes=1200)
LOST = Filled(archive=ARCHIVE, outcome="lost")
FAILURES = Counter(lost=2, storage_unavailable=1)
TALLY = Tally(selected=5000, copied=1200, size_bytes=34_000, failures=FAILURES)


def test_an_archive_is_one_line() -> None:
    assert format_filled(COPIED) == f"copied    {ARCHIVE.task_id}, 1,200 bytes"
    assert format_filled(LOST) == f"lost      {ARCHIVE.task_id}"
    assert json.loads(to_json_line(LOST)) == {
        "task": ARCHIVE.task_id,
        "outcome": "lost",
        "size": None,
    }


def test_the_summary_counts_archives_bytes_and_failures() -> None:
    counts = "5,000 archives: 1,200 copied, 34,000 bytes; 2 lost; 1 storage_unavailable"
    assert format_summary(TALLY) == counts
    found = Tally(selected=1, found=1, size_bytes=5)
    assert format_summary(found) == "1 archive: 1 found, 5 bytes"
    assert format_summary(Tally()) == "no archive matches"
    assert json.loads(to_json_summary(TALLY, 1.23456)) == {
        "selected": 5000,
        "found": 0,
        "copied": 1200,
        "bytes": 34_000,
        "failures": {"lost": 2, "storage_unavailable": 1},
        "duration_s": 1.235,
    }


def test_unanswered_archives_are_not_failed_ones() -> None:
    assert (TALLY.failed, TALLY.unanswered) == (2, 1)


def fill(folder: Path, *words: str, engine: str, home: Home) -> subprocess.CompletedProcess[str]:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    return run_alone(folder, "fill", *words, engine=engine, regions=regions)


@pytest.mark.thorough
def test_a_dry_run_lists_what_a_real_region_lacks(tmp_path: Path, nats: Nats, home: Home) -> None:
    lacking, other = an_archive(), replace(an_archive(), repo="other")
    for archive in (lacking, other):
        asyncio.run(store(home, archive, EAST))
    asyncio.run(store(home, an_archive(), EAST, WEST))
    words = (WEST, "--dry-run", "--repo", "projects/*")
    text = fill(tmp_path, *words, engine=nats.url, home=home)
    assert text.returncode == 0, text.stderr
    assert text.stdout.splitlines() == [f"found     {lacking.task_id}, {len(DATA)} bytes"]
    assert "2 archives: 1 found, 5 bytes" in text.stderr
    found = fill(tmp_path, *words, "--json", "--quiet", engine=nats.url, home=home)
    assert (found.returncode, "archive found" in found.stderr) == (0, False)
    assert lines(found)[0]["task"] == lacking.task_id
    assert lines(found)[-1]["found"] == 1


@pytest.mark.thorough
def test_missing_servers_exit_with_75(tmp_path: Path, home: Home, nats: Nats) -> None:
    lost = Home(server=home.server, names={**home.names, WEST: "bucket-that-is-lost"})
    result = fill(tmp_path, WEST, engine=nats.url, home=lost)
    assert result.returncode == 75
    assert "Error: storage_unavailable" in result.stderr
    result = fill(tmp_path, WEST, engine=f"nats://127.0.0.1:{free_port()}", home=home)
    assert result.returncode == 0, "without archives there is nothing to do"


@pytest.mark.parametrize(
    "words",
    (
        (),
        ("us-east-1", "--source", "nowhere"),
        ("nowhere",),
        ("us-east-1", "--rate", "0"),
        ("us-east-1", "--rate", "-1"),
    ),
)
def test_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    regions = {"ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "bucket"}}'}
    engine = {"ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1"}
    result = run("fill", *words, **regions, **engine)
    assert (result.exit_code, result.stdout) == (2, "")
