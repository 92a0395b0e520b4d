"""How long does it take to make a tar.gz or a tar.zst of a zip? Of all of Linux, on all cores."""

import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.programs import TIMEOUT_S, need, run
from benchmarks.race import Row, Table, race
from benchmarks.repository import Repository
from benchmarks.rivals import download

HGWEB = "hgweb, making its zip"
PACKERS = {"tar.gz": "pigz", "tar.zst": "zstd -T2 --quiet"}


def measure(lab: Lab) -> list[Table]:
    need("curl", "unzip", "tar", "pigz", "zstd")
    repository = Repository(lab.inputs)
    given = lab.folder / "given.zip"
    folder = lab.folder / "unzipped"
    with repository.served(lab.folder / "hgweb.log") as url:
        contestants = {HGWEB: partial(download, url, given)}
        for suffix in PACKERS:
            target = lab.folder / f"made.{suffix}"
            contestants[_archiver(suffix)] = partial(
                _convert, given, repository.node, suffix, target
            )
            contestants[_pipe(suffix)] = partial(_unpack_and_pack, given, folder, suffix, target)

        def tidy() -> None:
            shutil.rmtree(folder, ignore_errors=True)

        taken = race(contestants, rounds=lab.rounds, tidy=tidy)
    return [
        Table(unit="s", rows=[Row(what=what, samples=s) for what, s in taken.items()], digits=2),
        *(_ratios(suffix, taken) for suffix in PACKERS),
    ]


def _archiver(suffix: str) -> str:
    return f"**Archiver**, zip → {suffix}"


def _pipe(suffix: str) -> str:
    return f"`unzip`, then `tar \\| {PACKERS[suffix]}`"


def _ratios(suffix: str, taken: dict[str, list[float]]) -> Table:
    """Return how many times as long the others take."""
    goals = {_pipe(suffix): "> 1", HGWEB: "> 10"}
    names = (_archiver(suffix), *goals)
    rows = [Row(what=name, samples=taken[name], goal=goals.get(name, "")) for name in names]
    return Table(title=suffix, unit="s", rows=rows, base=_archiver(suffix), digits=2)


def _convert(given: Path, node: str, suffix: str, target: Path) -> float:
    words = map(str, (given, node, suffix, target))
    command = [sys.executable, "-m", "benchmarks.converting", *words]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    return float(ended.stdout)


def _unpack_and_pack(given: Path, folder: Path, suffix: str, target: Path) -> float:
    """Take the zip apart on the disk, and pack what lies there then."""
    taken = run(["unzip", "-q", given, "-d", folder])
    pack = f"tar --create --directory {shlex.quote(str(folder))} . | {PACKERS[suffix]}"
    return taken + run(["bash", "-o", "pipefail", "-c", f"{pack} > {shlex.quote(str(target))}"])
