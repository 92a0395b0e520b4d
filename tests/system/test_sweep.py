"""A worker sweeps the buckets."""

import time
from pathlib import Path

import pytest

from tests.system.ageing import leave
from tests.system.stack import REGIONS, servers

UNREACHABLE = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"


@pytest.mark.thorough
def test_a_worker_removes_old_objects_that_no_manifest_names(tmp_path: Path) -> None:
    settings = {"ARCHIVER_HOUSEKEEPING__SWEEP_S": "0.2"}
    with servers(tmp_path, template=UNREACHABLE, settings=settings) as stack:
        old = [leave(stack, region, days=2) for region in REGIONS]
        young = leave(stack, REGIONS[0], days=0.5)
        with stack.worker():
            deadline = time.monotonic() + 60
            log = stack.folder / "worker.log"
            while "sweep.finished" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
        assert [path for path in old if path.exists()] == []
        assert young.exists()
        assert "sweep.finished" in log.read_text()
        assert "sweep.broken" not in log.read_text()
