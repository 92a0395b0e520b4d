"""The processes of git that a test started, and what they leave behind."""

import os
from collections.abc import Iterator

import pytest

from tests.parts.process import descendants, wait_until


def git_processes() -> dict[int, str]:
    """Return the ids and command lines of all processes of git below this one."""
    found = descendants(os.getpid())
    return {pid: command for pid, command in found.items() if _is_git(command)}


def _is_git(command: str) -> bool:
    return command.partition(" ")[0].rpartition("/")[2].startswith("git")


@pytest.fixture
def no_git_left() -> Iterator[None]:
    """Fail the test if a process of git outlives it."""
    yield
    wait_until(lambda: not git_processes(), timeout_s=10, what="the end of all processes of git")
