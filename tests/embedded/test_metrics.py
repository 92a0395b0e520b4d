"""The folder in which processes add up their metrics."""

from pathlib import Path

from archiver.embedded import metrics


def test_each_run_counts_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    metrics.fresh(folder)
    (folder / "counter_1.db").write_bytes(b"of the last run")
    metrics.fresh(folder)
    assert list(folder.iterdir()) == []
