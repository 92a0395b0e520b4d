"""How long does archiver get take, compared with curl, aria2 and tar? From S3 on loopback."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.inputs import NODE
from benchmarks.lab import Installation, Lab, new_repo
from benchmarks.programs import need
from benchmarks.race import Contestant, Row, Table, race
from tests.system.client import fetch

CURL, ARIA2, GET = "curl, sha256sum", "aria2, sha256sum", "archiver get"
CURL_TAR, GET_EXTRACT = "curl, sha256sum, tar x", "archiver get --extract"
GOAL, EXTRACTION_GOAL, START_GOAL = "≤ 1.05", "≤ 0.9", "< 0.25"

DOWNLOADED = {
    CURL: "curl -sSfL -o file '{url}' && echo '{sha256}  file' | sha256sum --check --quiet",
    ARIA2: "aria2c -q -x4 -s4 -o file '{url}' && echo '{sha256}  file' | sha256sum --check --quiet",
    GET: "{archiver} get {words} -o file",
}
EXTRACTED = {
    CURL_TAR: f"{DOWNLOADED[CURL]} && mkdir tree && tar -xzf file -C tree",
    GET_EXTRACT: "{archiver} get {words} --extract tree",
}
STARTED = {
    "curl --version": "curl --version",
    "archiver get --help": "{archiver} get --help",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A shell command, run in an empty *folder*. ``peak_mb`` has one entry per round."""

    text: str
    folder: Path
    peak_mb: list[float] = field(default_factory=list)

    def seconds(self) -> float:
        """Return how long the command takes, until it ends with 0."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        started = time.monotonic()
        process = subprocess.Popen(
            ["/bin/sh", "-c", self.text], cwd=self.folder, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        duration_s = time.monotonic() - started
        shutil.rmtree(self.folder)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self.text)
        self.peak_mb.append(used.ru_maxrss / 1000)
        return duration_s


def measure(lab: Lab) -> list[Table]:
    need("curl", "aria2c", "tar")
    large, tree = lab.inputs.get("1GB"), lab.inputs.get("100MB")
    with ExitStack() as stack:
        host = stack.enter_context(lab.host(large, tree))
        archiver = stack.enter_context(lab.installation(host))
        stored = {}
        for archive in (large, tree):
            repo = new_repo(archive)
            stored[archive.name] = _values(archiver, repo)
        tables = []
        for title, commands, values, base, goal in (
            (f"{large.size_bytes / 1e9:.2f} GB", DOWNLOADED, stored[large.name], CURL, GOAL),
            ("Linux, 800 MB in files", EXTRACTED, stored[tree.name], CURL_TAR, EXTRACTION_GOAL),
        ):
            tables += _race(lab, title, commands, values, base, goal)
        started = _commands(lab, STARTED, stored[tree.name])
        taken = race(_contestants(started), rounds=lab.rounds)
    rows = [Row(what=what, samples=s, goal=START_GOAL) for what, s in taken.items()]
    return [*tables, Table(title="start", unit="s", rows=rows, digits=2)]


def _values(archiver: Installation, repo: str) -> Mapping[str, str]:
    """Have the archive of *repo* built; return what the commands need to know of it."""
    url = archiver.url(repo)
    while not (sha256 := fetch(url).headers["Archiver-SHA256"]):
        time.sleep(0.1)
    server = url.partition("/archiver/")[0]
    return {
        "url": url,
        "sha256": sha256,
        "archiver": f"{sys.executable} -m archiver",
        "words": f"hgmo {repo} {NODE} --server {server}",
    }


def _race(
    lab: Lab,
    title: str,
    commands: Mapping[str, str],
    values: Mapping[str, str],
    base: str,
    goal: str,
) -> list[Table]:
    runs = _commands(lab, commands, values)
    taken = race(_contestants(runs), rounds=lab.rounds, tidy=os.sync)
    own = [what for what in commands if what.startswith("archiver")]
    rows = [
        Row(what=what, samples=samples, goal=goal if what in own else "")
        for what, samples in taken.items()
    ]
    memory = [Row(what=what, samples=runs[what].peak_mb) for what in own]
    return [
        Table(title=title, unit="s", rows=rows, base=base, digits=2),
        Table(title=f"{title}: peak memory", unit="MB", rows=memory),
    ]


def _commands(
    lab: Lab, commands: Mapping[str, str], values: Mapping[str, str]
) -> dict[str, Command]:
    return {
        what: Command(text=text.format(**values), folder=lab.folder / "downloads")
        for what, text in commands.items()
    }


def _contestants(commands: Mapping[str, Command]) -> dict[str, Contestant]:
    return {what: command.seconds for what, command in commands.items()}
