"""The steps of a build from a git host, each alone in a process of its own."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.git_repository import GitRepository
from benchmarks.git_serving import GitServer
from benchmarks.inputs import Input
from benchmarks.programs import TIMEOUT_S
from benchmarks.race import Contestant, Row, Table
from benchmarks.rivals import upload_alone
from tests.system.stack import Stack

SUFFIXES = ("tar.gz", "tar.zst")
FETCH_FIRST, FETCH_NEXT = "fetching the first commit", "fetching the next commit"
ARCHIVE = "`git archive`"
REPACK = "reading the tar and writing it again"
UPLOAD = "uploading the tar.gz, regions on these cores"

WITHOUT, WITH = "build without the proof", "build with the proof"
PROOF_GOAL = "≤ 1.1"
PROVE = {WITHOUT: "ignore", WITH: "prove"}


@dataclass(kw_only=True)
class Steps:
    """Runs steps for one repository; ``cpu_s`` has their CPU time, one value for each run.

    ``folder`` is for mirrors and archives.
    """

    server: GitServer
    repository: GitRepository
    folder: Path
    cpu_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def prepare(self) -> None:
        """Make what the steps need: a mirror, a tar and archives of it."""
        self.folder.mkdir()
        self._repo = self.server.new_repo()
        self._node = self.repository.nodes[0]
        self._build(PROVE[WITH])  # the mirror offers only commits that were archived
        self._archive("", self._tar)
        for suffix in SUFFIXES:
            self._run("", "compress", suffix, self._tar, self._made(suffix))

    def contestants(self, stack: Stack) -> Mapping[str, Contestant]:
        """Return the steps, which measure wall time. *stack* has the regions for the upload."""
        steps: dict[str, Callable[[str], float]] = {
            FETCH_FIRST: self._fetch_first,
            FETCH_NEXT: self._fetch_next,
            ARCHIVE: partial(self._archive, target=os.devnull),
            REPACK: lambda name: self._run(name, "repack", self._repo, self._node, self._tar),
        }
        for suffix in SUFFIXES:
            steps[f"compressing to {suffix}"] = partial(self._compress, suffix)
            steps[f"verifying the {suffix}"] = partial(self._verify, suffix)
        made = Input(name="made", pieces=(Path(self._made("tar.gz")),))
        steps[UPLOAD] = lambda _: upload_alone(made, stack)
        return {name: partial(step, name) for name, step in steps.items()}

    def builds(self) -> Mapping[str, Contestant]:
        """Return builds to nowhere, with and without the proof, which measure CPU time."""
        return {name: partial(self._build, proof) for name, proof in PROVE.items()}

    def tables(self, taken: Mapping[str, list[float]]) -> list[Table]:
        wall = [Row(what=what, samples=samples) for what, samples in taken.items()]
        cpu = [Row(what=what, samples=samples) for what, samples in self.cpu_s.items() if what]
        return [
            Table(title="Wall time of each step alone", unit="s", rows=wall, digits=2),
            Table(title="CPU time of each step alone", unit="s", rows=cpu, digits=2),
        ]

    def proof_table(self, taken: Mapping[str, list[float]]) -> Table:
        rows = [
            Row(what=what, samples=taken[what], goal=PROOF_GOAL if what == WITH else "")
            for what in PROVE
        ]
        return Table(title="CPU time", unit="s", rows=rows, base=WITHOUT, digits=2)

    def history(self, repository: GitRepository) -> dict[str, float]:
        """Fetch all commits of *repository*, which the host must serve, in turn."""
        listed = self.folder / "nodes"
        listed.write_text("\n".join(repository.nodes))
        repo = f"history/{repository.path.stem}"
        return _run("history", self.server.template, str(self.folder), repo, str(listed))

    def _made(self, suffix: str) -> str:
        return str(self.folder / f"made.{suffix}")

    @property
    def _tar(self) -> str:
        return self._made("tar")

    def _at(self, node: str, repo: str = "") -> tuple[str, ...]:
        return self.server.template, str(self.folder), repo or self._repo, node

    def _fetch_first(self, name: str) -> float:
        return self._run(name, "fetch", *self._at(self._node, self.server.new_repo()))

    def _fetch_next(self, name: str) -> float:
        nodes = self.repository.nodes
        return self._run(name, "fetch", *self._at(nodes[next(self._numbers) % len(nodes)]))

    def _archive(self, name: str, target: str) -> float:
        git_dir = str(self.repository.path)
        return self._run(name, "archive", git_dir, self._repo, self._node, target)

    def _compress(self, suffix: str, name: str) -> float:
        return self._run(name, "compress", suffix, self._tar, os.devnull)

    def _verify(self, suffix: str, name: str) -> float:
        made = self._made(suffix)
        return self._run(name, "verify", *self._at(self._node), suffix, made, PROVE[WITH])

    def _build(self, proof: str) -> float:
        return _run("build", *self._at(self._node), "tar.gz", proof)["cpu_s"]

    def _run(self, name: str, step: str, *words: str) -> float:
        measured = _run(step, *words)
        self.cpu_s[name].append(measured["cpu_s"])
        return measured["wall_s"]


def _run(step: str, *words: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.git_alone", step, *words]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    measured: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return measured
