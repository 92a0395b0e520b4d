"""One run of the git program: its limits, its pipes and its end."""

import asyncio
import errno
import fcntl
import logging
import os
import signal
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from archiver.runtime.pipes import read_piece
from archiver.runtime.processes import release, started
from archiver.runtime.tasks import cancel_and_wait, complete_despite_cancellation
from archiver.telemetry import describe, log

PIECE_BYTES = 1 << 20
"""Size of the pieces of output, and of the buffers of pipes: each piece costs its consumer."""

STDERR_BYTES = 4096
"""The end of git's messages, which has the fatal one."""

SHELL = "/bin/sh"

_LIMITED = (
    '{ ulimit -v "$1"; ulimit -t $(($2 + 1)); ulimit -S -t "$2"; ulimit -c 0; } 2>/dev/null; '
    'shift 2; exec "$@"'
)
"""A limit that the system does not support is left out. The soft limit of time ends the process by
a signal of its own, SIGXCPU; the hard one by SIGKILL, which has many reasons."""

_OUT_OF_MEMORY = ("out of memory", "cannot allocate memory", "unable to create thread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The command line and the environment of one process, with its limits.

    ``memory_bytes`` is of address space. ``inherits`` are the descriptors that the process keeps
    open. ``stdin`` is that of a file to read. The failure of a run that ``may_fail`` is no news.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    memory_bytes: int
    cpu: timedelta
    deadline: timedelta
    inherits: tuple[int, ...] = ()
    stdin: int | None = None
    may_fail: bool = False

    @property
    def name(self) -> str:
        """The name of git's command."""
        return self.command[1]


class GitFailed(Exception):
    """A run of git did not succeed. Callers translate it, because its text is not for clients.

    ``status`` is the exit status, or minus the signal that ended the process; None if it did not
    start, or still ran. ``stderr`` is the end of its messages, which may quote the host and the
    repository. ``too_much_output`` is whether it wrote more than its caller accepts.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        stderr: str = "",
        too_much_output: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.stderr = stderr
        self.too_much_output = too_much_output

    @property
    def reached_limit(self) -> bool:
        """Whether git needs more memory, processor time or output than it may have."""
        text = self.stderr.lower()
        out_of_memory = any(sign in text for sign in _OUT_OF_MEMORY)
        return out_of_memory or self.status == -signal.SIGXCPU or self.too_much_output

    @property
    def ended_itself(self) -> bool:
        """Whether git reported an error of its own and ended, and was not killed."""
        return self.status is not None and self.status > 0


class Child:
    """A running git. It leads its own process group, which ends with it."""

    def __init__(self, process: Process, run: Run) -> None:
        self._process = process
        self._name = run.name
        self._may_fail = run.may_fail
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._messages = asyncio.create_task(_read_tail(cast("StreamReader", process.stderr)))
        self._expired = False
        self._group_ended = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(run.deadline.total_seconds(), self._expire)
        for pipe in (process.stdin, process.stdout):
            _enlarge(pipe)

    async def write(self, data: bytes) -> None:
        """Write to git's standard input. Raises GitFailed if git has ended."""
        stdin = cast("StreamWriter", self._stdin)
        try:
            stdin.write(data)
            await stdin.drain()
        except ConnectionError:
            await self.succeed()
            raise self._failure("stopped reading its input") from None

    async def write_all(self, data: bytes) -> None:
        """Write *data* and close the input. Whether git read it is up to its exit status."""
        stdin = cast("StreamWriter", self._stdin)
        with suppress(ConnectionError):
            stdin.write(data)
            await stdin.drain()
        stdin.close()

    async def finish(self, *, max_output_bytes: int = PIECE_BYTES) -> bytes:
        """Close the input and return the output, once git has succeeded. Raises GitFailed."""
        if self._stdin:
            self._stdin.close()
        return await self.read_all(max_output_bytes)

    async def read_all(self, max_output_bytes: int) -> bytes:
        """Return the output, once git has succeeded. Raises GitFailed, also for more output."""
        output = bytearray()
        async for piece in self.iter_output():
            output += piece
            if len(output) > max_output_bytes:
                reason = f"wrote more than {max_output_bytes} bytes"
                raise self._failure(reason, too_much_output=True)
        return bytes(output)

    async def iter_output(self) -> AsyncGenerator[bytes, None]:
        """Yield the output in pieces of up to 1 MiB. Raises GitFailed at the end."""
        stdout = cast("StreamReader", self._stdout)
        while piece := await read_piece(stdout, PIECE_BYTES):
            yield piece
        await self.succeed()

    async def succeed(self) -> None:
        """Return when git has exited with status 0. Raises GitFailed."""
        if not await self.wrote_all():
            raise self._ended_by(-signal.SIGPIPE)

    async def wrote_all(self) -> bool:
        """Return, when git has ended, whether it succeeded; False if its reader ended first.

        Raises GitFailed.
        """
        status = await self._process.wait()
        self._end_group()
        await asyncio.wait({self._messages})
        if status == -signal.SIGPIPE:
            return False
        if status:
            raise self._ended_by(status)
        return True

    def _ended_by(self, status: int) -> GitFailed:
        return self._failure(
            f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
        )

    async def close(self) -> None:
        """Kill the process and its group, and wait for their end."""
        self._timer.cancel()
        self._end_group()
        if self._stdin:
            self._stdin.close()
        await complete_despite_cancellation(self._drain())

    async def _drain(self) -> None:
        """Read what is left in the pipes, which keep the process's end from being reported."""
        while self._stdout and await self._stdout.read(PIECE_BYTES):
            pass
        await self._process.wait()
        await cancel_and_wait(self._messages)
        release(self._process)

    def _expire(self) -> None:
        self._expired = True
        self._end_group()

    def _end_group(self) -> None:
        """Kill the group once: later, the system may reuse its number."""
        if not self._group_ended:
            self._group_ended = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _failure(self, reason: str, *, too_much_output: bool = False) -> GitFailed:
        """Log the failure, once, and return it."""
        if self._expired:
            reason = "was ended at its deadline"
        messages = self._messages
        stderr = messages.result() if messages.done() and not messages.cancelled() else ""
        status = self._process.returncode
        log.log(
            logging.DEBUG if self._may_fail else logging.WARNING,
            "git.failed",
            command=self._name,
            reason=reason,
            status=status,
            stderr=_escape(stderr),
        )
        return GitFailed(
            f"git {self._name} {reason}",
            status=status,
            stderr=stderr,
            too_much_output=too_much_output,
        )


@asynccontextmanager
async def start(run: Run, *, feeds: bool, stdout: int = PIPE) -> AsyncIterator[Child]:
    """Yield a running git, with an input if it *feeds*. It does not outlive the block.

    Its output goes to the descriptor *stdout*, if that is given.

    Raises GitFailed if the system cannot start it.
    """
    memory_kib, cpu_s = run.memory_bytes >> 10, int(run.cpu.total_seconds())
    try:
        process = await started(
            asyncio.create_subprocess_exec(
                *(SHELL, "-c", _LIMITED, SHELL, str(memory_kib), str(cpu_s), *run.command),
                stdin=PIPE if feeds else DEVNULL if run.stdin is None else run.stdin,
                stdout=stdout,
                stderr=PIPE,
                limit=PIECE_BYTES,
                cwd="/",
                env=run.environment,
                pass_fds=run.inherits,
                start_new_session=True,
            )
        )
    except OSError as exc:
        reason = f"was not started: {errno.errorcode.get(exc.errno or 0, 'unknown')}"
        log.warning("git.failed", command=run.name, reason=reason, cause=describe(exc))
        raise GitFailed(f"git {run.name} was not started") from exc
    child = Child(process, run)
    try:
        yield child
    finally:
        await child.close()


async def _read_tail(stream: StreamReader) -> str:
    tail = b""
    while piece := await stream.read(PIECE_BYTES):
        tail = (tail + piece)[-STDERR_BYTES:]
    return tail.decode(errors="replace")


def _escape(text: str) -> str:
    """Return *text* on one line, without control characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text.strip())


def _enlarge(pipe: StreamReader | StreamWriter | None) -> None:
    """Enlarge a pipe's buffer where the system supports it, which saves context switches."""
    transport = getattr(pipe, "transport", None) or getattr(pipe, "_transport", None)
    end = transport.get_extra_info("pipe") if transport else None
    if end is not None:
        with suppress(ValueError):  # the process may have ended already
            enlarge(end.fileno())


def enlarge(pipe: int) -> None:
    """Enlarge the buffer of the pipe with this descriptor, if possible."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIECE_BYTES)
