"""``archiver list``: its output, and a run with a real server."""

import asyncio
import json
import subprocess
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from archiver.cli.list_report import Total, Totals, format_entry, format_summary, to_json_line
from archiver.upkeep.catalogue import Entry
from tests.cli.test_fsck import EAST, WEST, store
from tests.cli.test_index import region
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import an_archive, copies_of
from tests.parts.nats import Nats
from tests.parts.s3 import Home


def an_entry(source: str, repo: str, size_bytes: int) -> Entry:
    archive = replace(an_archive(source), repo=repo)
    manifest = replace(copies_of(archive).manifest, size_bytes=size_bytes)
    return Entry(archive=archive, manifest=manifest)


def test_an_archive_is_one_line() -> None:
    entry = an_entry("hgmo", "projects/ash", 12_345)
    created = f"{entry.manifest.created_at:%Y-%m-%d %H:%M:%S}"
    assert format_entry(entry).split() == [
        created[:10],
        created[11:],
        "12,345",
        entry.archive.task_id,
    ]
    assert json.loads(to_json_line(entry)) == {
        "task": entry.archive.task_id,
        "source": "hgmo",
        "repo": "projects/ash",
        "node": entry.archive.node,
        "subdir": "",
        "suffix": "zip",
        "submodules": False,
        "lfs": False,
        "size": 12_345,
        "sha256": entry.manifest.sha256,
        "created": entry.manifest.created_at.isoformat(),
        "last_use": None,
        "supersedes": None,
    }


def test_a_complete_archive_has_marks_in_its_line_and_flags_in_json() -> None:
    plain = an_entry("github", "a/b", 7)
    entry = replace(plain, archive=replace(plain.archive, submodules=True))
    assert format_entry(entry).split()[3] == f"github:a:b:-:{entry.archive.node}~submodules:-:zip"
    document = json.loads(to_json_line(entry))
    assert (document["submodules"], document["lfs"]) == (True, False)


def test_the_last_use_is_shown_if_it_is_known() -> None:
    entry = replace(an_entry("hgmo", "projects/ash", 7), last_use=date(2026, 1, 2))
    assert format_entry(entry).split()[2:] == ["2026-01-02", "7", entry.archive.task_id]
    assert json.loads(to_json_line(entry))["last_use"] == "2026-01-02"


def test_totals_name_each_source_and_then_its_repos_by_size() -> None:
    totals = Totals()
    for entry in (an_entry("a", "x", 1), an_entry("a", "y", 2), an_entry("b", "x", 5000)):
        totals.add(entry)
    assert [line.split() for line in totals.lines()] == [
        ["5,000", "1", "b"],
        ["5,000", "1", "b", "x"],
        ["3", "2", "a"],
        ["2", "1", "a", "y"],
        ["1", "1", "a", "x"],
    ]
    assert json.loads(next(totals.json_lines())) == {
        "source": "b",
        "repo": None,
        "archives": 1,
        "bytes": 5000,
    }


def test_the_summary_counts_archives_and_bytes() -> None:
    assert format_summary(Total(1, 1234), 0) == "1 archive, 1,234 bytes"
    assert format_summary(Total(2, 0), 3) == "2 archives, 0 bytes; 3 manifests cannot be read"


def listed(folder: Path, home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    return run_alone(folder, "list", *words, regions=regions)


@pytest.mark.thorough
def test_a_real_bucket_is_listed_without_an_engine(tmp_path: Path, home: Home) -> None:
    archives = [replace(an_archive(), repo=name) for name in ("b", "a")]
    for archive in archives:
        asyncio.run(store(home, archive, EAST, WEST))
    every = listed(tmp_path, home, "--sort", "age", "--json")
    assert every.returncode == 0, every.stderr
    assert [json.loads(line)["task"] for line in every.stdout.splitlines()] == [
        archive.task_id for archive in archives
    ]
    assert "2 archives, 10 bytes" in every.stderr
    some = listed(tmp_path, home, "--repo", "b", "--totals", "--quiet")
    assert [line.split() for line in some.stdout.splitlines()] == [
        ["5", "1", "hgmo"],
        ["5", "1", "hgmo", "b"],
    ]
    lost = Home(server=home.server, names={EAST: "bucket-that-is-lost"})
    failed = listed(tmp_path, lost)
    assert failed.returncode == 75
    assert "Error: storage_unavailable" in failed.stderr


@pytest.mark.parametrize("words", ((), ("--source", "nowhere"), ("--older", "-1")))
def test_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    regions = {"ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "bucket"}}'} if words else {}
    result = run("list", *words, **regions)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.thorough
def test_last_uses_come_from_the_engine(tmp_path: Path, home: Home, nats: Nats) -> None:
    regions = {str(name): region(home, bucket) for name, bucket in home.names.items()}
    archive = an_archive()
    asyncio.run(store(home, archive, EAST, WEST))
    today = datetime.now(UTC).date().isoformat()
    words = ("list", "--json", "--sort", "use")
    result = run_alone(tmp_path, *words, engine=nats.url, regions=regions)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["last_use"] == today
    result = run_alone(tmp_path, "list", "--unused", "1", engine=nats.url, regions=regions)
    assert (result.returncode, result.stdout) == (0, "")
    result = run_alone(tmp_path, "list", "--uses", regions=regions)
    assert result.returncode == 2
    assert "engine.url" in result.stderr
