"""A git that a test can stop at a command, to look at the world or to kill something."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from archiver.sources.git.program import GitProgram, find_git
from tests.parts.process import START_TIMEOUT_S

_SCRIPT = """#!/bin/sh
for word do case $word in -*) ;; *) break ;; esac; done
path=$PATH PATH={path}
stop='{folder}/stop-at-'"$word"
if [ -e "$stop" ] && mv "$stop" '{folder}/new' 2>/dev/null; then
  echo $$ > '{folder}/new'
  mv '{folder}/new' '{folder}/stopped'
  kill -STOP $$
fi
PATH=$path
export PATH
exec '{git}' "$@"
"""


class StoppingGit:
    """A git program in *folder* that stops itself once, before the command ``stop_at``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = folder / "git"
        real = shutil.which("git") or "git"
        script = _SCRIPT.format(folder=folder, git=real, path=os.environ["PATH"])
        self.path.write_text(script)
        self.path.chmod(0o755)

    @property
    def program(self) -> GitProgram:
        return replace(find_git(), path=str(self.path))

    def stop_at(self, command: str) -> None:
        (self.folder / f"stop-at-{command}").touch()

    def stop_no_more(self, command: str) -> bool:
        """Return whether no git has stopped at *command*, nor is about to."""
        try:
            (self.folder / f"stop-at-{command}").unlink()
        except FileNotFoundError:
            return False
        return True

    async def stopped(self) -> int:
        """Wait for a process that stopped, and return its id."""
        file = self.folder / "stopped"
        async with asyncio.timeout(START_TIMEOUT_S):
            while not file.exists():
                await asyncio.sleep(0.02)
        pid = int(file.read_text())
        await until(lambda: state(pid) in {"T", ""})
        file.unlink()
        return pid


def resume(pid: int) -> None:
    """Let a stopped process go on, unless its worker has ended it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """Return the letter of a process's state, such as Z; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not happened():
            await asyncio.sleep(0.02)
