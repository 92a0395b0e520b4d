"""How soon is an archive with submodules and LFS files available? Against cloning and packing."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.inputs import MB
from benchmarks.lab import Installation, Lab, next_run
from benchmarks.process import Peaks, sampling
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.superproject import PROJECT, Recipe, Superproject
from benchmarks.superproject_clones import Clones
from tests.parts.git_host import GitHost, serving_git
from tests.parts.lfs_host import API

LINUX = Recipe(
    name="linux",
    depth=2,
    submodules=30,
    folder_bytes=30 * MB,
    own_bytes=100 * MB,
    lfs_files=500,
    lfs_bytes=100 * MB,
    lfs_submodules=10,
    commits=40,
)
QUICK = Recipe(
    name="library",
    depth=1,
    submodules=4,
    folder_bytes=1 * MB,
    own_bytes=1 * MB,
    lfs_files=20,
    lfs_bytes=1 * MB,
    lfs_submodules=2,
    commits=5,
)

WAIT_S = 72
"""The longest wait that Archiver accepts."""

AWAY, HERE = "regions far away", "regions on these cores"
NEXT = "**Archiver**, the next commit"
NEW = "a new shallow clone, then `tar \\| gzip`"
REFERENCE = "a shallow clone with `--reference`, then `tar \\| gzip`"
UPDATE = "`git pull` and `git submodule update` of a full clone"
FIRST = "**Archiver**, the first commit, in a new worker"
GOAL, BYTES_GOAL = "≤ 0.5", "≤ 1.1"
TOGETHER = "the worker and its children"


def measure(lab: Lab) -> list[Table]:
    superproject = Superproject(lab.inputs, QUICK if lab.inputs.quick else LINUX)
    with ExitStack() as stack:
        host = stack.enter_context(serving_git(superproject.folder))
        clones = Clones(superproject, host, lab.folder / "clones")
        clones.prepare()
        regions = stack.enter_context(lab.faraway())
        first_s, peaks = _sampled(lab, host, superproject, regions)
        sent = _Sent(host)
        contestants: dict[str, Contestant] = {
            NEW: sent.counted(NEW, clones.pack_new),
            REFERENCE: sent.counted(REFERENCE, clones.pack_with_reference),
        }
        builders = {
            where: stack.enter_context(_builder(lab, host, superproject, settings))
            for where, settings in {AWAY: regions, HERE: {}}.items()
        }
        for where, builder in builders.items():
            builder.build(0)
            what = f"{NEXT}, {where}"
            contestants[what] = sent.counted(what, builder.build)
        contestants[UPDATE] = sent.counted(UPDATE, clones.update)
        taken = race(contestants, rounds=lab.rounds, tidy=builders[HERE].archiver.empty)
    return [
        _duration_table(taken),
        *sent.tables(),
        Table(unit="s", rows=[Row(what=FIRST, samples=[first_s])], digits=2),
        _memory_table(peaks),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Requests complete archives from an installation."""

    superproject: Superproject
    archiver: Installation

    def build(self, number: int) -> float:
        """Return the seconds from the request for a commit to the redirect to a region."""
        query = f"suffix=tar.gz&submodules=1&lfs=1&wait={WAIT_S}"
        return self.archiver.redirect(PROJECT, self.superproject.show(number), query)


@contextmanager
def _builder(
    lab: Lab, host: GitHost, superproject: Superproject, regions: Mapping[str, str]
) -> Iterator[_Builder]:
    """Yield a builder, whose worker has no mirrors yet."""
    settings = {
        **regions,
        "ARCHIVER_SOURCES__HGMO__KIND": "git",
        "ARCHIVER_WORKER__MIRROR_DIR": str(lab.folder / f"mirrors-{next_run()}"),
    }
    with lab.installation(host, settings) as archiver:
        yield _Builder(superproject=superproject, archiver=archiver)


def _sampled(
    lab: Lab, host: GitHost, superproject: Superproject, regions: Mapping[str, str]
) -> tuple[float, Peaks]:
    """Return the seconds of the first build in a new worker, and the peaks of the next one.

    The worker's own peak is that of both. These are the last commits, which no other run builds.
    """
    with _builder(lab, host, superproject, regions) as builder:
        first_s = builder.build(-2)
        with sampling(builder.archiver.worker) as peaks:
            builder.build(-1)
    return first_s, peaks


@dataclass(slots=True)
class _Sent:
    """Counts what *host* sends to each contestant, in kB: git's responses, and LFS files."""

    host: GitHost
    git: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lfs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def counted(self, what: str, run: Callable[[int], float]) -> Contestant:
        """Return a contestant that runs for the next commit each time, after the first one."""
        return partial(self._run, what, run)

    def _run(self, what: str, run: Callable[[int], float]) -> float:
        self.host.requests.clear()
        self.host.lfs.requests.clear()
        taken = run(len(self.git[what]) + 1)
        self.git[what].append(sum(each.sent_bytes for each in self.host.requests) / 1000)
        files = [self._lfs_file(each.target) for each in self.host.lfs.downloads]
        self.lfs[what].append(sum(file.stat().st_size for file in files) / 1000)
        return taken

    def _lfs_file(self, target: str) -> Path:
        repo, _, place = target.removeprefix("/").partition(API)
        return self.host.lfs.path(repo, Path(place).name)

    def tables(self) -> list[Table]:
        """Return tables with ratios to what receives only what has changed.

        The clone that is kept has the LFS files of those that refer to it.
        """
        lfs = {what: sent for what, sent in self.lfs.items() if what != UPDATE}
        return [
            _bytes_table("Git's bytes on the wire", self.git, base=UPDATE),
            _bytes_table("Bytes of LFS files on the wire", lfs, base=REFERENCE),
        ]


def _duration_table(taken: Mapping[str, list[float]]) -> Table:
    base = min((NEW, REFERENCE), key=lambda what: median(taken[what]))
    rows = [
        Row(what=what, samples=samples, goal=GOAL if what.startswith(NEXT) else "")
        for what, samples in taken.items()
    ]
    return Table(unit="s", rows=rows, base=base, digits=2)


def _bytes_table(title: str, sent: Mapping[str, list[float]], *, base: str) -> Table:
    rows = [
        Row(what=what, samples=samples, goal=BYTES_GOAL if what.startswith(NEXT) else "")
        for what, samples in sent.items()
    ]
    return Table(title=title, unit="kB", rows=rows, base=base)


def _memory_table(peaks: Peaks) -> Table:
    values = {TOGETHER: peaks.together_mb}
    values |= {f"`{name}`": peaks.by_program[name] for name in sorted(peaks.by_program)}
    rows = [Row(what=what, samples=[value]) for what, value in values.items()]
    return Table(title="Peak memory of the next commit", unit="MB", rows=rows, digits=0)
