"""How long does the conversion of a zip to a tar.gz or a tar.zst take? Real trees, all cores."""

import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.programs import TIMEOUT_S, need, run
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.repository import Repository
from benchmarks.rivals import download
from benchmarks.trees import GCC, LINUX, Tree

HGWEB = "hgweb, making its zip"
PACKERS = {"tar.gz": "pigz", "tar.zst": "zstd -T2 --quiet"}


def measure(lab: Lab) -> list[Table]:
    need("curl", "unzip", "tar", "pigz", "zstd")
    unzipped = lab.folder / "unzipped"
    contestants: dict[str, Contestant] = {}
    with ExitStack() as stack:
        for tree in (LINUX, GCC):
            repository = Repository(lab.inputs, tree)
            url = stack.enter_context(repository.served(lab.folder / f"{tree.name}.log"))
            for what, run_once in _contestants(lab.folder, tree, repository.node, url).items():
                contestants[_of(tree, what)] = run_once
        taken = race(
            contestants,
            rounds=lab.rounds,
            tidy=partial(shutil.rmtree, unzipped, ignore_errors=True),
        )
    return [_ratios(tree, suffix, taken) for tree in (LINUX, GCC) for suffix in PACKERS]


def _contestants(folder: Path, tree: Tree, node: str, url: str) -> dict[str, Contestant]:
    """Return the contestants for *tree*, hgweb first, because the others need its zip."""
    given = folder / f"{tree.name}.zip"
    contestants: dict[str, Contestant] = {HGWEB: partial(download, url, given)}
    for suffix in PACKERS:
        target = folder / f"made.{suffix}"
        contestants[_archiver(suffix)] = partial(_convert, given, tree.name, node, suffix, target)
        contestants[_pipe(suffix)] = partial(
            _unpack_and_pack, given, folder / "unzipped", suffix, target
        )
    return contestants


def _of(tree: Tree, what: str) -> str:
    return f"{tree.name}: {what}"


def _archiver(suffix: str) -> str:
    return f"**Archiver**, zip → {suffix}"


def _pipe(suffix: str) -> str:
    return f"`unzip`, then `tar \\| {PACKERS[suffix]}`"


def _ratios(tree: Tree, suffix: str, taken: dict[str, list[float]]) -> Table:
    """Return the table of durations and of ratios to Archiver's."""
    goals = {_pipe(suffix): "> 1", HGWEB: "> 10"}
    rows = [
        Row(what=what, samples=taken[_of(tree, what)], goal=goals.get(what, ""))
        for what in (_archiver(suffix), *goals)
    ]
    return Table(title=tree.title, unit="s", rows=rows, base=_archiver(suffix), digits=2)


def _convert(given: Path, name: str, node: str, suffix: str, target: Path) -> float:
    words = map(str, (given, name, node, suffix, target))
    command = [sys.executable, "-m", "benchmarks.converting", *words]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    return float(ended.stdout)


def _unpack_and_pack(given: Path, folder: Path, suffix: str, target: Path) -> float:
    """Unpack the zip to the disk, then pack the files."""
    taken = run(["unzip", "-q", given, "-d", folder])
    pack = f"tar --create --directory {shlex.quote(str(folder))} . | {PACKERS[suffix]}"
    return taken + run(["bash", "-o", "pipefail", "-c", f"{pack} > {shlex.quote(str(target))}"])
