"""The programs of `archiver serve`."""

from pathlib import Path

from archiver.embedded.stack import empty_folder


def test_each_run_counts_from_zero(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    empty_folder(folder)
    (folder / "counter_1.db").write_bytes(b"of the last run")
    empty_folder(folder)
    assert list(folder.iterdir()) == []
