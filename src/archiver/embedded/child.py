"""One child process: how it starts, when it must be restarted, and how it stops."""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from archiver.embedded.program import CannotServe, Program
from archiver.runtime.processes import started
from archiver.telemetry import log

PR_SET_PDEATHSIG = 1  # linux/prctl.h

CHECK_FAILURES = 3
"""One failure is not enough: nats-server also reports a consumer that is just being removed."""

CHECK_ROOM_BYTES = 64 * 1024 * 1024
"""On a fuller disk a restart repairs nothing, and takes away what can still be read."""


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
        if not self._group_ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


async def start_program(program: Program) -> ChildProcess:
    """Start *program*. When this process dies, even by SIGKILL, the child receives SIGTERM.

    Raises CannotServe if the system cannot start it.
    """
    try:
        program.prepare()
        return ChildProcess(program=program, process=await _spawn(program))
    except OSError as exc:
        raise CannotServe(f"{program.name} cannot be started: {exc.strerror}") from exc


async def _spawn(program: Program) -> asyncio.subprocess.Process:
    if program.log:
        program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with program.log.open("ab") if program.log else nullcontext(sys.stderr) as output:
        return await started(
            asyncio.create_subprocess_exec(
                *program.command,
                stdin=subprocess.DEVNULL,
                stdout=output.fileno(),
                stderr=output.fileno(),
                env=program.environment(),
                pass_fds=program.inherits,
                start_new_session=True,
                preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
            )
        )


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


class Checkup:
    """Decides whether one run of a program must end because it cannot recover by itself."""

    def __init__(self, *, program: Program) -> None:
        self._program = program
        self._due = time.monotonic()
        self._failures = 0
        self._logged = False

    async def needs_restart(self) -> bool:
        """Return whether several checks in a row found it broken, and a restart may help."""
        if not self._program.broken or time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._program.check_interval_s
        self._failures = self._failures + 1 if await self._program.broken.succeeds() else 0
        return self._failures >= CHECK_FAILURES and self._has_room()

    def _has_room(self) -> bool:
        folder = self._program.folder
        try:
            if folder is None or shutil.disk_usage(folder).free >= CHECK_ROOM_BYTES:
                return True
        except OSError:  # the folder vanished, which is another reason for a restart
            return False
        if not self._logged:
            log.error("child.disk_full", child=self._program.name, folder=str(folder))
            self._logged = True
        return False
