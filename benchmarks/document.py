"""docs/benchmarks.md: prose by hand, and the latest figures between the markers of each topic."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from archiver import __version__
from benchmarks.race import Table

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def insert(document: str, topic: str, measured: str) -> str:
    """Return *document* with *measured* between the markers of *topic*."""
    begin, end = f"<!-- {topic} -->\n", f"<!-- end of {topic} -->\n"
    between = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    changed, count = between.subn(lambda _: measured, document)
    if count != 1:
        raise ValueError(f"the document needs exactly one place for {topic}, and has {count}")
    return changed


def render(tables: Sequence[Table], *, rounds: int, duration_s: float) -> str:
    """Return the tables, followed by date, machine, rounds and load."""
    now = datetime.now(UTC)
    where = f"{now:%Y-%m-%d}, Archiver {__version__}, {machine()}."
    load = os.getloadavg()[2]
    many = "round" if rounds == 1 else "rounds"
    how = f"{rounds} {many} in {duration_s / 60:.0f} min; load average {load:.1f}."
    return "\n".join(["", *(table.markdown() for table in tables), where, f"{how}\n\n"])


def machine() -> str:
    """Return processor, cores, memory and system of this machine."""
    model = _first(r"^model name\s*: (.*)$", "/proc/cpuinfo") or platform.machine()
    memory_kb = int(_first(r"^MemTotal:\s*(\d+) kB$", "/proc/meminfo") or 0)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory_kb / 1e6:.0f} GB, {system}"


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1] if found else ""
