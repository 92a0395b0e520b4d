"""Each release goes on with what earlier ones have stored: ``snapshots`` has what they wrote."""

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.jetstream import records
from tests.parts.process import wait_until
from tests.records.samples import SAMPLES
from tests.records.snapshot import FOLDER, fill_bucket, fill_streams, places
from tests.records.world import World, world
from tests.system.client import ended, fetch, poll, stored
from tests.system.stack import REGIONS

SOURCE = Path(__file__).parents[2] / "src"
SNAPSHOTS = sorted(FOLDER.glob("*.json"))
TIMEOUT_S = 120.0

DECODERS = {
    "KV_archiver_index": (records.decode_copies,),
    "KV_archiver_repairs": (records.decode_repair,),
    "KV_archiver_revs": (records.decode_rev,),
    "KV_archiver_states": (records.decode_task, records.decode_due, records.decode_seats),
    "archiver_tasks": (records.decode_order,),
}


class Restored:
    """A fleet of this release on servers with the contents of a snapshot."""

    def __init__(self, here: World, content: dict[str, Any]) -> None:
        self.here, self.roles, self.stack = here, content["roles"], here.stack
        self.public = here.stack.public

    def status(self, role: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a task that has ended."""
        return poll(self.public + role["status"], ended, timeout_s=TIMEOUT_S)[-1]

    def get(self, role: str, query: str = "") -> Any:  # noqa: ANN401
        return fetch(f"{self.public}{self.roles[role]['url']}{query}")


@pytest.fixture(params=SNAPSHOTS, ids=lambda path: path.stem)
def restored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restored]:
    content = json.loads(request.param.read_text())
    with world(tmp_path, source=SOURCE) as here:
        for region in REGIONS:
            here.stack.regions[region].down()
            fill_bucket(here.stack, region, content["buckets"][region])
            here.stack.regions[region].up()
        ids = {content["places"][region]: new for region, new in places(here.stack).items()}
        asyncio.run(fill_streams(here.stack, content["streams"], ids))
        yield Restored(here, content)


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
def test_each_value_of_an_earlier_release_can_be_read(path: Path) -> None:
    streams = json.loads(path.read_text())["streams"]
    unread = [
        message
        for stream in streams
        for message in stream["messages"]
        if message["data"] and stream["config"]["name"] in DECODERS
        if not any(
            decode(message["data"].encode()) for decode in DECODERS[stream["config"]["name"]]
        )
    ]

    assert len(streams) > 5
    assert unread == []


def test_the_snapshots_have_each_kind_of_stored_record() -> None:
    newest = json.loads((FOLDER / "573d72c.json").read_text())
    names = {stream["config"]["name"] for stream in newest["streams"] if stream["messages"]}
    folders = {key.partition("/")[0] for key in newest["buckets"]["us-east-1"]}

    assert names >= DECODERS.keys() | {"KV_archiver_uses", "KV_archiver_digests"}
    assert folders == {"archives", "manifests", "pins", "probes", "tombstones"}
    assert SAMPLES


@pytest.mark.thorough
def test_hits_and_statuses_are_answered_without_a_fetch(restored: Restored) -> None:
    with restored.stack.web():
        for role in ("hit", "git"):
            answer = restored.get(role)
            assert answer.status == 302, answer
            assert answer.headers["Archiver-Sha256"] == restored.roles[role]["sha256"]
            body = fetch(answer.location).body
            assert hashlib.sha256(body).hexdigest() == restored.roles[role]["sha256"]
            assert restored.status(restored.roles[role])["state"] == "SUCCESS"
        by_sum = fetch(f"{restored.public}/archiver/sha256/{restored.roles['git']['sha256']}")
        assert by_sum.status in {302, 404}, by_sum  # early releases had another route
        failed = restored.status(restored.roles["failed"])
        assert (failed["state"], failed["attempt"]) == ("FAILURE", 1)
        assert restored.get("git").headers["Archiver-Proof"] == "exact"
    assert restored.here.host.archives() == []
    assert "unreadable" not in restored.stack.logs()


@pytest.mark.thorough
def test_tasks_end_and_repairs_are_made(restored: Restored) -> None:
    with restored.stack.web():
        queued = restored.roles["queued"]
        first = fetch(restored.public + queued[0]["status"]).json["result"]
        assert first["state"] == "PENDING"
        with restored.stack.worker():
            for role in queued:
                assert restored.status(role)["state"] == "SUCCESS"
            killed = restored.status(restored.roles["killed"])
            assert killed["state"] == "SUCCESS"
            assert killed["attempt"] > 1  # the attempt of the earlier release counts
            repaired = restored.public + restored.roles["repair"]["status"]
            poll(repaired, stored, timeout_s=TIMEOUT_S)
    assert "unreadable" not in restored.stack.logs()


@pytest.mark.thorough
def test_an_archive_of_an_earlier_release_is_proven_by_its_own_record(
    restored: Restored, tmp_path: Path
) -> None:
    with restored.stack.web():
        (tmp_path / "git.tar.gz").write_bytes(fetch(restored.get("git").location).body)
    proven = restored.here.run(
        "verify", str(tmp_path / "git.tar.gz"), "--node", restored.here.commit
    )

    assert proven.returncode == 0, proven


@pytest.mark.thorough
def test_archives_are_purged_and_expired_ones_built_again(restored: Restored) -> None:
    here, roles = restored.here, restored.roles
    has_pins = any("pins/" in key for key in _keys(restored))
    with restored.stack.web(), restored.stack.worker():
        if has_pins:
            assert restored.get("purging").status == 503
            pins = here.run("pins", "--json")
            assert roles["hit"]["task_id"] in pins.stdout, pins
            assert _purge(here, here.node).returncode == 1
            restored.get("expired")
            again = restored.status(roles["expired"])
            assert again["sha256"] == roles["expired"]["sha256"]
        purged = _purge(here, here.tip)
        assert purged.returncode == 0, purged
        wait_until(lambda: restored.get("purging", "&on_miss=none").status == 404, what="the purge")


@pytest.mark.thorough
def test_archives_of_earlier_releases_expire(restored: Restored) -> None:
    env = {"ARCHIVER_RETENTION__DAYS": "1"}
    with restored.stack.web(), restored.stack.worker():
        wait_until(lambda: "worker.started" in restored.stack.logs(), what="a worker")
        fsck = restored.here.run("fsck", "--json")
        planned = restored.here.run("gc", "--json", env=env)

    assert '"unreadable"' not in fsck.stdout, fsck
    assert planned.returncode == 0, planned


def _keys(restored: Restored) -> list[str]:
    return [str(path) for path in restored.stack.visible("us-east-1")]


def _purge(here: World, node: str) -> subprocess.CompletedProcess[str]:
    return here.run("purge", f"hgmo/records/hg/{node}", "--yes", "--reason", "a test")
