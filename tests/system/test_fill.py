"""A new region is filled although the command, workers, regions and the engine fail meanwhile."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.parts.fleet import an_archive, copies_of
from tests.parts.process import wait_until
from tests.system.stack import REGIONS, Server, Stack, servers

pytestmark = pytest.mark.thorough

EAST, WEST = REGIONS
UNREACHABLE = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"
ARCHIVES = 200
TIMEOUT_S = 120


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers whose eastern region has archives, and whose western region is new."""
    with servers(tmp_path, template=UNREACHABLE) as stack:
        for _ in range(ARCHIVES):
            _store(stack.folder / EAST / "bucket", secrets.token_bytes(20_000))
        yield stack


def _store(bucket: Path, data: bytes) -> None:
    """Write an archive of an hour ago as files of a bucket."""
    archive = an_archive()
    manifest = replace(
        copies_of(archive).manifest,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        created_at=datetime.now(UTC) - timedelta(hours=1),
    )
    files = {
        manifest.object_key: data,
        f"manifests/{archive.key}.json": msgspec.json.encode(manifest),
    }
    for key, body in files.items():
        (bucket / key).parent.mkdir(parents=True)
        (bucket / key).write_bytes(body)


def start(stack: Stack, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "archiver", "fill", WEST, "--json", "--quiet", *words],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, object]]:
    """Return the exit code and the summary, which is empty if the command failed early."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert "Traceback" not in errors, errors
    last = output.splitlines()[-1] if output else "{}"
    summary: dict[str, object] = json.loads(last)
    return process.returncode, summary


def contents(stack: Stack, region: str) -> dict[str, bytes]:
    """Return all archives and manifests of a region by their keys. Manifests are as parsed."""
    bucket = stack.folder / region / "bucket"
    found = {path.relative_to(bucket).as_posix(): path for path in stack.visible(region)}
    return {
        key: path.read_bytes() if key.startswith("archives/") else _normal(path)
        for key, path in found.items()
        if key.startswith(("archives/", "manifests/"))
    }


def _normal(path: Path) -> bytes:
    return json.dumps(json.loads(path.read_bytes()), sort_keys=True).encode()


def wait_for_some(stack: Stack) -> None:
    def some() -> bool:
        return len(list((stack.folder / WEST / "bucket" / "manifests").rglob("*.json"))) >= 10

    wait_until(some, what="ten copies")


def require_filled(stack: Stack) -> None:
    assert contents(stack, WEST) == contents(stack, EAST)
    assert len(contents(stack, WEST)) == 2 * ARCHIVES
    assert "source_unavailable" not in stack.logs()


def test_killed_commands_and_workers_lose_nothing(stack: Stack) -> None:
    with stack.worker("worker-1") as worker:
        command = start(stack)
        wait_for_some(stack)
        command.kill()
        command.communicate()
        second = start(stack)
        worker.kill()
        worker.wait()
        with stack.worker("worker-2"):
            code, summary = finish(second)
            assert (code, summary["failures"]) == (0, {})
            require_filled(stack)
            code, summary = finish(start(stack))
    assert (code, summary["copied"]) == (0, 0)


def down_and_up(stack: Stack, server: Server) -> None:
    """Restart a server in the middle of a fill. Run the fill again until it completes."""
    with stack.worker():
        command = start(stack)
        wait_for_some(stack)
        server.down()
        wait_until(lambda: "waiting" in stack.logs() or "failed" in stack.logs() or _idle(command))
        server.up()
        code, _ = finish(command)
        assert code in {0, 75}
        if code:
            code, _ = finish(start(stack))
    assert code == 0
    require_filled(stack)


def _idle(command: subprocess.Popen[str]) -> bool:
    return command.poll() is not None


@pytest.mark.parametrize("region", REGIONS)
def test_an_outage_of_a_region_loses_nothing(stack: Stack, region: str) -> None:
    down_and_up(stack, stack.regions[region])


def test_an_outage_of_the_engine_loses_nothing(stack: Stack) -> None:
    with stack.worker():
        command = start(stack)
        wait_for_some(stack)
        stack.nats.down()
        stack.nats.up()
        code, summary = finish(command)
    assert (code, summary["failures"]) == (0, {})
    require_filled(stack)
