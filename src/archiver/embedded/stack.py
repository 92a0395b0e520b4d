"""An all-in-one run: the servers that are not configured, the workers, the web processes."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from archiver.embedded import metrics
from archiver.embedded.child import Part
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import DataFolder, wait_until_free
from archiver.embedded.nats import nats
from archiver.embedded.probe import http
from archiver.embedded.rclone import rclone
from archiver.embedded.supervisor import Supervisor
from archiver.telemetry import forget_dead

WEB_GRACE_S = 15.0
"""More than requests under way are given; those that wait are sent on at once."""

HAND_BACK_S = 15.0
"""What a worker needs beyond its own grace to hand its tasks back."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised here, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. ``servers`` are others to start first.

    ``environment`` is for the web processes and the workers.
    They write their log to this process's standard error; if ``quiet``, into the data folder.
    """

    listen: str
    workers: int
    worker_grace_s: float
    embed_engine: bool
    embed_regions: bool
    servers: tuple[Part, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    quiet: bool = False


def assemble(plan: Plan, folder: DataFolder) -> Supervisor:
    """Return the supervisor of everything in *plan*, not yet running.

    Raises:
        CannotServe: The address is taken, or a server is not installed.
    """
    host, port = _split(plan.listen)
    if not wait_until_free(host, port):
        raise CannotServe(f"{plan.listen} is taken by another program; see `server.listen`")
    servers = list(plan.servers)
    embedded: dict[str, str] = {}
    environment = {**plan.environment, "PROMETHEUS_MULTIPROC_DIR": str(folder.path / "metrics")}
    if plan.embed_engine:
        engine, engine_environment = nats(folder)
        servers.append(engine)
        embedded |= engine_environment
    if plan.embed_regions:
        regions, regions_environment = rclone(folder)
        servers += regions
        embedded |= regions_environment
    folder.announce(embedded)
    environment |= embedded
    metrics.fresh(folder.path / "metrics")
    return Supervisor(
        stages=(servers, _workers(plan, folder, environment), [_web(plan, folder, environment)]),
        on_end=partial(forget_dead, folder.path / "metrics"),
    )


def _web(plan: Plan, folder: DataFolder, environment: Mapping[str, str]) -> Part:
    host, port = _split(plan.listen)
    return Part(
        name="web",
        command=_archiver("web"),
        env=environment,
        prepare=partial(_make, folder.path / "metrics"),
        ready=http(_ANY.get(host, host), port, "/__lbheartbeat__", expect=b" 200 "),
        log=folder.log("web") if plan.quiet else None,
        grace_s=WEB_GRACE_S,
    )


def _workers(plan: Plan, folder: DataFolder, environment: Mapping[str, str]) -> list[Part]:
    names = [f"worker-{number}" for number in range(1, plan.workers + 1)]
    return [
        Part(
            name=name,
            command=_archiver("worker"),
            env=environment,
            prepare=partial(_make, folder.path / "metrics"),
            log=folder.log(name) if plan.quiet else None,
            grace_s=plan.worker_grace_s + HAND_BACK_S,
        )
        for name in names
    ]


def _archiver(command: str) -> tuple[str, ...]:
    """Return how to run *command* of this very Archiver; -P: not of one in the current folder."""
    return (sys.executable, "-P", "-m", "archiver", command)


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


async def run(supervisor: Supervisor, body: Callable[[], Awaitable[None]]) -> None:
    """Run *body* while everything serves, until it returns or a signal says that it is enough.

    A second signal ends everything at once.

    Raises:
        CannotServe: A part never served.
        whatever *body* raises.
    """
    running = asyncio.create_task(_run(supervisor, body))
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            supervisor.kill()
        else:
            told.set()
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            loop.add_signal_handler(number, stop)
    await asyncio.wait({running})
    if not running.cancelled():
        running.result()


async def _run(supervisor: Supervisor, body: Callable[[], Awaitable[None]]) -> None:
    async with supervisor.running():
        await body()
