"""Faults of processes: web, worker, conversion and git."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.faults.fleet import WEBS, WORKERS
from tests.faults.fleet_settings import LEASE_S
from tests.faults.kinds import NOTHING, Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.faults.programs import Program, send
from tests.parts.process import descendants, wait_until
from tests.parts.stopping_git import state

BUILD_POINTS = (
    *("acceptance", "fetch", "stream", "upload", "completion"),
    *("commit in us-east-1", "commit in us-west-2", RANDOM),
)
"""The points of a build, in their order."""

PAST_LEASE_S = (LEASE_S + 0.5, LEASE_S + 2.5)

CHILD_WAIT_S = 8.0
DRAIN_S = 15.0

Find = Callable[[Scene], int]
"""Returns a process to strike, or 0 as long as there is none."""


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
def _drain_worker(scene: Scene) -> Iterator[str]:
    """Have a worker finish what it has, as an upgrade does: nothing of it is fetched again."""
    worker = _worker(scene)
    name = f"{socket.gethostname()}:{worker.pid}"
    command = [sys.executable, "-m", "archiver", "drain", name, "--no-wait", "--quiet"]
    env = {**os.environ, **scene.fleet.env}
    drained = subprocess.run(command, env=env, capture_output=True, check=False)
    yield worker.name if drained.returncode == 0 else NOTHING
    with suppress(AssertionError):
        wait_until(lambda: not worker.is_running, timeout_s=DRAIN_S)
    worker.terminate()
    worker.up()


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


def _late_git(scene: Scene) -> int:
    """Return a git that stops although the fault has given it up. It may have been killed."""
    file = scene.fleet.stopping_git.folder / "stopped"
    with suppress(AssertionError):
        wait_until(file.exists, timeout_s=CHILD_WAIT_S)
        wait_until(lambda: state(int(file.read_text())) in {"T", ""}, timeout_s=CHILD_WAIT_S)
        return int(file.read_text())
    return 0


def _strike(find: Find, number: signal.Signals) -> Callable[[Scene], Iterator[str]]:
    """Return a fault that signals a process once *find* has it."""

    def strike(scene: Scene) -> Iterator[str]:
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
        if find is _git and not git.stop_no_more(scene.target) and not hit:
            pid = _late_git(scene)
        (git.folder / "stopped").unlink(missing_ok=True)
        if pid:
            send(pid, signal.SIGCONT)

    return strike


PROCESS_KINDS = Catalogue()
_WORKERS = tuple(map(str, range(WORKERS)))
_WEBS = tuple(map(str, range(WEBS)))

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
        name="worker-drained",
        part="worker",
        begin=_drain_worker,
        targets=_WORKERS,
        moments=BUILD_POINTS,
        needs=("large", "announced"),
        excuses=False,
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
):
    PROCESS_KINDS.add(_kind)
