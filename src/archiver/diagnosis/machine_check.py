"""Whether this machine has what its processes need: disk, files, git."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from archiver.diagnosis.finding import Finding, failure, warning, well
from archiver.runtime.file_limit import most_files
from archiver.runtime.threads import run_in_thread

FILES_WANTED = 4096
"""A web process holds one for each connection, and a build some for each submodule."""

DEFAULT = " (the default: workers may have data_dir from their environment)"

MIB = 1 << 20

GIB_FROM = 10
"""From here on, a size is in GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderNeeds:
    """A folder under the name ``check``, as the ``setting`` has it.

    ``spare_bytes`` of its disk stay free. What Archiver may use of it is ``max_bytes``, by the
    setting ``max_setting``. Without settings, it is the ``is_default`` one.
    """

    check: str
    setting: str
    folder: Path
    spare_bytes: int
    max_bytes: int = 0
    max_setting: str = ""
    is_default: bool = False


class MachineCheck:
    """Examines *folders* and the limit of open files."""

    def __init__(self, *, folders: Sequence[FolderNeeds]) -> None:
        self._folders = folders

    async def run(self) -> AsyncGenerator[Finding, None]:
        for needs in self._folders:
            yield await run_in_thread(examine_folder, needs)
        yield examine_files(most_files())


class GitCheck:
    """Examines git. *find* returns its path and version, or raises the error *missing*."""

    def __init__(self, *, find: Callable[[], tuple[str, str]], missing: type[Exception]) -> None:
        self._find = find
        self._missing = missing

    async def run(self) -> AsyncGenerator[Finding, None]:
        try:
            path, version = await run_in_thread(self._find)
        except self._missing as exc:
            action = "install git 2.39.1 or later on each machine with workers, in their PATH"
            yield failure("git", str(exc), action)
            return
        yield well("git", f"{version}, {path}")


def examine_files(most: int) -> Finding:
    """Return whether a process may open enough files, of which the system allows *most*."""
    if most < FILES_WANTED:
        found = f"the system lets a process open {most:,} files"
        action = f"raise the hard limit (ulimit -Hn, LimitNOFILE) to {FILES_WANTED:,} or more"
        return warning("files", found, action)
    amount = "any number of" if most == sys.maxsize else f"{most:,}"
    return well("files", f"the system lets a process open {amount} files")


def examine_folder(needs: FolderNeeds) -> Finding:
    """Return whether a folder can be written and has room. Leaves nothing there."""
    finding = _examine(needs)
    return replace(finding, found=f"{finding.found}{DEFAULT}") if needs.is_default else finding


def _examine(needs: FolderNeeds) -> Finding:
    existing = next(_iter_existing(needs.folder.absolute()))
    try:
        free = shutil.disk_usage(existing).free
        if free:
            _write(existing)
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _full(needs, 0)
        reason = (exc.strerror or "it cannot be used").lower()
        found = f"{needs.folder} cannot be written: {reason}"
        mounted = exc.errno == errno.EROFS
        repair = "mount the disk for writing" if mounted else "let this user write there"
        return failure(needs.check, found, f"{repair}, or change {needs.setting}")
    if free <= needs.spare_bytes:
        return _full(needs, free)
    usable = free - needs.spare_bytes + _size_of(needs.folder)
    if usable < needs.max_bytes:
        found = (
            f"{needs.max_setting} allows {_size(needs.max_bytes)} in {needs.folder}, "
            f"and the disk has room for {_size(usable)}"
        )
        return warning(needs.check, found, f"lower {needs.max_setting}, or make room")
    return well(needs.check, f"{_size(free)} are free in {needs.folder}")


def _full(needs: FolderNeeds, free: int) -> Finding:
    found = (
        f"the disk of {needs.folder} is full: {_size(free)} are free, "
        f"and {_size(needs.spare_bytes)} have to stay free"
    )
    return failure(needs.check, found, f"make room, or set {needs.setting} to another disk")


def _iter_existing(folder: Path) -> Iterator[Path]:
    """Yield the folder, or those above it, which will contain it."""
    yield from (each for each in (folder, *folder.parents) if each.exists())


def _write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(bytes(4096))


def _size_of(folder: Path) -> int:
    """Return the bytes that the files in *folder* use already."""
    size_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size_bytes += (Path(parent) / name).lstat().st_size
    return size_bytes


def _size(size_bytes: int) -> str:
    """Return a size in whole MiB, or in GiB if there are many."""
    gib = size_bytes // (MIB << 10)
    return f"{gib:,} GiB" if gib >= GIB_FROM else f"{size_bytes // MIB:,} MiB"
