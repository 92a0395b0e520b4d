"""The fleet: three NATS servers, two regions, two hosts, two web processes and three workers."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.engine import Engine
from tests.faults.fleet_settings import HOST_NAME, settings_of
from tests.faults.host import CampaignHost, campaign_host
from tests.faults.moments import Moments
from tests.faults.programs import Program, Spells, owner
from tests.faults.region import BUCKET, S3Region
from tests.parts.faulty_host import FaultyHost, faulty_host
from tests.parts.git_host import GitHost, serving_git
from tests.parts.nats_cluster import Cluster
from tests.parts.process import accepts, free_port
from tests.parts.s3_fault_proxy import sink
from tests.parts.stopping_git import StoppingGit
from tests.system.client import fetch
from tests.system.stack import REGIONS

WEBS = 2
WORKERS = 3
DISK_MB = 640
"""Of the workers' disk. Archiver leaves 256 MiB of it free, and needs 64 for a mirror."""


@dataclass(slots=True)
class Fleet:
    """All parts. ``token`` opens the private source; ``bases`` are the addresses of the web."""

    folder: Path
    engine: Engine
    regions: dict[str, S3Region]
    host: CampaignHost
    git: GitHost
    stopping_git: StoppingGit
    canary: FaultyHost
    moments: Moments
    spells: Spells
    token: str
    disk: Path
    webs: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self.workers if worker.is_running]

    def sender(self, port: int) -> int:
        """Return the worker that has this local port, or 0."""
        return owner(port, self.worker_pids)

    def worker_at(self, port: int, otherwise: int) -> Program:
        """Return the worker that has this local port, else the one with this number."""
        pid = self.sender(port) if port else 0
        for worker in self.workers:
            if pid and worker.pid == pid:
                return worker
        return self.workers[otherwise % WORKERS]

    def mend(self) -> None:
        """Start everything that does not run, and wait until all of it is ready."""
        self.engine.mend()
        for region in self.regions.values():
            region.program.up()
        programs = [*self.webs, *self.workers]
        for program in programs:
            program.launch()
        for program in programs:
            program.up()

    def logs(self) -> Iterator[Path]:
        for program in (*self.webs, *self.workers):
            yield program.log

    def add_programs(self) -> None:
        for number in range(WEBS):
            port = free_port()
            web = self._program("web", number, _web_is_up(port))
            web.env = {**self.env, "ARCHIVER_SERVER__LISTEN": f"127.0.0.1:{port}"}
            web.whole = True
            self.webs.append(web)
            self.bases.append(f"http://127.0.0.1:{port}")
        for number in range(WORKERS):
            worker = self._program("worker", number, lambda: True)
            worker.ready = partial(worker.has_logged, b'"worker.started"')
            self.workers.append(worker)

    def _program(self, kind: str, number: int, ready: Callable[[], bool]) -> Program:
        return Program(
            name=f"{kind} {number}",
            command=[sys.executable, "-m", "archiver", kind],
            log=self.folder / f"{kind}-{number}.log",
            ready=ready,
            spells=self.spells,
            env=self.env,
        )


def _web_is_up(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/__lbheartbeat__"
            return accepts(port) and fetch(url, timeout_s=5).status == 200
        return False

    return is_up


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """Yield a disk of a few hundred MB, or an ordinary folder if this process may mount none."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "faults", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            unmount = ["umount", "--lazy", str(folder)]
            subprocess.run(unmount, check=False)


@contextlib.contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """Yield a fleet whose parts are all ready. All its processes end with the block."""
    moments, spells = Moments(), Spells()
    fleets: list[Fleet] = []
    with contextlib.ExitStack() as stack:
        canary = stack.enter_context(faulty_host())
        git = stack.enter_context(serving_git(folder / "git"))
        host = stack.enter_context(
            campaign_host(
                elsewhere=canary.url,
                moments=moments,
                sender=lambda port: fleets[0].sender(port) if fleets else 0,
                runs=lambda pid: not spells.are_on(pid, time.monotonic()),
            )
        )
        (folder / "engine").mkdir()
        cluster = stack.enter_context(Cluster(folder / "engine"))
        regions = {name: S3Region(name, folder / name, spells) for name in REGIONS}
        for region in regions.values():
            region.proxy = stack.enter_context(sink(region.server.endpoint))
        fleet = Fleet(
            folder=folder,
            engine=Engine(cluster),
            regions=regions,
            host=host,
            git=git,
            stopping_git=StoppingGit(folder / "stopping-git"),
            canary=canary,
            moments=moments,
            spells=spells,
            token=secrets.token_hex(16),
            disk=stack.enter_context(_disk(folder / "disk")),
        )
        fleets.append(fleet)
        _start(fleet, stack)
        yield fleet


def _start(fleet: Fleet, stack: contextlib.ExitStack) -> None:
    (fleet.folder / "hosts").write_text(f"{HOST_NAME} 127.0.0.1\n")
    for number in range(3):
        fleet.engine.cluster.up(number)
    for region in fleet.regions.values():
        stack.callback(region.program.kill)
        region.program.up()
        region.server.make_bucket(BUCKET)
        region.report_to(fleet.moments)
    fleet.env = settings_of(
        engine=fleet.engine.url,
        regions={name: region.settings() for name, region in fleet.regions.items()},
        host=fleet.host.template,
        git_host=fleet.git.template,
        git=fleet.stopping_git.folder,
        token=fleet.token,
        folder=fleet.folder,
        disk=fleet.disk,
    )
    fleet.add_programs()
    for program in (*fleet.webs, *fleet.workers):
        stack.callback(program.terminate)
    fleet.mend()
