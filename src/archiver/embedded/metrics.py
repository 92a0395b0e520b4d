"""The folder in which the processes of one run add up their metrics."""

import shutil
from pathlib import Path


def fresh(folder: Path) -> None:
    """Make *folder*, empty: counters begin with the run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
