"""How long do fsck, gc and list take, and how much memory? With 1,000 and 100,000 archives."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.seeding import seed, seed_buckets
from tests.parts.s3 import Home, running_weed
from tests.system.stack import Stack

SIZES, QUICK_SIZES = (1_000, 100_000), (200, 2_000)
COMMANDS = ("fsck", "gc", "list")
RETENTION = {"ARCHIVER_RETENTION__DAYS": "30"}
"""A usual run, of which nothing expires: the buckets are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command that is measured in *folder*. ``peak_mb`` has one entry per round."""

    command: str
    env: Mapping[str, str]
    folder: Path
    peak_mb: list[float] = field(default_factory=list)

    def seconds(self, *words: str) -> float:
        """Return how long the command takes, until it ends with 0."""
        with (self.folder / "out").open("wb") as out:
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "archiver", self.command, "--json", *words],
                env={**os.environ, **self.env},
                cwd=self.folder,
                stdout=out,
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self.command)
        self.peak_mb.append(used.ru_maxrss / 1000)
        return time.monotonic() - started


def measure(lab: Lab) -> list[Table]:
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        host = stack.enter_context(lab.host())
        folder = lab.folder / "weed"
        folder.mkdir()
        weed = stack.enter_context(running_weed(folder))
        for count in QUICK_SIZES if lab.inputs.quick else SIZES:
            home, servers = weed.make_home(), stack.enter_context(lab.servers(host))
            seed(servers, count, seed_buckets(home.buckets(), count))
            env = _settings(servers, home)
            for command in COMMANDS:
                runs[f"{command}, {count:,} archives"] = Run(
                    command=command, env=env, folder=lab.folder
                )
        contestants: dict[str, Contestant] = {what: run.seconds for what, run in runs.items()}
        taken = race(contestants, rounds=lab.rounds)
    return [
        _table("time", "s", taken),
        _table("peak memory", "MB", {what: run.peak_mb for what, run in runs.items()}),
    ]


def _settings(servers: Stack, home: Home) -> dict[str, str]:
    regions = {
        name: {
            "bucket": bucket,
            "endpoint": home.server.endpoint,
            "access_key_id": home.server.access_key,
            "secret_access_key": home.server.secret_key,
        }
        for name, bucket in home.names.items()
    }
    return {**servers.env, **RETENTION, "ARCHIVER_REGIONS": json.dumps(regions)}


def _table(title: str, unit: str, samples: Mapping[str, Sequence[float]]) -> Table:
    rows = [Row(what=what, samples=values) for what, values in samples.items()]
    return Table(title=title, unit=unit, rows=rows)
