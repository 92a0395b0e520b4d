"""Faults of the engine: its three servers, what they store, and a queue that is full."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.kinds import Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.parts.nats_cluster import SIZE


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


ENGINE_KINDS = Catalogue()
_ENGINE_POINTS = ("acceptance", "stream", "commit", RANDOM)

for _kind in (
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
    ENGINE_KINDS.add(_kind)
