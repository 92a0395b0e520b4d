"""Runs a command under the system call filters of a unit in ``deploy/systemd``, as systemd does.

``python -m tests.deploy.confined UNIT COMMAND…``. Of the unit, it reads SystemCallFilter,
RestrictAddressFamilies, MemoryDenyWriteExecute and RestrictSUIDSGID, and installs them with
libseccomp, which systemd uses as well. It knows nothing of file systems.
"""

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

from tests.deploy.files import unit

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
EQUAL, ABOVE, MASKED = 4, 6, 7


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: which value of an argument a rule is about."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_init.restype = ctypes.c_void_p
SECCOMP.seccomp_rule_add_array.argtypes = (
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
    ctypes.POINTER(Comparison),
)
SECCOMP.seccomp_load.argtypes = (ctypes.c_void_p,)


class Filter:
    """A filter with an action for the calls that no rule is about."""

    def __init__(self, otherwise: int) -> None:
        self._context = SECCOMP.seccomp_init(ctypes.c_uint32(otherwise))
        assert self._context

    def add(self, action: int, name: str, *comparisons: Comparison) -> None:
        """Add a rule for the system call *name*, unless this machine lacks it."""
        number = SECCOMP.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            array = (Comparison * len(comparisons))(*comparisons)
            result = SECCOMP.seccomp_rule_add_array(
                self._context, action, number, len(comparisons), array
            )
            assert result == 0, (name, result)

    def load(self) -> None:
        assert SECCOMP.seccomp_load(self._context) == 0


def calls(names: Iterable[str]) -> set[str]:
    """Return the system calls that systemd means by *names*, which may be of groups."""
    found: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        result = subprocess.run(
            ["/usr/bin/systemd-analyze", "syscall-filter", name],
            check=True,
            capture_output=True,
            text=True,
        )
        words = [line.strip() for line in result.stdout.splitlines()[1:]]
        found |= calls(word for word in words if word and not word.startswith("#"))
    return found


def _confine_calls(values: Sequence[str]) -> None:
    allowed: set[str] = set()
    for value in values:
        if value.startswith("~"):
            allowed -= calls(value[1:].split())
        else:
            allowed |= calls(value.split())
    confined = Filter(REFUSE)
    for name in sorted(allowed):
        confined.add(ALLOW, name)
    confined.load()


def _confine_families(values: Sequence[str]) -> None:
    allowed = {int(getattr(socket, name)) for name in values[0].split()}
    confined = Filter(ALLOW)
    for family in set(range(max(allowed))) - allowed:
        confined.add(REFUSE, "socket", Comparison(0, EQUAL, family))
    confined.add(REFUSE, "socket", Comparison(0, ABOVE, max(allowed)))
    confined.load()


def _confine_memory(values: Sequence[str]) -> None:
    assert values == ["yes"]
    both = mmap.PROT_WRITE | mmap.PROT_EXEC
    confined = Filter(ALLOW)
    confined.add(REFUSE, "mmap", Comparison(2, MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        confined.add(REFUSE, name, Comparison(2, MASKED, mmap.PROT_EXEC, mmap.PROT_EXEC))
    confined.load()


def _confine_modes(values: Sequence[str]) -> None:
    assert values == ["yes"]
    confined = Filter(ALLOW)
    for bit in (stat.S_ISUID, stat.S_ISGID):
        for name, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1)):
            confined.add(REFUSE, name, Comparison(argument, MASKED, bit, bit))
    confined.load()


CONFINE: dict[str, Callable[[Sequence[str]], None]] = {
    "RestrictAddressFamilies": _confine_families,
    "MemoryDenyWriteExecute": _confine_memory,
    "RestrictSUIDSGID": _confine_modes,
    "SystemCallFilter": _confine_calls,  # last, because it forbids further filters
}


def main(name: str, *command: str) -> None:
    settings = unit(name)
    for setting, confine in CONFINE.items():
        confine(settings[setting])
    os.execv(command[0], command)  # noqa: S606 - there is no shell to avoid


if __name__ == "__main__":
    main(*sys.argv[1:])
