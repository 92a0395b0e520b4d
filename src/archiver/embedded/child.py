"""One child process: how it starts, and how it stops together with its own children."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from archiver.embedded.errors import CannotServe
from archiver.embedded.probe import Probe

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _do_nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to keep running.

    - ``prepare`` creates the files it needs, before every start.
    - ``ready`` succeeds when it serves; without one, it serves at once.
    - ``broken`` succeeds when the program cannot work until it is restarted.
    - ``folder`` must stay the same directory; if it is replaced, the program is restarted.
    - ``inherits`` are file descriptors that it keeps open.
    - ``log`` receives its output; without one, this process's standard error does.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    prepare: Callable[[], None] = _do_nothing
    ready: Probe | None = None
    broken: Probe | None = None
    folder: Path | None = None
    inherits: tuple[int, ...] = ()
    log: Path | None = None
    grace_s: float = 5.0


class ChildProcess:
    """A running program. It leads its own process group, so the terminal's Ctrl-C spares it."""

    def __init__(self, *, program: Program, process: asyncio.subprocess.Process) -> None:
        self._program = program
        self._process = process
        self._group_ended = False
        self.pid = process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the signal that ended the process; None while it runs."""
        return self._process.returncode

    async def wait(self) -> None:
        """Wait until the process has exited, then kill what is left of its group."""
        await self._process.wait()
        self.kill()
        self._group_ended = True  # from now on the system may reuse the process id

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL to the group after ``grace_s``."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._program.grace_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """Kill the whole process group at once."""
        if not self._group_ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


async def start_program(program: Program) -> ChildProcess:
    """Start *program*. When this process dies, even by SIGKILL, the child receives SIGTERM.

    Raises:
        CannotServe: The system cannot start it.
    """
    try:
        program.prepare()
        return ChildProcess(program=program, process=await _spawn(program))
    except OSError as exc:
        raise CannotServe(f"{program.name} cannot be started: {exc.strerror}") from exc


async def _spawn(program: Program) -> asyncio.subprocess.Process:
    if program.log:
        program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    output = program.log.open("ab") if program.log else None
    try:
        return await asyncio.create_subprocess_exec(
            *program.command,
            stdin=subprocess.DEVNULL,
            stdout=output or sys.stderr.fileno(),
            stderr=output or sys.stderr.fileno(),
            env={**os.environ, **program.env},
            pass_fds=program.inherits,
            start_new_session=True,
            preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
        )
    finally:
        if output:
            output.close()


def _end_with_parent() -> Callable[[], None]:
    """Return a function for the child to call before its exec, so that it ends with its parent.

    All look-ups happen here: little is safe between fork and exec.
    """
    prctl = ctypes.CDLL(None).prctl
    parent, sigterm = os.getpid(), int(signal.SIGTERM)

    def end_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, sigterm, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), sigterm)

    return end_with_parent
