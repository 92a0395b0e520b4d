"""``archiver fsck``: its output, its exit codes, and a run with real servers."""

import asyncio
import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.cli.fsck_report import format_summary, print_defect, to_json_line, to_json_summary
from archiver.model import Archive, Manifest, Pin, Region
from archiver.storage.regional_storage import open_storage
from archiver.upkeep.defect import Defect, DefectKind
from archiver.upkeep.fsck import Tally
from tests.cli.test_index import region
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import an_archive, copies_of
from tests.parts.json_output import documents
from tests.parts.nats import Nats
from tests.parts.process import free_port
from tests.parts.s3 import REGIONS, Home

EAST, WEST = REGIONS
ARCHIVE = an_archive()
DATA = b"bytes"
ORPHAN = Defect(
    kind=DefectKind.ORPHAN,
    key="archives/x\x1b",
    region=EAST,
    size_bytes=1200,
    archive=ARCHIVE,
    repaired=True,
)
TALLY = Tally(
    archives=1200,
    objects=2401,
    size_bytes=99,
    unanswered=1,
    found=Counter({DefectKind.ORPHAN: 2, DefectKind.FOREIGN: 1}),
    repaired=Counter({DefectKind.ORPHAN: 2}),
)


def test_a_defect_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_defect(ORPHAN)
    print_defect(Defect(kind=DefectKind.UNINDEXED, key="v1/x"))
    assert capsys.readouterr().out.splitlines() == [
        r"orphan      us-east-1  archives/x\x1b, 1,200 bytes: removed",
        "unindexed   index  v1/x",
    ]


def test_the_summary_counts_each_kind() -> None:
    assert format_summary(TALLY) == "1,200 archives: 2 orphan, 1 foreign; 2 repaired"
    assert format_summary(Tally(archives=1)) == "1 archive: no defects"


def test_the_json_has_every_detail() -> None:
    assert json.loads(to_json_line(ORPHAN)) == {
        "defect": "orphan",
        "region": "us-east-1",
        "key": "archives/x\x1b",
        "size": 1200,
        "task": ARCHIVE.task_id,
        "repaired": True,
    }
    assert json.loads(to_json_summary(TALLY, 1.23456)) == {
        "archives": 1200,
        "objects": 2401,
        "bytes": 99,
        "found": {"orphan": 2, "foreign": 1},
        "repaired": {"orphan": 2, "foreign": 0},
        "unanswered": 1,
        "duration_s": 1.235,
    }


def fsck(
    folder: Path, *words: str, engine: str, regions: Mapping[str, Mapping[str, str]]
) -> subprocess.CompletedProcess[str]:
    return run_alone(folder, "fsck", *words, engine=engine, regions=regions)


async def store(home: Home, archive: Archive, *regions: Region) -> Manifest:
    """Store an archive that was committed an hour ago."""
    manifest = replace(
        copies_of(archive).manifest,
        created_at=datetime.now(UTC) - timedelta(hours=1),
        size_bytes=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
    )
    for name in regions:
        path = f"/{home.names[name]}/{manifest.object_key}"
        assert home.server.request("PUT", path, body=DATA)[0] == 200
    buckets = [home.bucket(name) for name in regions]
    async with open_storage(buckets):
        for bucket in buckets:
            await bucket.create_manifest(archive, manifest)
    return manifest


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return documents(result.stdout)


@pytest.mark.thorough
@pytest.mark.parametrize("server", ("weed", "rclone"))
def test_real_buckets_are_checked_and_repaired(
    request: pytest.FixtureRequest, tmp_path: Path, nats: Nats, server: str
) -> None:
    home: Home = request.getfixturevalue(server).make_home()
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    names = ("ash", "ash-2", "ash.git", "ash/b")
    archives = [
        replace(an_archive(), repo=name, suffix=s) for name in names for s in ("tar", "zip")
    ]

    async def fill() -> None:
        for archive in archives:
            await store(home, archive, EAST, WEST)
        await store(home, an_archive(), WEST)

    asyncio.run(fill())
    path = f"/{home.names[EAST]}/notes.txt"
    assert home.server.request("PUT", path, body=DATA)[0] == 200

    found = fsck(tmp_path, "--json", "--read", engine=nats.url, regions=regions)
    assert found.returncode == 1, found.stderr
    assert lines(found)[-1]["found"] == {"uncopied": 1, "foreign": 1, "unindexed": 9}
    assert "9 archives: 1 uncopied, 1 foreign, 9 unindexed" in found.stderr

    repaired = fsck(tmp_path, "--repair", engine=nats.url, regions=regions)
    assert repaired.returncode == 1, repaired.stderr
    assert "; 10 repaired" in repaired.stderr
    assert "Error: 1 defect remains" in repaired.stderr
    assert home.server.request("DELETE", path)[0] == 204

    again = fsck(tmp_path, "--quiet", "--region", EAST, engine=nats.url, regions=regions)
    assert (again.returncode, again.stdout.count("uncopied")) == (1, 1)
    clean = fsck(tmp_path, "--region", WEST, engine=nats.url, regions=regions)
    assert (clean.returncode, clean.stdout) == (0, "")
    assert "9 archives: no defects" in clean.stderr


@pytest.mark.thorough
def test_an_unfinished_purge_and_a_pin_are_known(tmp_path: Path, nats: Nats, home: Home) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    purged, pinned = an_archive(), an_archive()

    async def fill() -> None:
        for archive in (purged, pinned):
            await store(home, archive, EAST, WEST)
        buckets = [home.bucket(name) for name in REGIONS]
        async with open_storage(buckets) as storage:
            await buckets[0].put_purge_mark(purged, "a-purge")
            await storage.put_pin(
                pinned, Pin(principal="cli", reason="kept", created_at=datetime.now(UTC))
            )

    asyncio.run(fill())
    found = fsck(tmp_path, "--json", "--repair", engine=nats.url, regions=regions)
    assert found.returncode == 1, found.stderr
    assert lines(found)[-1]["found"] == {"purging": 1, "unindexed": 1}
    assert lines(found)[-1]["unanswered"] == 0


@pytest.mark.thorough
def test_missing_servers_exit_with_75(tmp_path: Path, home: Home, nats: Nats) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    result = fsck(tmp_path, engine=f"nats://127.0.0.1:{free_port()}", regions=regions)
    assert result.returncode == 75
    assert "Error: engine_unavailable" in result.stderr
    lost = regions | {"lost": region(home, "bucket-that-is-lost")}
    result = fsck(tmp_path, "--repair", engine=nats.url, regions=lost)
    assert result.returncode == 75
    assert "Error: storage_unavailable" in result.stderr


@pytest.mark.parametrize("words", ((), ("--source", "nowhere"), ("--region", "nowhere")))
def test_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    regions = {"ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "bucket"}}'} if words else {}
    engine = {"ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1"} if words else {}
    result = run("fsck", *words, **regions, **engine)
    assert (result.exit_code, result.stdout) == (2, "")
