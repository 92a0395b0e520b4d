"""Programs of the operating system."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 1800.0
"""Longer than any program runs, to end one that hangs."""


class MissingProgram(Exception):
    """A benchmark needs a program that is not installed."""


def need(*names: str) -> None:
    """Raise MissingProgram unless all of these programs are installed."""
    if missing := [name for name in names if not shutil.which(name)]:
        raise MissingProgram(f"not installed: {', '.join(missing)} (apt-get install them)")


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> float:
    """Run *command*, which must exit with 0, and return its duration in seconds."""
    started = time.monotonic()
    subprocess.run(
        command, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S
    )
    return time.monotonic() - started
