"""Progress without a terminal: a line at intervals, for logs of CI."""

import pytest

from archiver.cli.progress import ByteLines, ProgressLines, byte_progress


def test_a_line_is_written_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ByteLines(ProgressLines(interval_s=0, unit=" bytes"))
    bar.update("queued", 0)
    bar.update("download", 0, 2000)
    bar.advance(1500)
    assert capsys.readouterr().err.splitlines() == [
        "queued",
        "download",
        "download: 1,500 of 2,000 bytes",
    ]


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with byte_progress(quiet=True) as bar:
        bar.update("download", 1, 2)
        bar.advance(3)
    assert capsys.readouterr().err == ""
