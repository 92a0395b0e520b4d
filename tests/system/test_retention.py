"""Archives expire beside a running fleet, and are built again."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.parts.hgweb import Hgweb, Repository
from tests.parts.process import wait_until
from tests.system.ageing import age_archives, end_grace, forget_uses, restart_regions, rewrite
from tests.system.client import fetch, succeed
from tests.system.stack import REGIONS, UNLIMITED, Stack, servers

pytestmark = pytest.mark.thorough

RETENTION = {"ARCHIVER_RETENTION__DAYS": "30", "ARCHIVER_SERVER__PRESIGNED_TTL_S": "60"}
TWO_PROCESSES = {"ARCHIVER_SERVER__PROCESSES": "2", "ARCHIVER_SERVER__HIT_TTL_S": "300"}


def gc(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "archiver", "gc", *words],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def read(stack: Stack, folder: str) -> list[dict[str, object]]:
    """Return the JSON files in this folder of each region's bucket."""
    paths = [path for region in REGIONS for path in stack.visible(region)]
    return [json.loads(path.read_text()) for path in paths if folder in path.parts]


def test_an_expired_archive_is_built_again_while_links_to_it_work(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    with (
        servers(tmp_path, template=hgweb.template, settings=RETENTION) as stack,
        stack.worker(),
        stack.web(TWO_PROCESSES),
    ):
        url, strict = stack.url(fresh.name, node), stack.url(fresh.name, node, "on_miss=none")
        first = succeed(url)
        (link, *_) = first["s3_urls"].values()
        assert {fetch(strict).status for _ in range(40)} == {302}
        age_archives(stack, days=40)

        planned = gc(stack)
        assert planned.returncode == 0, planned.stderr
        assert planned.stdout.startswith("planned     unused")
        assert fetch(strict).status == 302
        asyncio.run(forget_uses(stack, since="2020-01-01"))
        expired = gc(stack, "--apply")
        assert expired.stdout.startswith("expired     unused"), expired.stderr
        wait_until(lambda: {fetch(strict).status for _ in range(40)} == {404}, timeout_s=30)
        assert fetch(link).status == 200
        assert read(stack, "manifests") == []
        assert [each["sha256"] for each in read(stack, "tombstones")] == [first["sha256"]] * 2

        again = succeed(url)
        assert again["sha256"] == first["sha256"]
        assert [each["supersedes"] for each in read(stack, "manifests")] == [None] * 2
        assert fetch(link).status == 200
        end_grace(stack)
        removed = gc(stack, "--apply")
        assert "2 objects of archives that expired earlier removed" in removed.stderr
        assert fetch(link).status == 404
        assert fetch(fetch(url).location).status == 200


def test_other_bytes_than_before_are_recorded(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    with (
        servers(tmp_path, template=hgweb.template, settings=RETENTION) as stack,
        stack.worker(),
        stack.web(),
    ):
        url = stack.url(fresh.name, node)
        first = succeed(url)
        age_archives(stack, days=40)
        assert "1 expired" in gc(stack, "--apply").stderr
        for path in (path for region in REGIONS for path in stack.visible(region)):
            if "tombstones" in path.parts:
                rewrite(path, sha256="0" * 64)
        restart_regions(stack)
        again = succeed(url)
        assert again["sha256"] == first["sha256"]
        assert [each["supersedes"] for each in read(stack, "manifests")] == ["0" * 64] * 2
        assert "archive.superseded" in (stack.folder / "worker.log").read_text()


def test_a_run_that_is_killed_breaks_no_link_and_is_completed(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({f"{name}/README": b"read me" for name in "abcdefghijkl"})
    with (
        servers(tmp_path, template=hgweb.template, settings=RETENTION | UNLIMITED) as stack,
        stack.worker(),
        stack.web(),
    ):
        parts = [f"subdir={name}" for name in "abcdefghijkl"]
        built = [succeed(stack.url(fresh.name, node, part)) for part in parts]
        links = [url for each in built for url in each["s3_urls"].values()]
        age_archives(stack, days=40)
        for _ in range(3):
            kill_gc_while_it_expires(stack)
            assert [fetch(link).status for link in links] == [200] * len(links)
            asyncio.run(forget_turn(stack))
        assert gc(stack, "--apply").returncode == 0
        assert [fetch(link).status for link in links] == [200] * len(links)
        assert len(read(stack, "tombstones")) == 2 * len(parts)
        assert read(stack, "manifests") == []

        end_grace(stack)  # until then, the index may lead to those that a killed run expired last
        assert gc(stack, "--apply").returncode == 0
        strict = [stack.url(fresh.name, node, f"{part}&on_miss=none") for part in parts]
        wait_until(lambda: {fetch(url).status for url in strict} == {404}, timeout_s=30)


def kill_gc_while_it_expires(stack: Stack) -> None:
    """Kill a run right after its first archive, while others are at other steps."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "archiver", "gc", "--apply", "--quiet"],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        process.kill()


async def forget_turn(stack: Stack) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{stack.nats.port}")
    try:
        await (await client.jetstream().key_value("archiver_states")).delete("gc-run")
    finally:
        await client.close()


def test_a_worker_expires_archives_and_later_their_bytes(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    settings = {**RETENTION, "ARCHIVER_RETENTION__GC_S": "0.5"}
    with servers(tmp_path, template=hgweb.template, settings=settings) as stack, stack.web():
        with stack.worker("builder"):
            succeed(stack.url(fresh.name, node))
        age_archives(stack, days=40)
        with stack.worker("expirer"):
            wait_until(lambda: bool(logged(stack, "expirer", "archive.expired")), timeout_s=60)
            assert read(stack, "manifests") == []
            assert len(read(stack, "tombstones")) == 2
            strict = stack.url(fresh.name, node, "on_miss=none")
            wait_until(lambda: fetch(strict).status == 404, timeout_s=30)
        end_grace(stack)
        with stack.worker("remover"):
            wait_until(lambda: removed_objects(stack, "remover") == 2, timeout_s=60)
        paths = [path for region in REGIONS for path in stack.visible(region)]
        assert [path for path in paths if "archives" in path.parts] == []


def logged(stack: Stack, name: str, event: str) -> list[dict[str, Any]]:
    """Return the complete lines of this event in a process's log."""
    lines = (stack.folder / f"{name}.log").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
    return [record for record in records if record["event"] == event]


def removed_objects(stack: Stack, name: str) -> int:
    return sum(record["removed"] for record in logged(stack, name, "gc.finished"))
