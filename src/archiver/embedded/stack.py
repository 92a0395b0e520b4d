"""All programs of `archiver serve`: servers that are not configured, workers, web processes."""

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from archiver.embedded.data_folder import DataFolder
from archiver.embedded.local_ports import wait_until_port_free
from archiver.embedded.program import (
    DRAINED,
    SUPERVISED,
    CannotServe,
    Probe,
    Program,
    http_probe,
)
from archiver.embedded.servers import nats_server, s3_servers
from archiver.embedded.supervisor import Supervisor
from archiver.telemetry import forget_dead_processes

WEB_GRACE_S = 15.0
"""More than running requests get to finish; requests that wait are redirected at once."""

HAND_BACK_S = 15.0
"""Time for a worker to hand back its tasks, after its own grace period."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LOOPBACK_OF_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """The programs of one run.

    - ``servers`` are more programs of the first stage.
    - ``environment`` is for the web processes and the workers.
    - ``quiet`` sends their logs to the data folder instead of this process's standard error.
    """

    listen: str
    workers: int
    worker_grace_s: float
    embed_engine: bool
    embed_regions: bool
    servers: tuple[Program, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    quiet: bool = False


def create_supervisor(options: StackOptions, folder: DataFolder) -> Supervisor:
    """Return a supervisor that has not started any program yet.

    Raises CannotServe if the address is in use, or if a server is not installed.
    """
    host, port = split_address(options.listen)
    if not wait_until_port_free(host, port):
        raise CannotServe(f"{options.listen} is in use by another program; see `server.listen`")
    servers, embedded = _embedded_servers(options, folder)
    folder.publish_running(embedded)
    metrics = folder.path / "metrics"
    empty_folder(metrics)
    environment = {**options.environment, **embedded, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    create = partial(_archiver_program, options=options, folder=folder, environment=environment)
    ready = http_probe(_LOOPBACK_OF_ANY.get(host, host), port, "/__lbheartbeat__", expect=b" 200 ")
    web = create("web", name="web", ready=ready, grace_s=WEB_GRACE_S)
    workers = [
        create(
            "worker",
            name=f"worker-{number}",
            grace_s=options.worker_grace_s + HAND_BACK_S,
            rests_after=DRAINED,
        )
        for number in range(1, options.workers + 1)
    ]
    return Supervisor(
        stages=([*options.servers, *servers], workers, [web]),
        on_exit=partial(forget_dead_processes, metrics),
    )


def _embedded_servers(
    options: StackOptions, folder: DataFolder
) -> tuple[list[Program], dict[str, str]]:
    """Return the embedded servers, and the environment variables that point Archiver to them."""
    servers: list[Program] = []
    environment: dict[str, str] = {}
    if options.embed_engine:
        engine, engine_environment = nats_server(folder)
        servers.append(engine)
        environment |= engine_environment
    if options.embed_regions:
        regions, regions_environment = s3_servers(folder)
        servers += regions
        environment |= regions_environment
    return servers, environment


def empty_folder(folder: Path) -> None:
    """Create *folder* or remove its contents: the counters of a run begin at zero."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)


def _archiver_program(
    command: str,
    *,
    name: str,
    options: StackOptions,
    folder: DataFolder,
    environment: Mapping[str, str],
    ready: Probe | None = None,
    grace_s: float,
    rests_after: int | None = None,
) -> Program:
    metrics = folder.path / "metrics"
    return Program(
        name=name,
        command=(sys.executable, "-P", "-m", "archiver", command),  # -P: not the current folder's
        env={**environment, SUPERVISED: "1"},
        prepare=partial(metrics.mkdir, mode=0o700, parents=True, exist_ok=True),
        ready=ready,
        log=folder.create_log(name) if options.quiet else None,
        grace_s=grace_s,
        rests_after=rests_after,
        sends_traces=True,
    )


def split_address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


async def run_until_stopped(supervisor: Supervisor, body: Callable[[], Awaitable[None]]) -> None:
    """Start everything, and run *body* until it returns or a signal arrives; then stop everything.

    A second signal kills everything at once. Raises CannotServe, or any exception of *body*.
    """
    running = asyncio.create_task(_run_supervised(supervisor, body))
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            supervisor.kill()
        else:
            stopping.set()
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            loop.add_signal_handler(number, stop)
    await asyncio.wait({running})
    if not running.cancelled():
        running.result()


async def _run_supervised(supervisor: Supervisor, body: Callable[[], Awaitable[None]]) -> None:
    async with supervisor.running():
        await body()
