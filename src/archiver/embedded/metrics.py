"""The folder in which the processes of one run add up their metrics."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from prometheus_client import multiprocess

_LIVE = re.compile(r"gauge_live\w*_(\d+)\.db")


def fresh(folder: Path) -> None:
    """Make *folder*, empty: counters begin with the run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)


def forget_dead(folder: Path) -> None:
    """Take processes that are gone out of the gauges that count what is going on now."""
    for path in folder.glob("gauge_live*.db"):
        if (match := _LIVE.fullmatch(path.name)) and not _lives(int(match[1])):
            multiprocess.mark_process_dead(int(match[1]), str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
