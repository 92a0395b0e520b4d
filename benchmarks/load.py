"""Load, as wrk makes it: how many redirects a second a server gives, and how long each takes."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

from benchmarks.programs import TIMEOUT_S

SCRIPT = Path(__file__).with_name("wrk.lua")

CONNECTIONS = 32
"""Enough that a server never waits for the next request, few enough that it is not the queue that
is measured."""


PATIENCE_S = 30
"""Later answers are lost; earlier ones are late, and to be seen in the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came of one run: redirects alone."""

    per_s: float
    p50_ms: float
    p99_ms: float


class NoRedirect(Exception):
    """A server that is measured for its redirects answered with something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What to ask ``base`` for: each of the request targets in ``file``, in their order."""

    base: str
    file: Path

    @classmethod
    def write(cls, folder: Path, urls: Sequence[str]) -> "Targets":
        """Return the targets of *urls*, which are all of one server, as a new file of *folder*."""
        base = "{0.scheme}://{0.netloc}".format(urlsplit(urls[0]))
        with NamedTemporaryFile("w", dir=folder, prefix="targets-", delete=False) as file:
            file.writelines(f"{url.removeprefix(base)}\n" for url in urls)
        return cls(base=base, file=Path(file.name))


def ask(
    targets: Targets,
    *,
    seconds: float,
    once: bool = False,
    pause_ms: int = 0,
) -> Answers:
    """Ask again and again, for so many seconds or, with *once*, until each target was asked for.

    Each connection pauses for *pause_ms* between an answer and its next request.

    Raises:
        NoRedirect: There was any other answer, or none.
    """
    command: list[str | Path] = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--timeout", f"{PATIENCE_S}s"]
    command += ["--duration", f"{TIMEOUT_S if once else seconds:.0f}s", "--script", SCRIPT]
    command += [targets.base, "--", targets.file, "once" if once else "always", str(pause_ms)]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    said = json.loads(ended.stdout.splitlines()[-1])
    if said["others"] or said["lost"] or not said["answers"]:
        raise NoRedirect(f"{targets.base} was asked for redirects alone, but: {said}")
    return Answers(
        per_s=said["answers"] / said["duration_s"], p50_ms=said["p50_ms"], p99_ms=said["p99_ms"]
    )
