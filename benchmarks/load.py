"""Load from wrk: how many redirects per second a server sends, and how long each takes."""

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
"""Enough for the server never to wait for a request, and few enough not to measure a queue."""


RESPONSE_TIMEOUT_S = 30
"""wrk counts later responses as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The result of one run, in which every response was a redirect."""

    per_s: float
    p50_ms: float
    p99_ms: float


class NoRedirect(Exception):
    """The server sent something other than a redirect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Request targets in ``file``, to send to ``base`` in order."""

    base: str
    file: Path

    @classmethod
    def write(cls, folder: Path, urls: Sequence[str]) -> "Targets":
        """Write the targets of *urls*, all of one server, into a new file in *folder*."""
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
    """Send requests for so many seconds or, with *once*, until each target was requested.

    Each connection pauses for *pause_ms* before its next request.

    Raises:
        NoRedirect: A response was not a redirect, or is missing.
    """
    command: list[str | Path] = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--timeout", f"{RESPONSE_TIMEOUT_S}s"]
    command += ["--duration", f"{TIMEOUT_S if once else seconds:.0f}s", "--script", SCRIPT]
    command += [targets.base, "--", targets.file, "once" if once else "always", str(pause_ms)]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    counts = json.loads(ended.stdout.splitlines()[-1])
    if counts["others"] or counts["lost"] or not counts["answers"]:
        raise NoRedirect(f"not every response of {targets.base} is a redirect: {counts}")
    return Answers(
        per_s=counts["answers"] / counts["duration_s"],
        p50_ms=counts["p50_ms"],
        p99_ms=counts["p99_ms"],
    )
