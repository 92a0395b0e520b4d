"""Programs that come with the system, not with Python."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 1800.0
"""More than any of it takes; less than a run that hangs should."""


class MissingProgram(Exception):
    """A benchmark needs a program that is not installed."""


def need(*names: str) -> None:
    """Return if all of these programs are there. Raises MissingProgram."""
    if missing := [name for name in names if not shutil.which(name)]:
        raise MissingProgram(f"not installed: {', '.join(missing)} (apt-get install them)")


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> float:
    """Run *command* to its end, which has to be a good one; return the seconds it took."""
    started = time.monotonic()
    subprocess.run(
        command, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S
    )
    return time.monotonic() - started
