"""One child process: how it is started, and how it ends, with all that it started itself."""

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


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A program to keep running.

    ``prepare`` makes the files it needs, before every start. ``ready`` tells when it serves; None:
    at once. ``broken`` is answered when it cannot do its work until it is started again.
    ``folder`` must remain the same one for as long as it runs. ``inherits`` are file descriptors
    it keeps open. Its output goes to ``log``, or where this process's errors go.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    prepare: Callable[[], None] = _nothing
    ready: Probe | None = None
    broken: Probe | None = None
    folder: Path | None = None
    inherits: tuple[int, ...] = ()
    log: Path | None = None
    grace_s: float = 5.0


class Child:
    """A running part. It leads a process group of its own, so the terminal's Ctrl-C spares it."""

    def __init__(self, *, part: Part, process: asyncio.subprocess.Process) -> None:
        self._part = part
        self._process = process
        self._cleared = False
        self.pid = process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.returncode

    async def wait(self) -> None:
        """Return when it has ended, and see that nothing it started is left."""
        await self._process.wait()
        self.kill()
        self._cleared = True  # from now on its number may come to be another one's

    async def stop(self) -> None:
        """End it: politely, and when its grace is over, not."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._part.grace_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """End its whole group at once."""
        if not self._cleared:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


async def start(part: Part) -> Child:
    """Start *part*. If this process dies, whatever kills it, the child is told to end.

    Raises:
        CannotServe: The system refuses.
    """
    try:
        part.prepare()
        return Child(part=part, process=await _spawn(part))
    except OSError as exc:
        raise CannotServe(f"{part.name} cannot be started: {exc.strerror}") from exc


async def _spawn(part: Part) -> asyncio.subprocess.Process:
    if part.log:
        part.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    output = part.log.open("ab") if part.log else None
    try:
        return await asyncio.create_subprocess_exec(
            *part.command,
            stdin=subprocess.DEVNULL,
            stdout=output or sys.stderr.fileno(),
            stderr=output or sys.stderr.fileno(),
            env={**os.environ, **part.env},
            pass_fds=part.inherits,
            start_new_session=True,
            preexec_fn=_follow_parent() if sys.platform == "linux" else None,
        )
    finally:
        if output:
            output.close()


def _follow_parent() -> Callable[[], None]:
    """Return what makes a child end with its parent, to be called in the child, before its exec.

    Everything is looked up beforehand: between fork and exec, one does as little as one can.
    """
    prctl = ctypes.CDLL(None).prctl
    parent, sigterm = os.getpid(), int(signal.SIGTERM)

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, sigterm, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), sigterm)

    return follow
