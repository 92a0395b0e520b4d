"""Faults of machines: disks, file descriptors, names and clocks."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.fleet import WEBS
from tests.faults.fleet_settings import HOST_NAME, LEASE_S
from tests.faults.kinds import NOTHING, Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.faults.programs import Program

FILLER = "filler"
SPARE_FILES = 2
"""File descriptors that a process may still open."""

MINUTES = {"ahead": 15, "behind": -15}


@contextmanager
def _fill_disk(scene: Scene) -> Iterator[str]:
    """Leave nothing of the workers' disk."""
    disk = scene.fleet.disk
    filler = disk / FILLER
    size = 0
    if disk.is_mount():
        size = shutil.disk_usage(disk).free
        with suppress(OSError), filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    yield f"{size >> 20} MiB" if size else NOTHING
    filler.unlink(missing_ok=True)


@contextmanager
def _short_of_files(scene: Scene) -> Iterator[str]:
    """Leave a process few file descriptors beside those that are open."""
    program = _program(scene)
    pids = program.pids
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    for pid, (_, hard) in limits.items():
        opened = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
        _limit(pid, (opened + SPARE_FILES, hard))
    yield program.name
    for pid, limit in limits.items():
        _limit(pid, limit)


def _limit(pid: int, limit: tuple[int, int]) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def _program(scene: Scene) -> Program:
    if scene.target == "web":
        return scene.fleet.webs[scene.fault.number % WEBS]
    return scene.fleet.worker_at(scene.moment.peer, scene.fault.number)


@contextmanager
def _names_unknown(scene: Scene) -> Iterator[str]:
    hosts = scene.fleet.folder / "hosts"
    known = hosts.read_text()
    hosts.write_text("")
    yield HOST_NAME
    hosts.write_text(known)


def faketime() -> Path | None:
    """Return the library that changes the clock of a process, if it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@contextmanager
def _wrong_clock(scene: Scene) -> Iterator[str]:
    """Run a process again with a clock that is wrong by 15 minutes."""
    library = faketime()
    program = _program(scene)
    if library is None:
        yield NOTHING
        return
    program.terminate()
    program.launch(
        {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{MINUTES[scene.target]:+d}m",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )
    yield program.name
    program.terminate()
    program.up()


SHORTAGE_KINDS = Catalogue()

for _kind in (
    Kind(
        name="disk-full",
        part="disk",
        begin=_fill_disk,
        moments=("fetch", "stream", RANDOM),
        needs=("conversion", "git"),
    ),
    Kind(
        name="files-short",
        part="files",
        begin=_short_of_files,
        targets=("worker", "web"),
        moments=("acceptance", "fetch", RANDOM),
    ),
    Kind(
        name="names-unknown",
        part="names",
        begin=_names_unknown,
        moments=("acceptance", "fetch", RANDOM),
        needs=("named",),
    ),
    Kind(
        name="worker-clock-wrong",
        part="worker",
        begin=_wrong_clock,
        targets=tuple(MINUTES),
        hold_s=(LEASE_S, LEASE_S + 3),
    ),
):
    SHORTAGE_KINDS.add(_kind)
