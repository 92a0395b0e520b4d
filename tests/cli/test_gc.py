"""``archiver gc``: its output, its exit codes, and runs with real servers."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from archiver.cli.gc_report import format_result, summary_lines, to_json_line, to_json_summary
from archiver.jetstream.schedule import JetStreamSchedule
from archiver.jetstream.streams import STATES
from archiver.storage.regional_storage import open_storage
from archiver.upkeep.collector import RUN
from archiver.upkeep.expiry import Kept
from archiver.upkeep.expiry_plan import Excess, Expiry, Reason
from archiver.upkeep.gc import GcTally, Outcome, Result
from tests.cli.test_index import region
from tests.contracts.storage_backends import store
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import Fleet, an_archive, delete, prepared
from tests.parts.json_output import documents
from tests.parts.nats import Nats
from tests.parts.process import free_port
from tests.parts.s3 import REGIONS, Home

EAST, WEST = REGIONS
ARCHIVE = an_archive()
RESULT = Result(
    expiry=Expiry(
        archive=ARCHIVE, reason=Reason.UNUSED, last_use=date(2026, 1, 2), size_bytes=12_000
    ),
    outcome=Outcome.EXPIRED,
)
EXCESSES = [
    Excess(region=EAST, rule=None, size_bytes=1000),
    Excess(region=WEST, rule=2, size_bytes=7),
]
HOUR = timedelta(hours=1)
BECAUSE = "because the other archives are kept, pinned or in use"


def test_a_result_is_one_line() -> None:
    assert format_result(RESULT) == (
        f"expired     unused  2026-01-02           12,000  {ARCHIVE.task_id}"
    )
    assert json.loads(to_json_line(RESULT)) == {
        "task": ARCHIVE.task_id,
        "outcome": "expired",
        "reason": "unused",
        "last_use": "2026-01-02",
        "size": 12_000,
    }


def test_a_result_says_why_an_archive_is_kept() -> None:
    kept = replace(RESULT, outcome=Outcome.KEPT, kept=Kept.DIFFERENT)
    assert format_result(kept).endswith(f"{ARCHIVE.task_id} (different)")
    assert json.loads(to_json_line(kept))["kept"] == "different"


def test_the_summary_says_what_was_done_and_what_is_left() -> None:
    tally = GcTally(archives=1200, planned=3, planned_bytes=5000, excesses=EXCESSES)
    assert list(summary_lines(tally, HOUR, applied=False)) == [
        "1,200 archives: 3 would expire, 5,000 bytes",
        "nothing was changed: use --apply to expire them",
        f"us-east-1 exceeds the budget by 1,000 bytes, {BECAUSE}",
        f"us-west-2 exceeds the budget of rule 2 by 7 bytes, {BECAUSE}",
    ]
    tally = GcTally(archives=1, expired=1, kept=2, removed=1, removed_bytes=7)
    assert list(summary_lines(tally, HOUR, applied=True)) == [
        "1 archive: 1 expired, 2 kept after all, 0 left for the next run",
        "1 object of archives that expired earlier removed, 7 bytes",
        (
            "the bytes of an expired archive stay for 60 minutes, while links lead there: run this "
            "again, or leave it to a sweep"
        ),
    ]


def test_the_json_has_every_detail() -> None:
    tally = GcTally(archives=2, planned=1, planned_bytes=3, waiting=4, excesses=EXCESSES)
    assert json.loads(to_json_summary(tally, 1.23456, applied=True)) == {
        "applied": True,
        "archives": 2,
        "planned": 1,
        "planned_bytes": 3,
        "expired": 0,
        "kept": 0,
        "unanswered": 0,
        "removed": 0,
        "removed_bytes": 0,
        "waiting": 4,
        "waiting_bytes": 0,
        "excesses": [
            {"region": "us-east-1", "rule": None, "bytes": 1000},
            {"region": "us-west-2", "rule": 2, "bytes": 7},
        ],
        "duration_s": 1.235,
    }


def test_nothing_expires_unless_the_settings_say_so(tmp_path: Path, nats: Nats, home: Home) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}

    async def fill() -> None:
        async with open_storage([home.bucket(name) for name in REGIONS]) as storage:
            await store(storage, an_archive())

    asyncio.run(fill())
    kept = run_alone(tmp_path, "gc", "--apply", engine=nats.url, regions=regions)
    assert (kept.returncode, kept.stdout) == (0, "")
    assert "the settings keep all archives" in kept.stderr
    assert "1 archive: 0 expired" in kept.stderr

    (tmp_path / "archiver.toml").write_text("[retention]\nbudget_bytes = 1")
    full = run_alone(tmp_path, "gc", "--json", engine=nats.url, regions=regions)
    assert full.returncode == 1, full.stderr
    assert "Error: a region exceeds a budget" in full.stderr
    assert [each["region"] for each in documents(full.stdout)[0]["excesses"]] == [EAST, WEST]


async def remove_turn(fleet: Fleet) -> None:
    async with fleet.connection() as connection:
        await delete(connection, STATES, RUN)


@pytest.mark.thorough
def test_two_runs_do_not_overlap(tmp_path: Path, nats: Nats, home: Home) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}

    fleet = prepared(nats, "archiver")

    async def take_turn(until: datetime) -> None:
        async with fleet.connection() as connection:
            schedule = JetStreamSchedule(connection=connection)
            assert await schedule.begin(RUN, until=until)

    asyncio.run(take_turn(datetime.now(UTC) + HOUR))
    second = run_alone(tmp_path, "gc", "--apply", "--quiet", engine=nats.url, regions=regions)
    assert second.returncode == 75
    assert "another run is under way" in second.stderr
    assert run_alone(tmp_path, "gc", "--quiet", engine=nats.url, regions=regions).returncode == 0
    asyncio.run(remove_turn(fleet))


@pytest.mark.thorough
def test_missing_servers_exit_with_75(tmp_path: Path, home: Home, nats: Nats) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    result = run_alone(tmp_path, "gc", engine=f"nats://127.0.0.1:{free_port()}", regions=regions)
    assert result.returncode == 75
    assert "Error: engine_unavailable" in result.stderr
    lost = regions | {"lost": region(home, "bucket-that-is-lost")}
    for _ in range(2):  # a run that failed gives up its turn
        result = run_alone(tmp_path, "gc", "--apply", engine=nats.url, regions=lost)
        assert result.returncode == 75
        assert "Error: storage_unavailable" in result.stderr


def test_without_regions_the_usage_is_wrong(run: Run) -> None:
    assert run("gc").exit_code == 2
