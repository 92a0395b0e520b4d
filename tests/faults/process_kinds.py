"""Faults of processes: web, worker, conversion, git, and the servers of the engine."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.fleet import LEASE_S, WEBS, WORKERS
from tests.faults.kinds import NOTHING, Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.faults.programs import Program, send
from tests.parts.nats_cluster import SIZE
from tests.parts.process import descendants
from tests.parts.stopping_git import state

BUILD_POINTS = (
    *("acceptance", "fetch", "stream", "upload", "completion"),
    *("commit in us-east-1", "commit in us-west-2", RANDOM),
)
"""The points of a build, in their order."""

PAST_LEASE_S = (LEASE_S + 0.5, LEASE_S + 2.5)

CHILD_WAIT_S = 8.0

Struck = Iterator[str]


@contextmanager
def _kill_worker(scene: Scene) -> Iterator[str]:
    worker = _worker(scene)
    worker.kill()
    yield worker.name
    worker.up()


@contextmanager
def _freeze_worker(scene: Scene) -> Iterator[str]:
    worker = _worker(scene)
    with worker.frozen():
        yield worker.name


@contextmanager
def _stop_worker(scene: Scene) -> Iterator[str]:
    worker = _worker(scene)
    worker.terminate()
    yield worker.name
    worker.up()


def _worker(scene: Scene) -> Program:
    """Return the worker that is at the moment, else one by chance."""
    return scene.fleet.worker_at(scene.moment.peer, scene.number)


@contextmanager
def _kill_all_workers(scene: Scene) -> Iterator[str]:
    for worker in scene.fleet.workers:
        worker.kill()
    yield "every worker"
    for worker in scene.fleet.workers:
        worker.launch()


@contextmanager
def _kill_web(scene: Scene) -> Iterator[str]:
    web = scene.fleet.webs[scene.number % WEBS]
    web.kill()
    yield web.name
    web.up()


@contextmanager
def _freeze_web(scene: Scene) -> Iterator[str]:
    web = scene.fleet.webs[scene.number % WEBS]
    with web.frozen():
        yield web.name


@contextmanager
def _stop_web(scene: Scene) -> Iterator[str]:
    web = scene.fleet.webs[scene.number % WEBS]
    web.terminate()
    yield web.name
    web.up()


def _conversion(_scene: Scene) -> int:
    for pid, command in descendants(os.getpid()).items():
        if "archiver.formats.conversion" in command:
            return pid
    return 0


def _git(scene: Scene) -> int:
    """Return a git that has stopped itself before the command that is the target."""
    file = scene.fleet.stopping_git.folder / "stopped"
    pid = int(file.read_text()) if file.exists() else 0
    return pid if pid and state(pid) == "T" else 0


def _strike(find: Callable[[Scene], int], number: signal.Signals) -> Callable[[Scene], Struck]:
    """Return a fault that signals a process once *find* has it."""

    def strike(scene: Scene) -> Struck:
        git = scene.fleet.stopping_git
        if find is _git:
            git.stop_at(scene.target)
        deadline, pid = time.monotonic() + CHILD_WAIT_S, 0
        while not pid and time.monotonic() < deadline:
            pid = find(scene)
        hit = bool(pid) and send(pid, number)
        if hit and number is signal.SIGTERM:
            send(pid, signal.SIGCONT)  # a stopped process does not end
        yield f"process {pid}" if hit else NOTHING
        for each in ("stopped", f"stop-at-{scene.target}"):
            (git.folder / each).unlink(missing_ok=True)
        if hit:
            send(pid, signal.SIGCONT)

    return strike


@contextmanager
def _kill_servers(scene: Scene) -> Iterator[str]:
    numbers = _servers(scene)
    scene.fleet.engine.kill(numbers)
    yield _named(numbers)
    scene.fleet.engine.mend()


@contextmanager
def _stop_servers(scene: Scene) -> Iterator[str]:
    numbers = _servers(scene)
    scene.fleet.engine.stop(numbers)
    yield _named(numbers)
    scene.fleet.engine.mend()


@contextmanager
def _freeze_servers(scene: Scene) -> Iterator[str]:
    numbers = _servers(scene)
    with scene.fleet.engine.frozen(numbers):
        yield _named(numbers)


@contextmanager
def _wipe_servers(scene: Scene) -> Iterator[str]:
    numbers = _servers(scene)
    scene.fleet.engine.wipe(numbers)
    yield _named(numbers)
    scene.fleet.engine.mend()


@contextmanager
def _fill_queue(scene: Scene) -> Iterator[str]:
    with scene.fleet.engine.full():
        yield "the stream of tasks"


def _servers(scene: Scene) -> list[int]:
    """Return the servers that the target names: the leader, a follower, two, or all."""
    leader = scene.fleet.engine.leader()
    first = scene.fault.number % SIZE if leader is None else leader
    followers = [number for number in range(SIZE) if number != first]
    return {
        "leader": [first],
        "follower": followers[:1],
        "two": [first, followers[0]],
        "all": [first, *followers],
    }[scene.target]


def _named(numbers: list[int]) -> str:
    return "server " + ", ".join(map(str, numbers))


PROCESS_KINDS = Catalogue()
_WORKERS = tuple(map(str, range(WORKERS)))
_WEBS = tuple(map(str, range(WEBS)))
_ENGINE_POINTS = ("acceptance", "stream", "commit", RANDOM)

for _kind in (
    Kind(
        name="worker-killed",
        part="worker",
        begin=_kill_worker,
        targets=_WORKERS,
        moments=BUILD_POINTS,
        needs=("large",),
    ),
    Kind(
        name="worker-frozen",
        part="worker",
        begin=_freeze_worker,
        targets=_WORKERS,
        moments=BUILD_POINTS,
        hold_s=PAST_LEASE_S,
        needs=("large",),
    ),
    Kind(
        name="worker-stopped",
        part="worker",
        begin=_stop_worker,
        targets=_WORKERS,
        moments=BUILD_POINTS,
        needs=("large",),
    ),
    Kind(
        name="workers-killed",
        part="worker",
        begin=_kill_all_workers,
        moments=BUILD_POINTS,
        needs=("large",),
    ),
    Kind(
        name="web-killed",
        part="web",
        begin=_kill_web,
        targets=_WEBS,
        moments=("acceptance", "fetch", RANDOM),
        excuses=False,
    ),
    Kind(
        name="web-frozen",
        part="web",
        begin=_freeze_web,
        targets=_WEBS,
        moments=("acceptance", RANDOM),
        excuses=False,
    ),
    Kind(
        name="web-stopped",
        part="web",
        begin=_stop_web,
        targets=_WEBS,
        moments=("acceptance", RANDOM),
        excuses=False,
    ),
    *(
        Kind(
            name=f"{what}-{how}",
            part="child",
            begin=contextmanager(_strike(find, number)),
            targets=targets,
            needs=(what,),
        )
        for what, find, targets in (
            ("conversion", _conversion, ("",)),
            ("git", _git, ("archive", "index-pack", "cat-file")),
        )
        for how, number in (
            ("killed", signal.SIGKILL),
            ("frozen", signal.SIGSTOP),
            ("terminated", signal.SIGTERM),
        )
    ),
    Kind(
        name="engine-killed",
        part="engine",
        begin=_kill_servers,
        targets=("leader", "follower", "two", "all"),
        moments=_ENGINE_POINTS,
    ),
    Kind(
        name="engine-frozen",
        part="engine",
        begin=_freeze_servers,
        targets=("leader", "follower", "two", "all"),
        moments=_ENGINE_POINTS,
        hold_s=(0.5, 4.0),
    ),
    Kind(
        name="engine-stopped",
        part="engine",
        begin=_stop_servers,
        targets=("leader", "follower"),
        moments=_ENGINE_POINTS,
    ),
    Kind(
        name="engine-server-wiped",
        part="engine",
        begin=_wipe_servers,
        targets=("leader", "follower"),
        moments=_ENGINE_POINTS,
    ),
    Kind(
        name="engine-wiped",
        part="engine",
        begin=_wipe_servers,
        targets=("all",),
        moments=_ENGINE_POINTS,
        alone=True,
    ),
    Kind(name="queue-full", part="engine", begin=_fill_queue, excuses=False),
):
    PROCESS_KINDS.add(_kind)
