"""``archiver purge``: its selections, its output and its exit codes."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from archiver.cli.purge import (
    PurgeRun,
    PurgeTally,
    RepoSelection,
    format_summary,
    parse_selection,
    why_absent,
)
from archiver.client.failures import InvalidUsage
from archiver.model import FLAGS, Archive, Copies
from archiver.purge import PurgeOrder, Purger
from archiver.storage.regional_storage import open_storage
from tests.contracts.storage_backends import an_archive, store
from tests.memory_world import World, build
from tests.parts.commands import Run, run_alone
from tests.parts.nats import Nats
from tests.parts.process import free_port
from tests.parts.s3 import REGIONS, Home

NODE = "0123456789" * 4
TASK = f"hgmo:projects:ash:-:{NODE}:-:zip"


@pytest.mark.parametrize("marks", ("", "~lfs", "~submodules", "~lfs~submodules"))
@pytest.mark.parametrize("prefix", ("", "https://archiver.example/archiver/status/"))
def test_a_task_selects_one_archive(prefix: str, marks: str) -> None:
    task = TASK.replace(NODE, f"{NODE}{marks}")
    selected = parse_selection(f"{prefix}{task}")
    assert isinstance(selected, Archive)
    assert selected.task_id == task
    assert [f"~{flag}" in marks for flag in FLAGS] == [selected.submodules, selected.lfs]


@pytest.mark.parametrize(
    ("text", "repo", "node"),
    (
        ("hgmo/projects/ash", "projects/ash", None),
        ("hgmo/ash", "ash", None),
        (f"hgmo/projects/ash/{NODE}", "projects/ash", NODE),
        (f"hgmo/projects/ash/{NODE.upper()}", "projects/ash", NODE),
        (f"hgmo/{NODE}", NODE, None),
        ("hgmo/projects/ash/0123456789ab", "projects/ash/0123456789ab", None),
    ),
)
def test_a_path_selects_a_repo_or_a_node(text: str, repo: str, node: str | None) -> None:
    assert parse_selection(text) == RepoSelection(source="hgmo", repo=repo, node=node)  # type: ignore[arg-type]


def test_a_short_node_is_named_as_the_reason_that_nothing_is_found() -> None:
    assert "0123456789ab counts as" in why_absent([parse_selection("hgmo/ash/0123456789ab")])
    assert why_absent([parse_selection("hgmo/ash"), parse_selection(TASK)]) == ""


def test_64_digits_select_a_sha256() -> None:
    assert parse_selection("A" * 64) == "a" * 64


@pytest.mark.parametrize("text", ("", "hgmo", "hgmo/", "/ash", "hgmo//ash", "hgmo/../x", "x" * 64))
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(InvalidUsage):
        parse_selection(text)


def test_the_summary_says_whether_something_was_removed() -> None:
    tally = PurgeTally(archives=1, total_bytes=1234)
    assert format_summary(tally, removed=False) == (
        "1 archive, 1,234 bytes in all regions; nothing was removed: --yes with a --reason "
        "removes them"
    )
    tally = PurgeTally(archives=3, total_bytes=5, unfinished=1)
    assert format_summary(tally, removed=True).endswith(": 2 purged, 1 unfinished, 0 pinned")


@pytest.mark.parametrize(
    "words", ((), (TASK, "--yes"), (TASK, "--yes", "--reason", " "), ("no such thing",))
)
def test_wrong_usage_exits_with_2(run: Run, words: tuple[str, ...]) -> None:
    assert run("purge", *words).exit_code == 2


def purge(
    folder: Path, home: Home, *words: str, engine: str, lost: str = "", command: str = "purge"
) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process, where the bucket of the region *lost* does not exist."""
    server = home.server
    regions = {
        str(region): {
            "bucket": "bucket-that-is-lost" if region == lost else bucket,
            "endpoint": server.endpoint,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
        }
        for region, bucket in home.names.items()
    }
    return run_alone(folder, command, *words, engine=engine, regions=regions)


def stored(home: Home, *archives: Archive) -> list[Copies]:
    async def run() -> list[Copies]:
        async with open_storage(home.buckets()) as storage:
            return [await store(storage, archive) for archive in archives]

    return asyncio.run(run())


@pytest.mark.thorough
def test_a_run_lists_first_then_purges_and_then_finds_nothing(
    tmp_path: Path, home: Home, nats: Nats
) -> None:
    archive, other = an_archive(repo="projects/a"), an_archive(repo="projects/b")
    copies, _ = stored(home, archive, other)
    before = home.keys()

    listed = purge(tmp_path, home, "hgmo/projects/a", "--json", engine=nats.url)
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout) == {
        "task": archive.task_id,
        "outcome": "found",
        "sha256": [copies.manifest.sha256],
        "total_bytes": 2 * copies.manifest.size_bytes,
        "regions": list(REGIONS),
        "pinned": False,
        "silent": [],
    }
    assert "nothing was removed" in listed.stderr
    assert home.keys() == before

    words = ("hgmo/projects/a", "--yes", "--reason", "a key leaked")
    purged = purge(tmp_path, home, *words, engine=nats.url)
    assert purged.returncode == 0, purged.stderr
    assert purged.stdout.startswith("purged ")
    assert "archive.purged" in purged.stderr
    assert "a key leaked" in purged.stderr
    assert all(other.key in key for keys in home.keys().values() for key in keys)

    again = purge(tmp_path, home, *words, engine=nats.url)
    assert (again.returncode, again.stdout) == (1, "")


@pytest.mark.thorough
def test_a_silent_region_exits_with_75_and_a_second_run_ends_the_purge(
    tmp_path: Path, home: Home, nats: Nats
) -> None:
    archive = an_archive()
    stored(home, archive)
    words = (str(archive.task_id), "--yes", "--reason", "a test")
    first = purge(tmp_path, home, *words, engine=nats.url, lost=REGIONS[1])
    assert first.returncode == 75, first.stderr
    assert first.stdout.startswith("unfinished")
    assert REGIONS[1] in first.stderr.splitlines()[-2]
    assert any(home.keys().values())

    second = purge(tmp_path, home, *words, engine=nats.url)
    assert second.returncode == 0, second.stderr
    assert not any(home.keys().values())


@pytest.mark.thorough
def test_a_pinned_archive_is_listed_and_purged_only_with_an_option(
    tmp_path: Path, home: Home, nats: Nats
) -> None:
    archive = an_archive()
    stored(home, archive)
    task = str(archive.task_id)

    def run(command: str, *words: str, lost: str = "") -> subprocess.CompletedProcess[str]:
        return purge(tmp_path, home, *words, engine=nats.url, command=command, lost=lost)

    added = run("pins", "add", task, "--reason", "a release", lost=REGIONS[1])
    assert added.returncode == 75, added.stderr
    assert run("pins", "add", task, "--reason", "again").returncode == 0
    (line,) = map(json.loads, run("pins", "--json").stdout.splitlines())
    assert (line["task"], line["principal"], line["reason"]) == (task, "cli", "a release")

    words = (task, "--yes", "--reason", "a test")
    refused = run("purge", *words)
    assert (refused.returncode, refused.stdout.split()[0]) == (1, "pinned")
    assert run("purge", *words, "--pinned").returncode == 0
    assert not any(home.keys().values())
    assert run("pins", "remove", task).returncode == 1


@pytest.mark.thorough
def test_a_missing_engine_exits_with_75(tmp_path: Path, home: Home) -> None:
    archive = an_archive()
    stored(home, archive)
    words = (str(archive.task_id), "--yes", "--reason", "a test")
    result = purge(tmp_path, home, *words, engine=f"nats://127.0.0.1:{free_port()}")
    assert result.returncode == 75
    assert "Error: engine_unavailable" in result.stderr


def test_a_sha256_selects_the_archives_that_have_it_now() -> None:
    async def scenario() -> None:
        world = World()
        archive, other = await build(world), await build(world, "testing/mozharness")
        (sha256,) = (await world.storage.traces(archive)).sha256s
        world.index.digests[sha256].append(other)  # it had these bytes once
        purger = Purger(
            storage=world.storage, index=world.index, queue=world.engine, repairs=world.engine
        )
        order = PurgeOrder(principal="cli", reason="a test")
        reported: list[tuple[Archive, str]] = []
        run = PurgeRun(
            purger,
            order=order,
            report=lambda traces, outcome: reported.append((traces.archive, outcome)),
        )
        assert (await run.run([sha256, archive])).archives == 1
        assert reported == [(archive, "purged")]
        assert (await world.storage.find(other)).copies

    asyncio.run(scenario())
