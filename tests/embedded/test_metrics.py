"""The metrics of processes that are gone."""

import os
import subprocess
import sys
from pathlib import Path

from archiver.embedded import metrics

COUNT = """
from prometheus_client import Counter, Gauge
Gauge("running", "", multiprocess_mode="livesum").inc()
Counter("done", "").inc()
print(end="counted", flush=True)
input()
"""


def test_what_a_dead_process_did_stays_and_what_it_was_doing_goes(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    metrics.fresh(folder)
    with subprocess.Popen(
        (sys.executable, "-c", COUNT),
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.read(7) == b"counted"
        metrics.forget_dead(folder)
        assert (folder / f"gauge_livesum_{process.pid}.db").exists()
        process.communicate(b"\n")
    metrics.forget_dead(folder)
    assert not (folder / f"gauge_livesum_{process.pid}.db").exists()
    assert (folder / f"counter_{process.pid}.db").exists()


def test_each_run_counts_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    metrics.fresh(folder)
    (folder / "counter_1.db").write_bytes(b"of the last run")
    metrics.fresh(folder)
    assert list(folder.iterdir()) == []
