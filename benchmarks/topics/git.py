"""How soon is the archive of a git commit available? Linux from a git host, against its own."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.git_repository import GitRepository, Recipe
from benchmarks.git_serving import GitServer, serving
from benchmarks.git_steps import Steps
from benchmarks.inputs import MB
from benchmarks.lab import Installation, Lab, next_run
from benchmarks.process import Peaks, sampling
from benchmarks.programs import need
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.rivals import download
from tests.parts.process import wait_until

LINUX = Recipe(name="linux", tree_bytes=2_000 * MB, commits=200)
SMALL = Recipe(name="some-of-linux", tree_bytes=30 * MB, commits=1_000)
QUICK_LINUX = Recipe(name="linux", tree_bytes=2 * MB, commits=60)
QUICK_SMALL = Recipe(name="some-of-linux", tree_bytes=1 * MB, commits=40)

WAIT_S = 72
"""The longest wait that Archiver accepts."""

HOST = "the host's own tar.gz (`curl -o /dev/null`)"
AWAY, HERE = "regions far away", "regions on these cores"
FIRST, NEXT_GZ, NEXT_ZST = "first commit, tar.gz", "next commit, tar.gz", "next commit, tar.zst"
SUBDIR = "next commit, 1 % of the tree, tar.gz"
GOALS = {NEXT_GZ: "≤ 0.25", NEXT_ZST: "≤ 0.2", FIRST: "≤ 0.6"}
SUBDIR_GOAL, MEMORY_GOAL, BYTES_GOAL, GROWTH_GOAL = "≤ 1.5", "< 600", "≤ 0.01", "≤ 2"

MEMORY = "first and next commit, in a new worker"
TOGETHER = "the worker and its children"


def measure(lab: Lab) -> list[Table]:
    need("curl", "git")
    linux = GitRepository(lab.inputs, QUICK_LINUX if lab.inputs.quick else LINUX)
    small = GitRepository(lab.inputs, QUICK_SMALL if lab.inputs.quick else SMALL)
    with ExitStack() as stack:
        server = stack.enter_context(_host(lab, linux))
        regions = stack.enter_context(lab.faraway())
        builders = {
            where: stack.enter_context(_builder(lab, server, linux, settings))
            for where, settings in {AWAY: regions, HERE: {}}.items()
        }
        for builder in builders.values():
            builder.build(builder.repo, linux.nodes[0])
        steps = Steps(server=server, repository=linux, folder=lab.folder / "steps")
        steps.prepare()
        bytes_: dict[str, list[float]] = defaultdict(list)
        peaks: list[Peaks] = []
        contestants = _contestants(server, linux, builders, bytes_)
        alone, proofs = steps.contestants(builders[HERE].archiver.stack), steps.builds()
        taken = race(
            {
                **contestants,
                MEMORY: lambda: _sampled(lab, server, linux, regions, peaks),
                **alone,
                **proofs,
            },
            rounds=lab.rounds,
            tidy=builders[HERE].archiver.empty,
        )
        history = steps.history(small)
    return [
        *_duration_tables({what: taken[what] for what in contestants}),
        _bytes_table(bytes_),
        _memory_table(peaks),
        *steps.tables({what: taken[what] for what in alone}),
        steps.proof_table(taken),
        *_history_tables(history, len(small.nodes)),
    ]


@dataclass(kw_only=True)
class _Builder:
    """Requests archives from an installation. ``repo`` is the repository that it knows."""

    server: GitServer
    archiver: Installation
    linux: GitRepository
    repo: str
    _used: int = 0

    def build(self, repo: str, node: str, suffix: str = "tar.gz", subdir: str = "") -> float:
        """Return the seconds from the request for an archive to the redirect to a region."""
        query = f"suffix={suffix}&subdir={subdir}&wait={WAIT_S}"
        return self.archiver.redirect(repo, node, query)

    def build_first(self) -> float:
        return self.build(self.server.new_repo(), self.linux.nodes[0])

    def build_next(self, suffix: str = "tar.gz", subdir: str = "") -> float:
        self._used += 1
        return self.build(self.repo, self.linux.nodes[self._used], suffix, subdir)


@contextmanager
def _host(lab: Lab, linux: GitRepository) -> Iterator[GitServer]:
    folder = lab.folder / "host"
    folder.mkdir()
    with serving(linux, folder) as server:
        yield server


@contextmanager
def _builder(
    lab: Lab, server: GitServer, linux: GitRepository, regions: Mapping[str, str]
) -> Iterator[_Builder]:
    """Yield a builder, whose worker does not know the repository yet."""
    settings = {
        **regions,
        "ARCHIVER_SOURCES__HGMO__KIND": "git",
        "ARCHIVER_WORKER__MIRROR_DIR": str(lab.folder / f"mirrors-{next_run()}"),
    }
    with lab.installation(server, settings) as archiver:
        yield _Builder(server=server, archiver=archiver, linux=linux, repo=server.new_repo())


def _contestants(
    server: GitServer,
    linux: GitRepository,
    builders: Mapping[str, _Builder],
    bytes_: dict[str, list[float]],
) -> dict[str, Contestant]:
    def counted(what: str, path: str, run: Contestant) -> float:
        before = server.transferred(path)
        taken = run()
        wait_until(lambda: server.transferred(path) > before, what="a line in the host's log")
        bytes_[what].append((server.transferred(path) - before) / 1000)
        return taken

    away = builders[AWAY]
    contestants: dict[str, Contestant] = {
        HOST: partial(counted, HOST, "/cgit/", lambda: download(server.snapshot(linux.nodes[0]))),
        FIRST: away.build_first,
        SUBDIR: lambda: away.build_next(subdir=linux.subdir),
    }
    for where, builder in builders.items():
        contestants[f"{NEXT_GZ}, {where}"] = partial(
            counted, f"{NEXT_GZ}, {where}", f"/git/{builder.repo}.git", builder.build_next
        )
        contestants[f"{NEXT_ZST}, {where}"] = partial(builder.build_next, "tar.zst")
    return contestants


def _sampled(
    lab: Lab,
    server: GitServer,
    linux: GitRepository,
    regions: Mapping[str, str],
    peaks: list[Peaks],
) -> float:
    """Build in a new worker, because the peak of a process never goes down."""
    started = time.monotonic()
    with (
        _builder(lab, server, linux, regions) as builder,
        sampling(builder.archiver.worker) as sampled,
    ):
        builder.build(builder.repo, linux.nodes[0])
        builder.build_next()
    peaks.append(sampled)
    return time.monotonic() - started


def _duration_tables(taken: Mapping[str, list[float]]) -> list[Table]:
    def goal(what: str) -> str:
        return next((goal for name, goal in GOALS.items() if what.startswith(name)), "")

    rows = [Row(what=what, samples=s, goal=goal(what)) for what, s in taken.items()]
    subdir = Row(what=SUBDIR, samples=taken[SUBDIR], goal=SUBDIR_GOAL)
    compared = [row for row in rows if row.what != SUBDIR]
    return [
        Table(unit="s", rows=compared, base=HOST, digits=2),
        Table(unit="s", rows=[subdir], digits=2),
    ]


def _bytes_table(bytes_: Mapping[str, list[float]]) -> Table:
    rows = [
        Row(what=what, samples=samples, goal="" if what == HOST else BYTES_GOAL)
        for what, samples in bytes_.items()
    ]
    return Table(title="Bytes on the wire", unit="kB", rows=rows, base=HOST)


def _memory_table(peaks: list[Peaks]) -> Table:
    programs = sorted({name for each in peaks for name in each.by_program})
    rows = [
        Row(what=TOGETHER, samples=[each.together_mb for each in peaks], goal=MEMORY_GOAL),
        *(
            Row(what=f"`{name}`", samples=[each.by_program.get(name, 0) for each in peaks])
            for name in programs
        ),
    ]
    return Table(title=f"Peak memory: {MEMORY}", unit="MB", rows=rows, digits=0)


def _history_tables(history: Mapping[str, float], commits: int) -> list[Table]:
    """Return tables of one run."""
    begin, end = "at the beginning", "at the end"
    fresh, grown = "mirror with the last commit only", f"mirror after {commits:,} commits"
    milliseconds = {begin: 1000 * history["begin_s"], end: 1000 * history["end_s"]}
    megabytes = {fresh: history["fresh_bytes"] / MB, grown: history["mirror_bytes"] / MB}
    return [
        _growth(f"{commits:,} commits in turn: time of a fetch", "ms", milliseconds),
        _growth("Disk", "MB", megabytes),
    ]


def _growth(title: str, unit: str, values: Mapping[str, float]) -> Table:
    base, *_ = values
    rows = [
        Row(what=what, samples=[value], goal="" if what == base else GROWTH_GOAL)
        for what, value in values.items()
    ]
    return Table(title=title, unit=unit, rows=rows, base=base)
