"""Keeps programs running in stages: a stage starts once the previous stage is ready."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from archiver.embedded.child import Checkup, ChildProcess, start_program
from archiver.embedded.program import CannotServe, Program
from archiver.telemetry import describe, log

RESTART_DELAY_S = 0.2
RESTART_DELAY_MAX_S = 5.0
STABLE_S = 10.0
"""A process that ran this long is restarted with the shortest delay."""

READY_WITHIN_S = 120.0
"""A machine that is busy or slow needs some of that, and a restart would take as long again."""

FIRST_STARTS = 3
"""Starts of a program that never becomes ready. Once ready, it is restarted without limit."""

POLL_S = 0.5
POLL_WHILE_STARTING_S = 0.05


class SupervisedProgram:
    def __init__(self, *, program: Program, on_exit: Callable[[], None]) -> None:
        self.program = program
        self.was_ready = asyncio.Event()
        self.stopped = asyncio.Event()
        self._stopping = asyncio.Event()
        self._on_exit = on_exit
        self._child: ChildProcess | None = None
        self._rests = False

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def keep_running(self) -> None:
        """Start the program, and restart it after each exit, unless it is to rest.

        Raises CannotServe if it is never ready.
        """
        delay_s, starts = RESTART_DELAY_S, 0
        try:
            while not self._stopping.is_set():
                starts += 1
                lifetime_s = await self._try_run_child(restart=starts > 1)
                if self._rests:
                    log.warning("child.resting", child=self.program.name)
                    await self._stopping.wait()
                    break
                if starts >= FIRST_STARTS and not self.was_ready.is_set():
                    raise CannotServe(_explain_never_ready(self.program))
                delay_s = RESTART_DELAY_S if lifetime_s >= STABLE_S else delay_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._stopping.wait()
                delay_s = min(2 * delay_s, RESTART_DELAY_MAX_S)
        finally:
            self.stopped.set()

    def stop(self) -> None:
        """Begin to stop the program. ``stopped`` is set when it has exited."""
        self._stopping.set()

    def kill(self) -> None:
        self._stopping.set()
        if self._child:
            self._child.kill()

    async def _try_run_child(self, *, restart: bool) -> float:
        """Run one child process. A failed restart, for example on a full disk, is only logged."""
        try:
            return await self._run_child(restart=restart)
        except CannotServe as exc:
            if not self.was_ready.is_set():
                raise
            log.error("child.not_started", child=self.program.name, cause=describe(exc))
            return 0.0

    async def _run_child(self, *, restart: bool) -> float:
        """Run one child process until it has exited, and return its lifetime in seconds."""
        child = self._child = await start_program(self.program)
        began = time.monotonic()
        event = "child.restarted" if restart else "child.started"
        log.info(event, child=self.program.name, pid=child.pid)
        reason = "stopped"
        try:
            reason = await self._wait_for_end(child, began)
        finally:
            await child.stop()
            self._child = None
            self._rests = child.exit_code == self.program.rests_after
            self._on_exit()
            self._log_end(child, "drained" if self._rests else reason)
        return time.monotonic() - began

    def _log_end(self, child: ChildProcess, reason: str) -> None:
        program = self.program
        end = {"child": program.name, "pid": child.pid, "code": child.exit_code, "why": reason}
        if reason in {"stopped", "drained"}:
            log.info("child.ended", **end)
        else:
            last_words = {"last_words": str(program.log)} if program.log else {}
            log.warning("child.ended", **end, **last_words)

    async def _wait_for_end(self, child: ChildProcess, began: float) -> str:
        folder, ready = _identify(self.program.folder), False
        checkup = Checkup(program=self.program)
        async with asyncio.TaskGroup() as group:
            exited = group.create_task(child.wait())
            stopping = group.create_task(self._stopping.wait())
            try:
                while True:
                    ready = ready or await self._is_ready()
                    poll_s = POLL_S if ready else POLL_WHILE_STARTING_S
                    done, _ = await asyncio.wait(
                        {exited, stopping}, timeout=poll_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if stopping in done:
                        return "stopped"
                    if exited in done:
                        return _explain_exit(child.exit_code or 0)
                    if folder != _identify(self.program.folder):
                        return "its folder vanished"
                    if ready and await checkup.needs_restart():
                        return "could not do its work"
                    if not ready and time.monotonic() - began > READY_WITHIN_S:
                        return "did not answer"
            finally:
                exited.cancel()
                stopping.cancel()

    async def _is_ready(self) -> bool:
        if self.program.ready and not await self.program.ready.succeeds():
            return False
        self.was_ready.set()
        return True


class Supervisor:
    """Starts and stops the programs of all stages."""

    def __init__(
        self, *, stages: Sequence[Sequence[Program]], on_exit: Callable[[], None] = lambda: None
    ) -> None:
        self._stages = [
            [SupervisedProgram(program=program, on_exit=on_exit) for program in stage]
            for stage in stages
        ]
        self._started: list[list[SupervisedProgram]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the block once every program is ready, then stop the stages in reverse order.

        Raises CannotServe if a program never became ready, or any exception of the block.
        """
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._start(group)
                    yield
                finally:
                    await self._stop()
        except BaseExceptionGroup as errors:
            raise _first_error(errors) from None

    @property
    def pids(self) -> Mapping[str, int]:
        """The process ids of the running programs, by name."""
        programs = [supervised for stage in self._started for supervised in stage]
        return {each.program.name: each.pid for each in programs if each.pid}

    def kill(self) -> None:
        for stage in self._started:
            for supervised in stage:
                supervised.kill()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        for stage in self._stages:
            self._started.append(stage)
            for supervised in stage:
                group.create_task(supervised.keep_running())
            for supervised in stage:
                await supervised.was_ready.wait()

    async def _stop(self) -> None:
        for stage in reversed(self._started):
            for supervised in stage:
                supervised.stop()
            for supervised in stage:
                await supervised.stopped.wait()


def _identify(folder: Path | None) -> tuple[int, int] | None:
    """Return device and inode, which differ for another folder of the same name; None if absent."""
    if folder:
        with suppress(OSError):
            found = folder.stat()
            return found.st_dev, found.st_ino
    return None


def _explain_exit(exit_code: int) -> str:
    """Return the meaning of an exit code. A negative one is the number of a signal."""
    if exit_code >= 0:
        return "exited"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"


def _explain_never_ready(program: Program) -> str:
    where = f"; see the end of {program.log}" if program.log else ""
    return f"{program.name} was started {FIRST_STARTS} times and never became ready{where}"


def _first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception that cancelled the other tasks, without its groups."""
    exc: BaseException = errors
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc
